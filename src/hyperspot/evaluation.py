"""Evaluation on labeled test images: every registered metric, curves, and small pictures for the report.

Thresholds come from good images alone; none is chosen on the test images. Metrics that need the best threshold of the
test set have `max` in their names. Images are processed one after the other and not kept.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from hyperspot import metrics
from hyperspot.data import Dataset, Sample, load_mask
from hyperspot.decision.advice import advise
from hyperspot.decision.calibration import Calibration
from hyperspot.decision.drift import Drift, detect_drift
from hyperspot.decision.operating_points import OperatingPoint, operating_points
from hyperspot.decision.planning import has_groups
from hyperspot.decision.rule import DecisionRule
from hyperspot.errors import DataError
from hyperspot.images import Crop
from hyperspot.metrics import Level, MaskCounts, PixelStatistics
from hyperspot.results.pictures import report_pictures
from hyperspot.results.verdict import Verdict
from hyperspot.utils.progress import Progress

Curve = tuple[tuple[float, ...], tuple[float, ...]]


@runtime_checkable
class Evaluable(Protocol):
    """The part of a predictor that evaluation uses (see `predictor.Predictor`)."""

    crops: tuple[Crop, ...]
    decision_rule: DecisionRule

    def predict_many(self, images: Iterable[Path], /) -> Iterator[Verdict]:
        """Yield the verdict on each image, in order."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return settings, training record and versions, as JSON values."""
        ...


@dataclass(frozen=True)
class ImageResult:
    """The verdict on one test image, with its label and small JPEG pictures.

    Attributes:
        path: The image file.
        defect: The defect type, or `good`.
        label: 0 is good, 1 is defective.
        score: Higher is more anomalous.
        p_value: As in `Verdict`.
        is_anomalous: As in `Verdict`.
        milliseconds: As in `Verdict`.
        pictures: The image, the heatmap over it, and the outlines of the predicted mask and of the true one (green).

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
class DefectResult:
    """Results on the test images of one defect type; `detected` is None without calibration.

    Examples:
        >>> DefectResult("crack", images=4, detected=3, mean_score=0.7).detection_rate
        0.75

    """

    defect: str
    images: int
    detected: int | None
    mean_score: float

    @property
    def detection_rate(self) -> float | None:
        """Share of the images called anomalous, in 0..1; None without calibration."""
        return None if self.detected is None else self.detected / self.images


@dataclass(frozen=True)
class Evaluation:
    """The results of one evaluation.

    Attributes:
        name: The product.
        metrics: Every registered metric by its JSON name, in the order of the registry; rates are in 0..1. None is
            undefined: a class or the masks are missing, or the detector is not calibrated.
        metrics_at_input: Pixel metrics at the input size, as published figures are.
        promised_false_alarm_rate: The rate that calibration promises; None without calibration.
        threshold: Image scores above it are anomalous; None without calibration.
        image_results: One per test image, in the order of the data set.
        image_roc: False-alarm rates and detection rates at all image thresholds; None if a class is missing.
        pixel_roc: False-positive and true-positive rates of pixels; None without masks.
        pro: False-positive rates of pixels and per-region overlaps; None without masks.
        heat_range: The scores drawn as cold and as hot in the pictures.
        calibration: Scores of good images, from which the operating points follow; None without calibration.
        problems: Problems of the data, one sentence each.
        made_by: Command, data, settings, training record and versions.
        seconds: Wall time.

    Examples:
        >>> from hyperspot import Evaluation, metrics
        >>> values = dict.fromkeys((metric.name for metric in metrics.registered()), 0.5)
        >>> evaluation = Evaluation(
        ...     name="screw",
        ...     metrics=values | {"detection_rate": 0.9},
        ...     metrics_at_input={"pixel_auroc": 0.98},
        ...     promised_false_alarm_rate=0.01,
        ...     threshold=0.31,
        ... )
        >>> evaluation.detection_rate, evaluation.metrics["aupimo"]
        (0.9, 0.5)
        >>> evaluation.to_dict()["at_input"]
        {'pixel_auroc': 0.98}

    """

    name: str
    metrics: dict[str, float | None]
    metrics_at_input: dict[str, float | None]
    promised_false_alarm_rate: float | None
    threshold: float | None
    image_results: tuple[ImageResult, ...] = field(default=(), repr=False)
    image_roc: Curve | None = field(default=None, repr=False)
    pixel_roc: Curve | None = field(default=None, repr=False)
    pro: Curve | None = field(default=None, repr=False)
    heat_range: tuple[float, float] | None = field(default=None, repr=False)
    calibration: Calibration | None = field(default=None, repr=False)
    problems: tuple[str, ...] = ()
    made_by: dict[str, Any] = field(default_factory=dict, repr=False)
    seconds: float = 0.0

    @property
    def detection_rate(self) -> float | None:
        """Share of defective images called anomalous, in 0..1."""
        return self.metrics["detection_rate"]

    @property
    def observed_false_alarm_rate(self) -> float | None:
        """Share of good images called anomalous, in 0..1."""
        return self.metrics["observed_false_alarm_rate"]

    @property
    def image_auroc(self) -> float | None:
        """Area under the ROC curve of the image scores, in 0..1."""
        return self.metrics["image_auroc"]

    @property
    def pixel_auroc(self) -> float | None:
        """Area under the ROC curve of all pixels, in 0..1."""
        return self.metrics["pixel_auroc"]

    @property
    def aupro_30(self) -> float | None:
        """Area under the per-region overlap up to a false-positive rate of 0.30, in 0..1."""
        return self.metrics["aupro_30"]

    @property
    def seg_f1(self) -> float | None:
        """F1 of the predicted masks over all pixels, in 0..1."""
        return self.metrics["seg_f1"]

    @property
    def defect_results(self) -> tuple[DefectResult, ...]:
        """Results by defect type, the lowest detection rate first."""
        by_type: dict[str, list[ImageResult]] = {}
        for result in self.image_results:
            if result.label == 1:
                by_type.setdefault(result.defect, []).append(result)
        results = [
            DefectResult(
                defect=defect,
                images=len(group),
                detected=None if self.threshold is None else sum(bool(one.is_anomalous) for one in group),
                mean_score=sum(one.score for one in group) / len(group),
            )
            for defect, group in by_type.items()
        ]
        return tuple(sorted(results, key=lambda one: (one.detection_rate or 0.0, one.defect)))

    @property
    def operating_points(self) -> tuple[OperatingPoint, ...]:
        """Results at the promised false-alarm rate and at 1, 2, 5 and 10 %, ascending.

        Without those that the calibration does not support; empty without calibration.
        """
        return () if self.calibration is None else operating_points(self.calibration, *self._scores_and_labels())

    @property
    def operating_point(self) -> OperatingPoint | None:
        """The results at the promised false-alarm rate; None without calibration."""
        return next(
            (one for one in self.operating_points if one.false_alarm_rate == self.promised_false_alarm_rate), None
        )

    @property
    def steadiness(self) -> str | None:
        """How steady the threshold is, see `Calibration.steadiness`; None without calibration."""
        return None if self.calibration is None else self.calibration.steadiness()

    @property
    def advice(self) -> tuple[str, ...]:
        """The next step if few defects are found in spite of a good ranking, or if good test images differ."""
        if self.calibration is None:
            return ()
        advice = advise(self.calibration, self.operating_points, self.image_auroc, *self._scores_and_labels())
        drift = self.drift
        if drift is None or not drift.is_significant:
            return advice
        return (*advice, f"The {drift.describe(f'last {drift.images} good test images')}.")

    @property
    def drift(self) -> Drift | None:
        """How the last 50 good test images compare with the calibration images.

        None with fewer than 20 of them, or if the model was trained with groups.
        """
        if self.calibration is None:
            return None
        scores, labels = self._scores_and_labels()
        return detect_drift(self.calibration, scores[labels == 0], passed=False, grouped=has_groups(self.made_by))

    def _scores_and_labels(self) -> tuple[np.ndarray, np.ndarray]:
        scores = np.array([result.score for result in self.image_results], dtype=np.float64)
        return scores, np.array([result.label for result in self.image_results], dtype=np.int64)

    def to_dict(self) -> dict[str, Any]:
        """Return metrics, thresholds and provenance as JSON values, the detection and false-alarm rates first."""
        values, drift = dict(self.metrics), self.drift
        return {
            "name": self.name,
            "detection_rate": values.pop("detection_rate"),
            "promised_false_alarm_rate": self.promised_false_alarm_rate,
            "observed_false_alarm_rate": values.pop("observed_false_alarm_rate"),
            **values,
            "at_input": dict(self.metrics_at_input),
            "threshold": self.threshold,
            "steadiness": self.steadiness,
            "operating_points": [point.to_dict() for point in self.operating_points],
            "advice": list(self.advice),
            "drift": None if drift is None else drift.p_value,
            "images": len(self.image_results),
            "seconds": round(self.seconds, 3),
            "problems": list(self.problems),
            "made_by": self.made_by,
        }


def evaluate(predictor: Evaluable, dataset: Dataset, *, progress: Progress, command: str = "") -> Evaluation:
    """Predict the test images of a data set and compute every registered metric.

    Args:
        predictor: Detector or exported detector.
        dataset: Labeled images, with masks or without.
        progress: Reports how many images are done.
        command: The command line, for the report.

    Raises:
        DataError: If the data set has no labeled test image.
        ImageError: If an image or a mask cannot be read.

    """
    started = time.perf_counter()
    samples = dataset.test
    if not samples:
        raise DataError(f"{dataset.root} has no labeled test image; add some to test/good and test/DEFECT")
    statistics = _Statistics(predictor.crops)
    results, empty = [], []
    verdicts = predictor.predict_many([sample.path for sample in samples])
    tracked = progress.track(samples, "predicting test images", len(samples))
    for sample, verdict in zip(tracked, verdicts, strict=True):
        truth = load_mask(sample, *verdict.mask.shape)
        if sample.label == 1 and truth is not None and not truth.any():
            # Otherwise its defective pixels would count as normal.
            empty.append(f"{sample.path} is defective and its mask is empty; pixel metrics exclude it")
            truth = None
        if truth is not None:
            statistics.update(verdict, truth)
        results.append(_image_result(sample, verdict, truth))
    scores = np.array([result.score for result in results], dtype=np.float64)
    labels = np.array([result.label for result in results])
    arguments: dict[Level, tuple[Any, ...]] = {"image": (scores, labels), "pixel": (statistics.original,)}
    calibration = predictor.decision_rule.calibration
    calibrated = calibration.threshold is not None
    if calibrated:
        arguments["decision"] = (np.array([bool(result.is_anomalous) for result in results]), labels)
        arguments["mask"] = (statistics.masks,)
    return Evaluation(
        name=dataset.name,
        metrics=metrics.compute(arguments),
        metrics_at_input=metrics.compute({"pixel": (statistics.at_input,)}, at_input=True),
        promised_false_alarm_rate=calibration.false_alarm_rate if calibrated else None,
        threshold=calibration.threshold,
        image_results=tuple(results),
        image_roc=_curve(metrics.roc_curve(scores, labels)),
        pixel_roc=_curve(statistics.original.roc_curve()),
        pro=_curve(statistics.original.pro_curve()),
        heat_range=predictor.decision_rule.heat_range,
        calibration=calibration if calibrated else None,
        problems=(*dataset.problems, *empty, *_missing(samples)),
        made_by={
            "command": command,
            "data": {"path": str(dataset.root), "layout": dataset.layout, "images": len(samples)},
            **predictor.describe(),
        },
        seconds=time.perf_counter() - started,
    )


class _Statistics:
    """Pixel statistics at the size of the images and at the input size, and counts of the predicted masks."""

    def __init__(self, crops: Sequence[Crop]) -> None:
        self.original = PixelStatistics()
        self.at_input = PixelStatistics()
        self.masks = MaskCounts()
        top, left = min(crop.top for crop in crops), min(crop.left for crop in crops)
        bottom = max(crop.top + crop.height for crop in crops)
        right = max(crop.left + crop.width for crop in crops)
        self._seen = (slice(top, bottom), slice(left, right))

    def update(self, verdict: Verdict, truth: Bool[np.ndarray, "h w"]) -> None:
        """Add one image."""
        self.original.update(verdict.heatmap, truth)
        self.at_input.update(verdict.input_map[self._seen], verdict.letterbox.apply_to_mask(truth)[self._seen])
        self.masks.update(verdict.mask, truth)


def _missing(samples: Sequence[Sample]) -> Iterator[str]:
    """Yield the problems of a test set that leave metrics undefined or incomplete."""
    unmasked = sum(sample.label == 1 and not sample.has_mask for sample in samples)
    if unmasked:
        yield f"{unmasked} defective images have no mask; pixel metrics exclude them"
    for label, missing, folder in ((0, "good", "test/good"), (1, "defective", "test/DEFECT")):
        if all(sample.label != label for sample in samples):
            yield f"there is no {missing} test image, so that AUROC is undefined; add some to {folder}"


def _curve(points: tuple[Float[np.ndarray, "_p"], ...] | None) -> Curve | None:
    if points is None:
        return None
    x, y = points
    return tuple(map(float, x)), tuple(map(float, y))


def _image_result(sample: Sample, verdict: Verdict, truth: Bool[np.ndarray, "h w"] | None) -> ImageResult:
    return ImageResult(
        path=sample.path,
        defect=sample.defect,
        label=int(sample.label or 0),
        score=verdict.score,
        p_value=verdict.p_value,
        is_anomalous=verdict.is_anomalous,
        milliseconds=verdict.milliseconds,
        pictures=report_pictures(verdict, truth),
    )
