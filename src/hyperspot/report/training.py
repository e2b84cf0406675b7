"""The report of a training: one self-contained HTML file about the training images and what they promise."""

import base64
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from markupsafe import Markup

from hyperspot.decision.calibration import Calibration
from hyperspot.decision.odd_images import FAR, robust_z
from hyperspot.detector.detector import Detector
from hyperspot.detector.power import SHOWN, PowerEstimate, SyntheticResult
from hyperspot.images.reading import ChannelOrder, ImageInput
from hyperspot.images.synthetic_defects import SIZES
from hyperspot.report import PICTURES, environment, write_page
from hyperspot.report.charts import score_histogram
from hyperspot.report.trade_off import percent
from hyperspot.results.pictures import report_pictures

LISTED = 12
"""Images shown at most: the detector keeps the anomaly maps of the highest scores."""


@dataclass(frozen=True)
class TrainingImage:
    """A good image with a high held-out score.

    Attributes:
        index: Of the image among those given.
        name: Of the image.
        score: By a model that was not trained on it.
        z: Robust standard deviations above the median score.
        sets_threshold: Whether it calibrates and its score is the threshold or lies above it.
        pictures: The image, its heatmap and the outlines of its mask, as JPEG; empty if they were not asked for.

    """

    index: int
    name: str
    score: float
    z: float
    sets_threshold: bool
    pictures: tuple[bytes, ...] = field(default=(), repr=False)

    @property
    def is_odd(self) -> bool:
        """Whether the score is far from those of the other images."""
        return self.z > FAR


@dataclass(frozen=True)
class TrainingReport:
    """What a training tells about its images.

    Attributes:
        name: The product.
        images: Number of good images.
        calibration: The held-out scores, and the promise.
        scores: Held-out scores of all images.
        listed: Images to look at, the highest score first: those that set the threshold, and odd ones.
        power: Estimated detection rate; None if it was not asked for.
        groups: Images by group; empty without groups.
        problems: Problems of the data, one sentence each.
        made_by: Command, settings, training record and versions.

    """

    name: str
    images: int
    calibration: Calibration
    scores: tuple[float, ...]
    listed: tuple[TrainingImage, ...]
    power: PowerEstimate | None
    groups: dict[str, int]
    problems: tuple[str, ...]
    made_by: dict[str, Any]


def images_to_check(detector: Detector, names: Sequence[str]) -> list[TrainingImage]:
    """Return the good images that set the threshold, and odd ones, the highest held-out score first, without pictures.

    Args:
        detector: Fitted, not loaded: a model file does not hold the held-out scores of single images.
        names: Of all images it was given, in order.

    Examples:
        >>> import numpy as np
        >>> from hyperspot import Detector
        >>> good = list(np.random.default_rng(0).integers(100, 140, (12, 64, 64, 3), dtype=np.uint8))
        >>> good[7][20:40, 20:40] = 255
        >>> detector = Detector.fit(good, short_side=64, false_alarm_rate=0.2)
        >>> images_to_check(detector, [f"{number}.png" for number in range(12)])[0].name
        '7.png'

    """
    threshold = detector.decision_rule.calibration.threshold
    held_out = detector.held_out
    found = [
        TrainingImage(
            one.index,
            names[one.index],
            one.score,
            float(z),
            one.calibrates and threshold is not None and one.score >= threshold,
        )
        for one, z in zip(held_out, robust_z([one.score for one in held_out]), strict=True)
    ]
    return sorted((one for one in found if one.sets_threshold or one.is_odd), key=lambda one: -one.score)[:LISTED]


def training_report(
    detector: Detector,
    images: Sequence[ImageInput],
    names: Sequence[str],
    *,
    name: str,
    power: PowerEstimate | None = None,
    groups: Sequence[str] | None = None,
    problems: Sequence[str] = (),
    command: str = "",
    channel_order: ChannelOrder = "RGB",
) -> TrainingReport:
    """Collect the report of a training.

    Args:
        detector: Fitted, not loaded.
        images: All good images it was given, in order.
        names: Of the images.
        name: Of the product.
        power: As `Detector.estimate_power` returns it.
        groups: The group of each image.
        problems: Problems of the data, one sentence each.
        command: The command line.
        channel_order: Of arrays and tensors.

    Raises:
        ImageError: If an image cannot be read again.

    """
    maps = {one.index: one.input_map for one in detector.held_out}
    listed = []
    for one in images_to_check(detector, names):
        input_map = maps[one.index]
        if input_map is None:
            raise ValueError(f"the anomaly map of the held-out image {one.name} was not kept")
        prepared = detector.preprocess(images[one.index], channel_order=channel_order)
        verdict = detector.decision_rule.decide(prepared, input_map, one.score)
        listed.append(replace(one, pictures=report_pictures(verdict, None)))
    return TrainingReport(
        name=name,
        images=len(images),
        calibration=detector.decision_rule.calibration,
        scores=tuple(one.score for one in detector.held_out),
        listed=tuple(listed),
        power=power,
        groups=dict(Counter(groups or ())),
        problems=tuple(problems),
        made_by={"command": command, **detector.describe()},
    )


def write_training_report(report: TrainingReport, path: Path | str) -> Path:
    """Write the report as one self-contained HTML file, atomically, and return its path.

    Raises:
        DataError: If the file cannot be written.

    """
    return write_page(render(report), Path(path))


def render(report: TrainingReport) -> str:
    """Return the report as HTML text."""
    histogram = None
    if report.scores:
        histogram = score_histogram([("good", "good", report.scores)], report.calibration.threshold)
    return environment.get_template("training.html.j2").render(
        report=report,
        headline=_headline(report),
        far=FAR,
        histogram=None if histogram is None else Markup(histogram),  # noqa: S704 - drawn here, names are escaped
        listed=[
            {
                "name": one.name,
                "score": f"{one.score:.4g}",
                "z": f"{one.z:+.1f}",
                "tags": [
                    text for text, holds in (("sets the threshold", one.sets_threshold), ("odd", one.is_odd)) if holds
                ],
                "pictures": _urls(one.pictures, one.name),
            }
            for one in report.listed
        ],
        power=None if report.power is None else _power(report.power),
        made_by_json=json.dumps(report.made_by, indent=2, ensure_ascii=False),
    )


def _headline(report: TrainingReport) -> list[tuple[str, str, str]]:
    """Return title, value and caption of the first figures."""
    calibration = report.calibration
    cards = []
    if calibration.threshold is None:
        cards.append(("Promised false-alarm rate", "–", "no calibration, so that nothing is decided"))
    else:
        promised = percent(calibration.false_alarm_rate)
        cards.append(("Promised false-alarm rate", promised, calibration.steadiness()))
        kind = f"image score; the calibration is {calibration.kind}"
        cards.append(("Threshold", f"{calibration.threshold:.4g}", kind))
    if report.power is not None:
        rate = percent(report.power.detection_rate)
        caption = f"of {len(report.power.results)} synthetic defects; an estimate, which ranks settings of one product"
        cards.append(("Estimated detection rate", rate, caption))
    return cards


def _power(power: PowerEstimate) -> dict[str, Any]:
    sizes = list(power.by_size())
    rows = [(kind, [_count(row.get(size)) for size in sizes]) for kind, row in power.table().items()]
    rows.append(("all", [_count(power.by_size()[size]) for size in sizes]))
    return {
        "sizes": [f"{size} ({100 * SIZES[size]:.0f} %)" for size in sizes],
        "rows": rows,
        "pictures": [
            ("The smallest defects found", [_synthetic(result) for result in power.smallest_found[:SHOWN]]),
            ("The largest defects missed", [_synthetic(result) for result in power.largest_missed[:SHOWN]]),
        ],
    }


def _count(counts: tuple[int, int] | None) -> str:
    return "–" if counts is None else f"{counts[0]} of {counts[1]}"


def _synthetic(result: SyntheticResult) -> dict[str, Any]:
    name = f"{result.kind}, {result.size}"
    return {"name": name, "area": f"{100 * result.area:.2g} %", "score": f"{result.score:.4g}",
            "pictures": _urls(result.pictures, f"synthetic defect: {name}")}  # fmt: skip


def _urls(pictures: Sequence[bytes], name: str) -> list[tuple[str, str]]:
    return [
        (f"{content} {name}", "data:image/jpeg;base64," + base64.b64encode(picture).decode())
        for content, picture in zip(PICTURES, pictures, strict=True)
    ]
