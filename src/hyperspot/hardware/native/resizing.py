"""Compiled antialiased bilinear resizing, optional: bit-identical to Pillow, several times as fast."""

import ctypes
import math
import os
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64, UInt8

from hyperspot.hardware.native import LEVELS, SUFFIX, SWITCH

LIBRARY = Path(__file__).with_name(f"_resize{SUFFIX}")
BITS = 22
"""Fractional bits of a weight, as in Pillow."""
GROUP = 4
"""The number of weights of a pixel is padded with zeros to a multiple of this."""
BEYOND = 16
"""Bytes that the library may read beyond the last weighted pixel."""


class _Axis(ctypes.Structure):
    """`struct axis` of resize.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("before", "after", "taps")),
        *((name, ctypes.c_void_p) for name in ("starts", "weights")),
    )


@cache
def _library() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL(str(LIBRARY))
        pointer, axis = ctypes.c_void_p, ctypes.POINTER(_Axis)
        library.hs_resizes.argtypes, library.hs_resizes.restype = [], ctypes.c_int
        library.hs_resize.argtypes, library.hs_resize.restype = [pointer, axis, axis, pointer], ctypes.c_int
    except (OSError, AttributeError):
        return None
    return library if library.hs_resizes() and os.environ.get(SWITCH) != LEVELS[0] else None


def resize(image: UInt8[np.ndarray, "_h _w 3"], height: int, width: int) -> UInt8[np.ndarray, "_H _W 3"] | None:
    """Resize an RGB image bilinearly, antialiased, rows first.

    Returns None if the library is missing, the CPU lacks AVX2, or a row is shorter than the filter.
    """
    library = _library()
    if library is None:
        return None
    columns, rows = weights(image.shape[1], width), weights(image.shape[0], height)
    if 3 * columns[1].shape[1] + BEYOND > 3 * image.shape[1]:
        return None
    source = np.ascontiguousarray(image)
    scaled = np.empty((height, width, 3), np.uint8)
    axes = [
        _Axis(before, after, held.shape[1], starts.ctypes.data, held.ctypes.data)
        for before, after, (starts, held) in ((image.shape[1], width, columns), (image.shape[0], height, rows))
    ]
    if library.hs_resize(source.ctypes.data, axes[0], axes[1], scaled.ctypes.data):
        raise MemoryError(f"not enough memory to resize an image to {height} x {width} pixels")
    return scaled


@lru_cache(maxsize=64)
def weights(before: int, after: int) -> tuple[Int64[np.ndarray, "{after}"], Int32[np.ndarray, "{after} _taps"]]:
    """Return, per output pixel of one axis, the first input pixel and the weights in 22-bit fixed point.

    The filter is a triangle around the pixel's center with a half-width of one output pixel, at least one input pixel.
    The weights of each pixel sum to one up to rounding.
    """
    scale = before / after
    support = max(scale, 1.0)
    centers = (np.arange(after) + 0.5) * scale
    starts = np.maximum((centers - support + 0.5).astype(np.int64), 0)
    ends = np.minimum((centers + support + 0.5).astype(np.int64), before)
    taps = -(-(math.ceil(support) * 2 + 1) // GROUP) * GROUP
    places = np.arange(taps)
    distances = np.abs((places + starts[:, None] - centers[:, None] + 0.5) * (1.0 / support))
    shares = np.where(places < (ends - starts)[:, None], np.maximum(1.0 - distances, 0.0), 0.0)
    # Summed in Pillow's order: another one rounds differently in the last bit.
    totals = np.cumsum(shares, axis=1)[:, -1:]
    held = (0.5 + shares / totals * (1 << BITS)).astype(np.int32)
    return starts, held
