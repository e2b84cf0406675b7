"""Resamples images, masks and heatmaps between the centers of pixels."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8
from PIL import Image

from hyperspot.hardware.native import resizing

BLOCK_ROWS = 64
"""Rows computed at a time: allocating a whole intermediate map takes longer than computing it."""
EVERYTHING = slice(None)


def resize(image: UInt8[np.ndarray, "_h _w 3"], height: int, width: int) -> UInt8[np.ndarray, "{height} {width} 3"]:
    """Scale an image bilinearly with antialiasing; the result is bit-identical on every machine."""
    if image.shape[:2] == (height, width):
        return image.copy()
    scaled = resizing.resize(image, height, width)
    if scaled is not None:
        return scaled
    # One axis at a time: for both at once, Pillow 13 and later choose the order by size, which rounds differently.
    narrowed = Image.fromarray(image).resize((width, image.shape[0]), Image.Resampling.BILINEAR)
    return np.asarray(narrowed.resize((width, height), Image.Resampling.BILINEAR)).copy()


class Taps(NamedTuple):
    """Where the values of a resampled axis come from: two neighbors, and the share of the second."""

    first: Int[np.ndarray, "n"]
    second: Int[np.ndarray, "n"]
    share: Float32[np.ndarray, "n"]


def bilinear_taps(old: int, new: int, part: slice = EVERYTHING) -> Taps:
    """Return the taps of an axis without antialiasing; beyond the outermost centers the edge is repeated.

    Args:
        old: Length of the axis.
        new: Length of the resampled axis.
        part: The places of the resampled axis that are computed.

    """
    place = np.clip((np.arange(new)[part] + 0.5) * (old / new) - 0.5, 0, old - 1)
    first = place.astype(np.intp)
    return Taps(first, np.minimum(first + 1, old - 1), (place - first).astype(np.float32))


def bilinear(values: Float32[np.ndarray, "h w"], taps: Taps, axis: int = 0) -> Float32[np.ndarray, "_h _w"]:
    """Resample one axis bilinearly; an axis that stays as it is gives the values themselves, not a copy."""
    first, second, share = taps
    if not share.any():
        # Large maps: a copy per axis would be most of the memory of a verdict.
        whole = len(first) == values.shape[axis] and bool((first == np.arange(len(first))).all())
        return values if whole else values.take(first, axis)
    result = np.empty((len(first), values.shape[1]) if axis == 0 else (len(values), len(first)), np.float32)
    room = np.empty((min(BLOCK_ROWS, len(result)), result.shape[1]), np.float32)
    for start in range(0, len(result), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        lower = result[rows]
        upper = room[: len(lower)]
        source, along = (values, rows) if axis == 0 else (values[rows], EVERYTHING)
        # No index is out of range; mode="clip" only saves NumPy a buffered copy.
        source.take(first[along], axis, out=lower, mode="clip")
        source.take(second[along], axis, out=upper, mode="clip")
        upper -= lower
        upper *= share[rows, None] if axis == 0 else share
        lower += upper
    return result


def area_mean(values: np.ndarray, length: int) -> Float[np.ndarray, "_h _w"]:
    """Resample the columns: each new pixel is the mean of the area it covers."""
    rows, old = values.shape
    edges = np.arange(length + 1) * (old / length)
    first = np.minimum(edges.astype(np.intp), old - 1)
    share = edges - first
    mean: Float[np.ndarray, "_h _w"] = np.empty((rows, length))
    # Integers for masks: their sums are faster, and exact.
    total = np.zeros((min(BLOCK_ROWS, rows), old + 1), dtype=np.int32 if values.dtype == np.bool_ else np.float64)
    for start in range(0, rows, BLOCK_ROWS):
        block = values[start : start + BLOCK_ROWS]
        sums = total[: len(block)]
        np.cumsum(block, axis=1, dtype=total.dtype, out=sums[:, 1:])
        at_edges = sums[:, first] * (1 - share) + sums[:, first + 1] * share
        mean[start : start + BLOCK_ROWS] = np.diff(at_edges, axis=1) * (length / old)
    return mean
