"""Exact metrics over all pixels of a test set, from heatmaps added one at a time, out of core.

A normal pixel takes 4 bytes and a defective one 8, plus about 50 bytes per defective pixel while metrics are computed.
Memory use is bounded, whatever the number of images; the rest is in temporary files (see `utils.out_of_core`), with
identical results.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt64

from hyperspot.metrics import ranking
from hyperspot.metrics.pimo import LOWER, SharedRate, covered
from hyperspot.metrics.ranking import Rates, Steps
from hyperspot.metrics.regions import label_regions
from hyperspot.metrics.registry import Metric, register_metric
from hyperspot.utils.out_of_core import SpooledArray, pieces, zeros

BLOCK = 2**24
"""Normal pixels sorted at a time: 64 MB, and twice that while one block replaces the last."""


class PixelStatistics:
    """Accumulates heatmaps and ground-truth masks by `update`, and computes pixel metrics from them at any time.

    Normal pixels are those outside all masks, in good and in defective images. Every metric is None without a
    defective pixel or without a normal one.

    Examples:
        >>> import numpy as np
        >>> statistics = PixelStatistics()
        >>> heatmap = np.array([[0.1, 0.2], [0.3, 0.9]], dtype=np.float32)
        >>> statistics.update(heatmap, heatmap > 0.25)
        >>> statistics.update(heatmap / 2, np.zeros((2, 2), dtype=bool))
        >>> round(statistics.pixel_auroc, 3)
        0.917
        >>> round(statistics.aupro(0.30), 3)
        0.722

    """

    def __init__(self) -> None:
        self._good = SpooledArray(np.float32)
        self._around = SpooledArray(np.float32)
        self._keys = SpooledArray(np.uint64)
        self._areas: list[Int64[np.ndarray, "_regions"]] = []
        self._regions = 0
        self._cached: _Ranked | None = None

    def update(
        self,
        heatmap: Float32[np.ndarray, "_h _w"],
        mask: Bool[np.ndarray, "_h _w"],
        within: Bool[np.ndarray, "_h _w"] | None = None,
    ) -> None:
        """Add one image.

        Args:
            heatmap: Anomaly score of each pixel; higher is more anomalous.
            mask: Defective pixels.
            within: Pixels that count; default: all.

        Raises:
            ValueError: If a score is not finite, or the heatmap and the mask differ in shape.
            OSError: If the disk is full.

        """
        if heatmap.shape != mask.shape:
            raise ValueError(f"the heatmap has the shape {heatmap.shape} and the mask {mask.shape}")
        if not np.isfinite(heatmap).all():
            raise ValueError("the heatmap has scores that are not finite")
        self._cached = None
        normal = ~mask
        if within is not None:
            mask, normal = mask & within, normal & within
        region, areas = label_regions(mask)
        if not len(areas):
            self._good.put(heatmap.ravel() if within is None else heatmap[within])
            return
        self._around.put(heatmap[normal])
        self._keys.put(_keys(heatmap[mask], region + self._regions))
        self._areas.append(areas)
        self._regions += len(areas)

    @property
    def pixel_auroc(self) -> float | None:
        """Area under the ROC curve over all pixels, in 0..1; a tie counts one half."""
        found = self._ranked.steps
        return None if found is None else ranking.area(found, found.shares)

    @property
    def pixel_ap(self) -> float | None:
        """Average precision over all pixels, in 0..1."""
        found = self._ranked.steps
        return None if found is None else ranking.step_ap(found)

    @property
    def pixel_f1_max(self) -> float | None:
        """The highest F1 over all thresholds, in 0..1: an upper bound, because the masks choose the threshold."""
        found = self._ranked.steps
        return None if found is None else ranking.step_f1_max(found)

    def aupro(self, limit: float = 0.30) -> float | None:
        """Return the normalized area under the per-region overlap curve up to a false-positive rate, in 0..1.

        As in the evaluation of MVTec AD (Bergmann et al., IJCV 2021): 8-connected regions of equal weight, the
        normal pixels of all images, linear interpolation at the limit. A constant heatmap gets limit / 2.

        Raises:
            ValueError: If the limit is not in (0, 1].

        """
        if not 0 < limit <= 1:
            raise ValueError(f"the false-positive rate limit must lie in (0, 1], and is {limit}")
        found = self._ranked.steps
        return None if found is None else ranking.area(found, self._ranked.overlap, limit)

    def aupimo(self) -> float | None:
        """Return the mean of `aupimo_per_image`, in 0..1, or None if that is None.

        Examples:
            >>> import numpy as np
            >>> statistics = PixelStatistics()
            >>> statistics.update(np.zeros((400, 300), dtype=np.float32), np.zeros((400, 300), dtype=bool))
            >>> heatmap = np.array([[2.0, 1.0, -1.0]], dtype=np.float32)
            >>> statistics.update(heatmap, np.array([[True, True, False]]))
            >>> statistics.aupimo()
            1.0

        """
        scores = self.aupimo_per_image()
        return None if scores is None else float(scores.mean())

    def aupimo_per_image(self) -> Float64[np.ndarray, "_defective"] | None:
        """Return the AUPIMO of each defective image (see `metrics.pimo`), in the order of the updates, in 0..1.

        Also None if the good images have fewer than 100 000 pixels: then one false-positive pixel exceeds the lower
        bound of the false-positive rate.
        """
        if not self._areas or self._good.total * LOWER < 1:
            return None
        return self._ranked.pimo.copy()

    def roc_curve(self, points: int = 512) -> Rates | None:
        """Return false-positive and true-positive rates for a plot, thinned to at most `points` (8 or more)."""
        found = self._ranked.steps
        return None if found is None else ranking.curve(found, found.shares, points)

    def pro_curve(self, points: int = 512) -> Rates | None:
        """Return false-positive rates and mean per-region overlaps for a plot; `points` as in `roc_curve`."""
        found = self._ranked.steps
        return None if found is None else ranking.curve(found, self._ranked.overlap, points)

    @property
    def _ranked(self) -> "_Ranked":
        if self._cached is None:
            self._cached = _Ranked(self._good, self._around, self._keys, self._areas)
        return self._cached


@dataclass(frozen=True, eq=False)
class _Ranked:
    """All pixels, sorted by score, and the steps of the curves at the distinct scores of defective pixels."""

    good: SpooledArray
    around: SpooledArray
    keys: SpooledArray
    areas: list[Int64[np.ndarray, "_regions"]]

    @cached_property
    def steps(self) -> Steps | None:
        if not self.keys:
            return None
        return ranking.steps(self.scores, _sorted_blocks(self.good, self.around))

    @cached_property
    def ordered(self) -> UInt64[np.ndarray, "_pixels"]:
        ordered = zeros(self.keys.total, np.uint64)
        filled = 0
        for keys in self.keys:
            ordered[filled : filled + len(keys)] = keys
            filled += len(keys)
        ordered.sort()
        return ordered

    @cached_property
    def scores(self) -> Float32[np.ndarray, "_pixels"]:
        scores = zeros(len(self.ordered), np.float32)
        for piece in pieces(len(scores), ranking.PIECE):
            scores[piece] = _scores(self.ordered[piece])
        return scores

    @cached_property
    def overlap(self) -> Float64[np.ndarray, "_steps"]:
        """For each distinct score, descending: the share of each region with this score, averaged over regions."""
        assert self.steps is not None
        areas = np.concatenate(self.areas)
        shares = 1 / (areas * len(areas))
        overlap = zeros(len(self.steps.scores), np.float64)
        for piece, first, starts in ranking.runs(self.scores):
            weights = shares[_regions(self.ordered[piece])]
            overlap[first : first + len(starts)] += np.add.reduceat(weights, starts)
        return overlap[::-1]

    @cached_property
    def pimo(self) -> Float64[np.ndarray, "_defective"]:
        shared = SharedRate(self.good)
        means = []
        for keys in self.keys:
            scores = _scores(keys)
            means.append(covered(shared.above(scores), shared.reached(scores)).mean())
        return np.array(means)


def _sorted_blocks(*arrays: SpooledArray) -> Iterator[Float32[np.ndarray, "_block"]]:
    """Yield all values in sorted blocks of at most `BLOCK`, to avoid a copy of all of them."""
    for array in arrays:
        for block in array.blocks(BLOCK):
            block.sort()
            yield block


def _keys(scores: Float32[np.ndarray, " n"], region: Int64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """Pack scores and region numbers into integers that sort by score.

    Integers sort many times faster than pairs or indices. The bits of a float sort by value once the sign bit is
    flipped and, for negative values, all other bits too. The keys of the two zeros differ, but are adjacent and
    unpack to equal scores.
    """
    bits = scores.view(np.uint32)
    flipped = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return flipped.astype(np.uint64) << np.uint64(32) | region.astype(np.uint64)


def _scores(keys: UInt64[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
    flipped = (keys >> np.uint64(32)).astype(np.uint32)
    bits = np.where(flipped >> 31, flipped & np.uint32((1 << 31) - 1), ~flipped)
    return bits.view(np.float32)


def _regions(keys: UInt64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    return (keys & np.uint64((1 << 32) - 1)).astype(np.int64)


register_metric(
    Metric(
        name="pixel_auroc",
        title="Pixel AUROC",
        short_title="P-AUROC",
        unit="percent",
        description="Area under the ROC curve of all pixels",
        level="pixel",
        function=lambda pixels: pixels.pixel_auroc,
        at_input=True,
    )
)
register_metric(
    Metric(
        name="aupro_30",
        title="AUPRO, limit 0.30",
        short_title="AUPRO",
        unit="percent",
        description="Mean overlap with each defect region, over false-positive rates of pixels up to 30 %",
        level="pixel",
        function=lambda pixels: pixels.aupro(0.30),
        at_input=True,
    )
)
register_metric(
    Metric(
        name="aupro_05",
        title="AUPRO, limit 0.05",
        short_title="AUPRO-5",
        unit="percent",
        description="Mean overlap with each defect region, over false-positive rates of pixels up to 5 %",
        level="pixel",
        function=lambda pixels: pixels.aupro(0.05),
        at_input=True,
    )
)
register_metric(
    Metric(
        name="aupimo",
        title="AUPIMO",
        short_title="AUPIMO",
        unit="percent",
        description="Mean recall within each defective image, over false-positive rates on good images of 1e-5 to 1e-4",
        level="pixel",
        function=lambda pixels: pixels.aupimo(),
        at_input=True,
    )
)
register_metric(
    Metric(
        name="pixel_ap",
        title="Pixel average precision",
        short_title="P-AP",
        unit="percent",
        description="Average precision over all pixels",
        level="pixel",
        function=lambda pixels: pixels.pixel_ap,
        at_input=True,
    )
)
register_metric(
    Metric(
        name="pixel_f1_max",
        title="Pixel F1-max (oracle)",
        short_title="P-F1-max",
        unit="percent",
        description="Highest F1 over all pixel thresholds: an upper bound, as the test masks choose the threshold",
        level="pixel",
        function=lambda pixels: pixels.pixel_f1_max,
        at_input=True,
    )
)
