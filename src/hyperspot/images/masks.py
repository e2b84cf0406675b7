"""Connected components and erosion of masks, exact, in NumPy.

SciPy has both. Prediction with an exported file does without it: it is as large as an inference engine and takes longer
to import.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int


class Runs(NamedTuple):
    """The set pixels of a mask as runs: row, first column, column after the last, and connected component.

    Runs are in reading order; components are numbered from 0 in the order of their first pixels.
    """

    rows: Int[np.ndarray, "_runs"]
    starts: Int[np.ndarray, "_runs"]
    stops: Int[np.ndarray, "_runs"]
    parts: Int[np.ndarray, "_runs"]


def connected_runs(mask: Bool[np.ndarray, "h w"]) -> Runs:
    """Return the runs of a mask and the 8-connected component of each."""
    # Components are usually small: the work is limited to their bounding box.
    top, bottom = _extent(mask, axis=0)
    left, right = _extent(mask[top:bottom], axis=1)
    bordered = np.zeros((bottom - top, right - left + 2), dtype=bool)
    bordered[:, 1:-1] = mask[top:bottom, left:right]
    rows, columns = np.nonzero(bordered[:, 1:] != bordered[:, :-1])
    rows, starts, stops = top + rows[::2], left + columns[::2], left + columns[1::2]
    return Runs(rows, starts, stops, _join(len(rows), *_touching(rows, starts, stops, mask.shape[1] + 1)))


def erode(mask: Bool[np.ndarray, "h w"], reach: int) -> Bool[np.ndarray, "h w"]:
    """Return the pixels with nothing unset within `reach` rows and columns; beyond the border all counts as set."""
    inner = mask.copy()
    for along in (inner, inner.T):
        seen = 0
        while seen < reach:
            # Shifting by the reach so far doubles it without a gap.
            step = min(reach - seen, max(seen, 1))
            before = along.copy(order="K")
            along[step:] &= before[:-step]
            along[:-step] &= before[step:]
            seen += step
    return inner


def _extent(mask: Bool[np.ndarray, "h w"], axis: int) -> tuple[int, int]:
    """Return the first row (axis 0) or column (axis 1) with a set pixel and the one after the last; 0, 0 without."""
    places = np.flatnonzero(mask.any(axis=1 - axis))
    return (int(places[0]), int(places[-1]) + 1) if places.size else (0, 0)


def _touching(
    rows: Int[np.ndarray, "runs"], starts: Int[np.ndarray, "runs"], stops: Int[np.ndarray, "runs"], stride: int
) -> tuple[Int[np.ndarray, "_pairs"], Int[np.ndarray, "_pairs"]]:
    """Return all pairs of a run and one in the row above that touches it at a side or a corner."""
    above = (rows - 1) * stride
    first = np.searchsorted(rows * stride + stops, above + starts, side="left")
    after = np.searchsorted(rows * stride + starts, above + stops, side="right")
    counts = after - first
    lower = np.repeat(np.arange(len(rows)), counts)
    within = np.arange(len(lower)) - np.repeat(np.cumsum(counts) - counts, counts)
    return lower, first[lower] + within


def _join(count: int, one: Int[np.ndarray, "pairs"], other: Int[np.ndarray, "pairs"]) -> Int[np.ndarray, "_count"]:
    """Return the component of each of `count` nodes connected by the pairs."""
    roots = np.arange(count)
    while True:
        high, low = np.maximum(roots[one], roots[other]), np.minimum(roots[one], roots[other])
        apart = high != low
        if not apart.any():
            return np.unique(roots, return_inverse=True)[1]
        np.minimum.at(roots, high[apart], low[apart])
        while not np.array_equal(nearer := roots[roots], roots):
            roots = nearer
