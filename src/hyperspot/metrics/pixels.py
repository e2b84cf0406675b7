"""Metrics over all pixels of a test set, exact, from maps that are seen one at a time.

A pixel costs 4 bytes where it is normal and 8 where it is defective; while the metrics are computed about 50 bytes for
each defective pixel come on top. Of that only a fixed amount is held in memory, however many images there are; the rest
lies in temporary files (see `spill`), which changes no figure. Sorting needs a block of normal pixels besides.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt64

from hyperspot.metrics import ranking
from hyperspot.metrics.pimo import LOWER, SharedRate, covered
from hyperspot.metrics.ranking import Rates, Steps
from hyperspot.metrics.regions import label_regions
from hyperspot.utils.out_of_core import SpooledArray, pieces, zeros

BLOCK = 2**24
"""Normal pixels sorted at a time: 64 MB, twice while one is followed by the next."""


class PixelStatistics:
    """Collects maps and masks; every metric is then a property or a call, and more maps may be added.

    Normal pixels are those outside all masks, in good and defective images alike. Every metric is none where
    no pixel is defective or none is normal.
    """

    def __init__(self) -> None:
        self._good = SpooledArray(np.float32)
        self._around = SpooledArray(np.float32)
        self._keys = SpooledArray(np.uint64)
        self._areas: list[Int64[np.ndarray, "_regions"]] = []
        self._regions = 0
        self._cached: _Ranked | None = None

    def add(self, heatmap: Float32[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"]) -> None:
        """Count one image: higher values of the map are more anomalous, the mask holds for defective pixels.

        Raises ValueError where the map is not finite or not as large as the mask, OSError where the disk is full.
        """
        if heatmap.shape != mask.shape:
            raise ValueError(f"a map of {heatmap.shape} pixels cannot be judged by a mask of {mask.shape}")
        if not np.isfinite(heatmap).all():
            raise ValueError("the map holds values that are not finite")
        self._cached = None
        region, areas = label_regions(mask)
        if not len(areas):
            self._good.put(heatmap.ravel())
            return
        self._around.put(heatmap[~mask])
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
        """The largest F1 over all thresholds, in 0..1: an upper bound, chosen on the masks themselves."""
        found = self._ranked.steps
        return None if found is None else ranking.step_f1_max(found)

    def aupro(self, limit: float = 0.30) -> float | None:
        """Return the area under the per-region overlap up to a false-positive rate, over that rate: in 0..1.

        The definition of the evaluation of MVTec AD (Bergmann et al., IJCV 2021): 8-connected regions that
        weigh the same, all normal pixels of all images, interpolation at the limit. A map that says nothing
        gets limit / 2.

        Raises ValueError where the limit is not in (0, 1].
        """
        if not 0 < limit <= 1:
            raise ValueError(f"the limit of the false-positive rate lies in (0, 1], not at {limit}")
        found = self._ranked.steps
        return None if found is None else ranking.area(found, self._ranked.overlap, limit)

    def aupimo(self) -> float | None:
        """Return the mean over the defective images of `aupimo_per_image`, in 0..1; none where that is none."""
        scores = self.aupimo_per_image()
        return None if scores is None else float(scores.mean())

    def aupimo_per_image(self) -> Float64[np.ndarray, "_defective"] | None:
        """Return the AUPIMO of each defective image (see `pimo`), in the order they were added, in 0..1.

        None also where the good images hold too few pixels for a single one to be at the lower bound of the
        false-positive rate: 100 000.
        """
        if not self._areas or self._good.total * LOWER < 1:
            return None
        return self._ranked.pimo.copy()

    def roc_curve(self, points: int = 512) -> Rates | None:
        """Return false- and true-positive rates of the pixels for a plot: at most so many points, at least 8."""
        found = self._ranked.steps
        return None if found is None else ranking.curve(found, found.shares, points)

    def pro_curve(self, points: int = 512) -> Rates | None:
        """Return false-positive rates and mean per-region overlap for a plot; `points` as in `roc_curve`."""
        found = self._ranked.steps
        return None if found is None else ranking.curve(found, self._ranked.overlap, points)

    @property
    def _ranked(self) -> "_Ranked":
        if self._cached is None:
            self._cached = _Ranked(self._good, self._around, self._keys, self._areas)
        return self._cached


@dataclass(frozen=True, eq=False)
class _Ranked:
    """All pixels in the order of their scores, and what each distinct score of a defective pixel brings."""

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
        """Mean over regions of the share of the region that has each distinct score, descending."""
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


def _sorted_blocks(*shelves: SpooledArray) -> Iterator[Float32[np.ndarray, "_block"]]:
    """Yield all values in sorted blocks of at most `BLOCK`, so that no copy of all of them is ever held."""
    for shelf in shelves:
        for block in shelf.blocks(BLOCK):
            block.sort()
            yield block


def _keys(scores: Float32[np.ndarray, " n"], region: Int64[np.ndarray, " n"]) -> UInt64[np.ndarray, " n"]:
    """Pack scores and regions into whole numbers in the order of the scores.

    Plain numbers sort many times faster than pairs or indices. The bits of a float order like its value once
    the sign bit is flipped, for negative values with all other bits. The two zeros differ as keys, but lie
    side by side, and the scores unpacked from them are equal.
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


Maps = Sequence[Float32[np.ndarray, "_h _w"]]
Masks = Sequence[Bool[np.ndarray, "_h _w"]]


def aupro(maps: Maps, masks: Masks, limit: float = 0.30) -> float | None:
    """Return the area under the per-region overlap of maps and masks (see `PixelStatistics.aupro`)."""
    return _collect(maps, masks).aupro(limit)


def pro_curve(maps: Maps, masks: Masks, points: int = 512) -> Rates | None:
    """Return false-positive rates and mean per-region overlap (see `PixelStatistics.pro_curve`)."""
    return _collect(maps, masks).pro_curve(points)


def aupimo(maps: Maps, masks: Masks) -> float | None:
    """Return the mean AUPIMO of the defective images (see `PixelStatistics.aupimo_per_image`)."""
    return _collect(maps, masks).aupimo()


def seg_f1(predicted: Masks, masks: Masks) -> float | None:
    """Return the F1 of predicted masks over the pixels of all images, in 0..1; none where none is defective.

    The figure of MVTec AD 2 (arXiv 2503.21622) for one product.

    Raises ValueError where a predicted mask is not as large as the true one.
    """
    hits = called = defective = 0
    for found, truth in zip(predicted, masks, strict=True):
        if found.shape != truth.shape:
            raise ValueError(f"a mask of {found.shape} pixels cannot be judged by one of {truth.shape}")
        hits += int(np.count_nonzero(found & truth))
        called += int(np.count_nonzero(found))
        defective += int(np.count_nonzero(truth))
    return 2 * hits / (called + defective) if defective else None


def _collect(maps: Maps, masks: Masks) -> PixelStatistics:
    collected = PixelStatistics()
    for heatmap, mask in zip(maps, masks, strict=True):
        collected.add(heatmap, mask)
    return collected
