"""Connected components and erosion of masks, exact, in NumPy.

SciPy has both. Prediction with an exported file does without it: it is as large as an inference engine and takes longer
to import.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Int32

BLOCK = 2**20
"""Pixels handled at a time: index arrays of a whole image would take several times its memory."""


class Runs(NamedTuple):
    """The set pixels of a mask as runs: row, first column, column after the last, and connected component.

    Runs are in reading order; components are numbered from 0 in the order of their first pixels.
    """

    rows: Int32[np.ndarray, "_runs"]
    starts: Int32[np.ndarray, "_runs"]
    stops: Int32[np.ndarray, "_runs"]
    parts: Int32[np.ndarray, "_runs"]


def connected_runs(mask: Bool[np.ndarray, "h w"]) -> Runs:
    """Return the runs of a mask and the 8-connected component of each."""
    # Components are usually small: the work is limited to their bounding box.
    top, bottom = _extent(mask, axis=0)
    left, right = _extent(mask[top:bottom], axis=1)
    found = [np.zeros((3, 0), np.int32)]
    for rows in blocks(mask[:, left:right], top, bottom):
        bordered = np.zeros((rows.stop - rows.start, right - left + 2), dtype=bool)
        bordered[:, 1:-1] = mask[rows, left:right]
        row, column = np.nonzero(bordered[:, 1:] != bordered[:, :-1])
        found.append(np.stack([rows.start + row[::2], left + column[::2], left + column[1::2]]).astype(np.int32))
    rows, starts, stops = np.concatenate(found, axis=1)
    return Runs(rows, starts, stops, _join(len(rows), *_touching(rows, starts, stops, mask.shape[1] + 1)))


def blocks(values: np.ndarray, top: int = 0, bottom: int | None = None) -> Iterator[slice]:
    """Yield the rows of an image in blocks of about `BLOCK` pixels.

    Examples:
        >>> list(blocks(np.zeros((5000, 500))))
        [slice(0, 2097, None), slice(2097, 4194, None), slice(4194, 5000, None)]

    """
    bottom = len(values) if bottom is None else bottom
    step = max(1, BLOCK // max(1, values.shape[1]))
    for start in range(top, bottom, step):
        yield slice(start, min(start + step, bottom))


def maxima(values: Float[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"], runs: Runs) -> Float[np.ndarray, "_parts"]:
    """Return the largest value in each component of a mask, given its runs."""
    largest = np.full(int(runs.parts.max()) + 1 if len(runs.parts) else 0, -np.inf, dtype=values.dtype)
    for rows, mine in run_blocks(mask, runs):
        lengths = runs.stops[mine] - runs.starts[mine]
        of_runs = np.maximum.reduceat(values[rows][mask[rows]], np.cumsum(lengths) - lengths)
        np.maximum.at(largest, runs.parts[mine], of_runs)
    return largest


def run_blocks(mask: Bool[np.ndarray, "h w"], runs: Runs) -> Iterator[tuple[slice, slice]]:
    """Yield the rows of a mask in blocks, and the runs in them; blocks without a run are left out."""
    for rows in blocks(mask):
        first, after = (int(place) for place in np.searchsorted(runs.rows, [rows.start, rows.stop]))
        if first < after:
            yield rows, slice(first, after)


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
    rows: Int32[np.ndarray, "runs"], starts: Int32[np.ndarray, "runs"], stops: Int32[np.ndarray, "runs"], stride: int
) -> tuple[Int[np.ndarray, "_pairs"], Int[np.ndarray, "_pairs"]]:
    """Return all pairs of a run and one in the row above that touches it at a side or a corner."""
    above = (rows - 1) * stride
    first = np.searchsorted(rows * stride + stops, above + starts, side="left")
    after = np.searchsorted(rows * stride + starts, above + stops, side="right")
    counts = after - first
    lower = np.repeat(np.arange(len(rows), dtype=np.int32), counts)
    within = np.arange(len(lower), dtype=np.int32) - np.repeat(np.cumsum(counts) - counts, counts).astype(np.int32)
    return lower, first.astype(np.int32)[lower] + within


def _join(count: int, one: Int[np.ndarray, "pairs"], other: Int[np.ndarray, "pairs"]) -> Int[np.ndarray, "_count"]:
    """Return the component of each of `count` nodes connected by the pairs."""
    roots = np.arange(count, dtype=np.int32)
    while True:
        high, low = np.maximum(roots[one], roots[other]), np.minimum(roots[one], roots[other])
        apart = high != low
        if not apart.any():
            # A root is the first run of its component, so that counting roots numbers the components in order.
            return (np.cumsum(roots == np.arange(count), dtype=np.int32) - 1)[roots]
        np.minimum.at(roots, high[apart], low[apart])
        while not np.array_equal(nearer := roots[roots], roots):
            roots = nearer
