"""Estimates a detection rate without defects: synthetic defects on good images, predicted at the promised rate.

An estimate: it ranks settings of one product, and its value is not the detection rate of real defects.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from hyperspot.errors import CalibrationError, DataError
from hyperspot.images import read_image
from hyperspot.images.preprocessing import inspected_pixels
from hyperspot.images.reading import ChannelOrder, ImageInput
from hyperspot.images.synthetic_defects import KINDS, SIZES, draw_defect
from hyperspot.predictor import BATCH_SIZE, Predictor
from hyperspot.results.pictures import report_pictures
from hyperspot.utils.progress import SILENT, Progress

COUNT = 60
"""Synthetic images of an estimate: three of each kind and size."""
SHOWN = 6
"""Pictures of found and of missed defects, each."""


@dataclass(frozen=True)
class SyntheticResult:
    """The verdict on one image with a synthetic defect.

    Attributes:
        kind: What was drawn, one of `images.synthetic_defects.KINDS`.
        size: One of `images.synthetic_defects.SIZES`.
        area: Pixels of the defect, relative to the image, in 0..1.
        index: Which of the good images it was drawn on.
        score: Higher is more anomalous.
        found: Whether the image was called anomalous.
        pictures: The image, its heatmap, and the outlines of the mask and of the defect (green), as JPEG.

    """

    kind: str
    size: str
    area: float
    index: int
    score: float
    found: bool
    pictures: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True)
class PowerEstimate:
    """An estimate of the detection rate from synthetic defects.

    Attributes:
        false_alarm_rate: The promised rate whose threshold was used.
        results: One per synthetic defect.

    Examples:
        >>> from hyperspot import PowerEstimate
        >>> from hyperspot.detector.power import SyntheticResult
        >>> results = [SyntheticResult("stain", size, 0.01, 0, 0.5, size == "large") for size in ("tiny", "large")]
        >>> estimate = PowerEstimate(0.01, tuple(results))
        >>> estimate.detection_rate, estimate.by_size()
        (0.5, {'tiny': (0, 1), 'large': (1, 1)})
        >>> estimate.by_kind(), estimate.table()["stain"] == estimate.by_size()
        ({'stain': (1, 2)}, True)
        >>> estimate.to_dict()["by_kind"]
        {'stain': [1, 2]}

    """

    false_alarm_rate: float
    results: tuple[SyntheticResult, ...]

    @property
    def detection_rate(self) -> float:
        """Estimated share of defective images called anomalous, in 0..1."""
        return sum(result.found for result in self.results) / len(self.results)

    def by_kind(self) -> dict[str, tuple[int, int]]:
        """Return how many defects of each kind were found, and drawn."""
        return self._counts(KINDS, lambda result: result.kind)

    def by_size(self) -> dict[str, tuple[int, int]]:
        """Return how many defects of each size were found, and drawn."""
        return self._counts(SIZES, lambda result: result.size)

    def table(self) -> dict[str, dict[str, tuple[int, int]]]:
        """Return how many defects of each kind and size were found, and drawn."""
        parts = {kind: [result for result in self.results if result.kind == kind] for kind in KINDS}
        return {
            kind: PowerEstimate(self.false_alarm_rate, tuple(part)).by_size() for kind, part in parts.items() if part
        }

    @property
    def smallest_found(self) -> tuple[SyntheticResult, ...]:
        """The found defects, smallest area first."""
        return tuple(sorted((result for result in self.results if result.found), key=lambda result: result.area))

    @property
    def largest_missed(self) -> tuple[SyntheticResult, ...]:
        """The missed defects, largest area first."""
        return tuple(sorted((result for result in self.results if not result.found), key=lambda result: -result.area))

    def to_dict(self) -> dict[str, Any]:
        """Return the rates and counts as JSON values."""
        return {
            "detection_rate": self.detection_rate,
            "false_alarm_rate": self.false_alarm_rate,
            "images": len(self.results),
            "by_kind": {name: list(counts) for name, counts in self.by_kind().items()},
            "by_size": {name: list(counts) for name, counts in self.by_size().items()},
        }

    def _counts(self, names: Iterable[str], key: Callable[[SyntheticResult], str]) -> dict[str, tuple[int, int]]:
        found = {name: [result.found for result in self.results if key(result) == name] for name in names}
        return {name: (sum(some), len(some)) for name, some in found.items() if some}


def estimate_power(
    predictor: Predictor,
    images: Sequence[ImageInput],
    *,
    count: int = COUNT,
    seed: int = 0,
    channel_order: ChannelOrder = "RGB",
    progress: Progress = SILENT,
) -> PowerEstimate:
    """Draw synthetic defects of all kinds and sizes on good images, in the region of interest, and predict them.

    Args:
        predictor: With a calibration.
        images: Good images, best such that the model was not trained on: the rest of a training image scores lower
            than that of a new one. At most `count` of them are used, spread evenly over the list.
        count: Number of synthetic images; kinds and sizes take turns.
        seed: The same seed draws the same defects.
        channel_order: Of arrays and tensors.
        progress: Reports how many images are done.

    Raises:
        CalibrationError: If the predictor has no calibration.
        DataError: If there is no image, or `count` is below 1.
        ImageError: If an image cannot be read.

    """
    calibration = predictor.decision_rule.calibration
    if calibration.threshold is None:
        raise CalibrationError("this model has no calibration and decides nothing; recalibrate it with good images")
    if not len(images) or count < 1:
        raise DataError("no image was given to draw synthetic defects on; give at least one good image")
    cases = [(kind, size) for size in SIZES for kind in KINDS]
    # Seeded, so that no kind always meets the same images; without replacement, as far as there are enough.
    order = np.random.default_rng(seed).permutation(np.linspace(0, len(images) - 1, count).round().astype(int))
    drawn: deque[tuple[str, str, int, Bool[np.ndarray, "h w"]]] = deque()

    def defects() -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        for number, index in enumerate(order):
            kind, size = cases[number % len(cases)]
            image = read_image(images[index], channel_order=channel_order)
            within = inspected_pixels(image, predictor.decision_rule.inspection.area)
            changed, mask = draw_defect(image, kind, size, seed=seed + number, within=within)
            drawn.append((kind, size, int(index), mask))
            yield changed

    results = []
    verdicts = predictor.predict_many(_InBatches(defects(), count), batch_size=BATCH_SIZE)
    for verdict in progress.track(verdicts, "predicting synthetic defects", count):
        kind, size, index, mask = drawn.popleft()
        found = verdict.is_anomalous is True
        results.append(
            SyntheticResult(kind, size, float(mask.mean()), index, verdict.score, found, report_pictures(verdict, mask))
        )
    return PowerEstimate(calibration.false_alarm_rate, tuple(results))


class _InBatches:
    """An iterator of known length, which `predict_many` runs in full batches."""

    def __init__(self, items: Iterator[Any], length: int) -> None:
        self.items = items
        self.length = length

    def __iter__(self) -> Iterator[Any]:
        return self.items

    def __len__(self) -> int:
        return self.length
