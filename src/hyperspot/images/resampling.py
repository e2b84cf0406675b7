"""Resamples images, masks and heatmaps between the centers of pixels."""

import numpy as np
from jaxtyping import Float, Float32, UInt8
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


def bilinear(values: Float32[np.ndarray, "h w"], length: int, axis: int = 0) -> Float32[np.ndarray, "_h _w"]:
    """Resample one axis bilinearly without antialiasing; beyond the outermost centers the edge is repeated."""
    old = values.shape[axis]
    if old == length:
        return values.copy()
    place = np.clip((np.arange(length) + 0.5) * (old / length) - 0.5, 0, old - 1)
    first = place.astype(np.intp)
    second = np.minimum(first + 1, old - 1)
    share = (place - first).astype(np.float32)
    result = np.empty((length, values.shape[1]) if axis == 0 else (len(values), length), np.float32)
    room = np.empty((BLOCK_ROWS, result.shape[1]), np.float32)
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
    old = values.shape[1]
    # Integers for masks: their sums are faster, and exact.
    total = np.zeros((values.shape[0], old + 1), dtype=np.int32 if values.dtype == np.bool_ else np.float64)
    np.cumsum(values, axis=1, dtype=total.dtype, out=total[:, 1:])
    edges = np.arange(length + 1) * (old / length)
    first = np.minimum(edges.astype(np.intp), old - 1)
    share = edges - first
    at_edges = total[:, first] * (1 - share) + total[:, first + 1] * share
    mean: Float[np.ndarray, "_h _w"] = np.diff(at_edges, axis=1) * (length / old)
    return mean
