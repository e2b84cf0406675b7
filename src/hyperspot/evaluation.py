"""Every metric of a detector on a labeled data set, each photo judged once and then forgotten.

Nothing is chosen on the test photos: the thresholds come from good parts alone. The figures whose definition
needs the best threshold of the test set carry `max` in their names.
"""

import io
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image

from hyperspot.data import Dataset, Sample, load_mask
from hyperspot.errors import DataError
from hyperspot.images import Crop
from hyperspot.metrics import PixelStatistics, auroc, average_precision, f1_max, roc_curve
from hyperspot.results.drawing import outline
from hyperspot.results.drawing import overlay_heatmap as color
from hyperspot.results.verdict import Verdict
from hyperspot.utils.progress import Progress

PICTURE_SIDE = 256
"""Longest side in pixels of the small pictures kept for the report."""
TRUTH_COLOR = (60, 220, 90)

Curve = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class Judged:
    """What was said of one test photo, with small JPEG pictures of it.

    `pictures` holds the photo, the heatmap over it, and the found mask beside the true one (green).
    """

    path: Path
    defect: str
    label: int
    score: float
    p_value: float | None
    is_anomalous: bool | None
    milliseconds: float
    pictures: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True)
class PixelFigures:
    """Metrics over pixels, in 0..1; none where they are undefined for want of defect masks."""

    pixel_auroc: float | None
    aupro_30: float | None
    aupro_05: float | None
    aupimo: float | None
    pixel_ap: float | None
    pixel_f1_max: float | None


@dataclass(frozen=True)
class Evaluation:
    """All figures of one evaluation, rates in 0..1.

    Attributes:
        name: The data set.
        image_auroc: Area under the ROC curve of the image scores; none where one class is missing.
        pixels: Metrics at the photos' own resolution.
        pixels_at_input: The same in the pixels the detector sees (the published figures' protocol).
        seg_f1: F1 of the delivered masks over all pixels, at the detector's own threshold.
        promised_false_alarm_rate: What calibration on good parts promised; none without calibration.
        observed_false_alarm_rate: The share of good test photos called anomalous.
        found_rate: The share of defective test photos called anomalous.
        judged: One entry per test photo, in the order of the data set.
        calibration_scores: Scores of the held-out good photos, and `threshold` what follows from them.
        image_roc: False-alarm and detection rate over all image thresholds; `pixel_roc` over pixels;
            `pro` per-region overlap against false-positive rate.
        problems: What is amiss with the data.
        made_by: The command, settings, versions and data behind the figures.
        seconds: Wall time of the evaluation.

    """

    name: str
    image_auroc: float | None
    image_ap: float | None
    image_f1_max: float | None
    pixels: PixelFigures
    pixels_at_input: PixelFigures
    seg_f1: float | None
    promised_false_alarm_rate: float | None
    observed_false_alarm_rate: float | None
    detection_rate: float | None
    threshold: float | None
    calibration_scores: tuple[float, ...]
    judged: tuple[Judged, ...] = field(repr=False)
    image_roc: Curve | None = field(repr=False)
    pixel_roc: Curve | None = field(repr=False)
    pro: Curve | None = field(repr=False)
    problems: tuple[str, ...]
    made_by: dict[str, Any] = field(repr=False)
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the figures and where they come from, ready for JSON."""
        return {
            "name": self.name,
            "image_auroc": self.image_auroc,
            "image_ap": self.image_ap,
            "image_f1_max": self.image_f1_max,
            **asdict(self.pixels),
            "at_input": asdict(self.pixels_at_input),
            "seg_f1": self.seg_f1,
            "promised_false_alarm_rate": self.promised_false_alarm_rate,
            "observed_false_alarm_rate": self.observed_false_alarm_rate,
            "detection_rate": self.detection_rate,
            "threshold": self.threshold,
            "images": len(self.judged),
            "seconds": round(self.seconds, 3),
            "problems": list(self.problems),
            "made_by": self.made_by,
        }


def evaluate(predictor: Any, dataset: Dataset, *, progress: Progress, command: str = "") -> Evaluation:
    """Predict the test images of a data set and compute every metric.

    Raises:
        DataError: If the data set has no labeled test image.
        ImageError: If one cannot be read.

    """
    calibration = predictor.decision_rule.calibration
    threshold = calibration.threshold
    made_by = {
        "command": command,
        "data": {"path": str(dataset.root), "layout": dataset.layout, "images": len(dataset.test)},
        **predictor.describe(),
    }
    started = time.perf_counter()
    photos = dataset.test
    if not photos:
        raise DataError(
            f"{dataset.root} has no labeled test photo; put some into test/good and test/<name of the defect>"
        )
    tally = _Tally(predictor.crops)
    judged = []
    problems = list(dataset.problems)
    verdicts = predictor.predict_many(photo.path for photo in photos)
    for photo, verdict in zip(progress.track(photos, "judging test photos", len(photos)), verdicts, strict=True):
        truth = load_mask(photo, *verdict.heatmap.shape)
        if photo.label == 1 and truth is not None and not truth.any():
            # Counted, all its pixels would pass for those of a good part.
            problems.append(f"{photo.path} is defective and its mask is black; it does not count in the pixel metrics")
            truth = None
        tally.add(verdict, truth)
        judged.append(_judged(photo, verdict, truth))
    scores = np.array([one.score for one in judged])
    labels = np.array([one.label for one in judged])
    both = 0 < labels.sum() < len(labels)
    unmasked = sum(photo.label == 1 and not photo.masks for photo in photos)
    if unmasked:
        problems.append(f"{unmasked} defective photos have no mask and do not count in the pixel metrics")
    for label, missing in ((0, "good"), (1, "defective")):
        if label not in labels:
            where = "test/DEFECT" if label else "test/good"
            cause = f"there is no {missing} test photo, so that good and defective ones cannot be told apart"
            problems.append(f"{cause}; put some into {where}")
    progress.note()
    return Evaluation(
        name=dataset.name,
        image_auroc=auroc(scores, labels),
        image_ap=average_precision(scores, labels),
        image_f1_max=f1_max(scores, labels),
        pixels=_figures(tally.original),
        pixels_at_input=_figures(tally.at_input),
        seg_f1=tally.seg_f1 if threshold is not None else None,
        promised_false_alarm_rate=None if threshold is None else calibration.false_alarm_rate,
        observed_false_alarm_rate=_share_called(judged, 0),
        detection_rate=_share_called(judged, 1),
        threshold=threshold,
        calibration_scores=tuple(float(score) for score in calibration.scores),
        judged=tuple(judged),
        image_roc=_curve(roc_curve(scores, labels)) if both else None,
        pixel_roc=_curve(tally.original.roc_curve()),
        pro=_curve(tally.original.pro_curve()),
        problems=tuple(problems),
        made_by=made_by,
        seconds=time.perf_counter() - started,
    )


class _Tally:
    """Pixels counted so far, at both resolutions."""

    def __init__(self, crops: Sequence[Crop]) -> None:
        self.original = PixelStatistics()
        self.at_input = PixelStatistics()
        top, left = min(crop.top for crop in crops), min(crop.left for crop in crops)
        bottom = max(crop.top + crop.height for crop in crops)
        right = max(crop.left + crop.width for crop in crops)
        self.seen = (slice(top, bottom), slice(left, right))
        self.hits = self.misses = self.false = 0

    def add(self, verdict: Verdict, truth: Bool[np.ndarray, "h w"] | None) -> None:
        """Count one photo; one whose defect nobody outlined does not count."""
        if truth is None:
            return
        self.original.add(verdict.heatmap, truth)
        seen = self.seen
        uncrop = verdict.letterbox.apply_to_mask(truth)
        self.at_input.add(verdict.input_map[seen], uncrop[seen])
        self.hits += int((verdict.mask & truth).sum())
        self.false += int((verdict.mask & ~truth).sum())
        self.misses += int((~verdict.mask & truth).sum())

    @property
    def seg_f1(self) -> float | None:
        if self.hits + self.misses == 0:
            return None
        return 2 * self.hits / (2 * self.hits + self.false + self.misses)


def _figures(pixels: PixelStatistics) -> PixelFigures:
    return PixelFigures(
        pixel_auroc=pixels.pixel_auroc,
        aupro_30=pixels.aupro(0.30),
        aupro_05=pixels.aupro(0.05),
        aupimo=pixels.aupimo(),
        pixel_ap=pixels.pixel_ap,
        pixel_f1_max=pixels.pixel_f1_max,
    )


def _share_called(judged: Sequence[Judged], label: int) -> float | None:
    calls = [one.is_anomalous for one in judged if one.label == label and one.is_anomalous is not None]
    return sum(calls) / len(calls) if calls else None


def _curve(points: tuple[Float[np.ndarray, "_p"], ...] | None) -> Curve | None:
    if points is None:
        return None
    x, y = points[0], points[1]
    return tuple(map(float, x)), tuple(map(float, y))


def _judged(photo: Sample, verdict: Verdict, truth: Bool[np.ndarray, "h w"] | None) -> Judged:
    return Judged(
        path=photo.path,
        defect=photo.defect,
        label=int(photo.label or 0),
        score=verdict.score,
        p_value=verdict.p_value,
        is_anomalous=verdict.is_anomalous,
        milliseconds=verdict.milliseconds,
        pictures=_pictures(verdict, truth),
    )


def _pictures(verdict: Verdict, truth: Bool[np.ndarray, "h w"] | None) -> tuple[bytes, ...]:
    height, width = verdict.image.shape[:2]
    scale = min(1.0, PICTURE_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = np.asarray(Image.fromarray(verdict.image).resize(size, Image.Resampling.BOX))
    heatmap = np.asarray(Image.fromarray(verdict.heatmap).resize(size, Image.Resampling.BILINEAR))
    marked = outline(small, _small_mask(verdict.mask, size))
    if truth is not None:
        marked = outline(marked, _small_mask(truth, size), TRUTH_COLOR)
    return tuple(_jpeg(picture) for picture in (small, color(small, heatmap, verdict.heat_range), marked))


def _small_mask(mask: Bool[np.ndarray, "h w"], size: tuple[int, int]) -> Bool[np.ndarray, "_H _W"]:
    """Shrink a mask so that no defect, however small, vanishes from the picture."""
    share = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BOX)
    return np.asarray(share) > 0


def _jpeg(picture: np.ndarray) -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, "JPEG", quality=88)
    return encoded.getvalue()
