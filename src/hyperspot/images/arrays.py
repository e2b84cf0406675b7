"""Converts NumPy arrays and torch tensors of every accepted shape and dtype to 8-bit RGB, without importing torch."""

import sys
import warnings
from typing import Any, Literal

import numpy as np
from jaxtyping import Shaped, UInt8

from hyperspot.errors import ImageError, ImageWarning

TWELVE_BITS = 4095
CHANNELS = (1, 3, 4)
ACCEPTED = {
    "array": "height x width x 3 (or 1, or 4 with alpha) or height x width",
    "tensor": "3 (or 1, or 4 with alpha) x height x width or height x width",
}
TO_CHANNELS_LAST = {"array": "array.transpose(1, 2, 0)", "tensor": "tensor.permute(2, 0, 1)"}
"""How to move the channels to where each kind has them."""


def is_array(source: object) -> bool:
    """Return whether an object is a NumPy array or a torch tensor."""
    return isinstance(source, np.ndarray) or _is_tensor(source)


def array_to_rgb(source: Any, channel_order: Literal["RGB", "BGR"]) -> UInt8[np.ndarray, "h w 3"]:
    """Return a new 8-bit RGB array; `source` is never changed and shares no memory with it.

    Args:
        source: A NumPy array (h w c or h w) or a torch tensor (c h w or h w) on any device.
        channel_order: Order of the first three channels of `source`; the fourth, alpha, is dropped.

    Raises:
        ImageError: The shape, the number of channels, the dtype or the range of values is not accepted.

    """
    kind = "tensor" if _is_tensor(source) else "array"
    shape = tuple(source.shape)
    article, dtype = ("a", str(source.dtype).removeprefix("torch.")) if kind == "tensor" else ("an", str(source.dtype))
    described = f"{article} {kind} of shape {shape} and dtype {dtype} is no image"
    channels_first = kind == "tensor"
    channels = 1 if len(shape) == 2 else shape[0 if channels_first else 2] if len(shape) == 3 else 0
    if channels not in CHANNELS or 0 in shape:
        raise ImageError(f"{described}; {_mend_shape(shape, kind)}")
    values = _numpy(source)
    if values.ndim == 2:
        values = values[..., None]
    elif channels_first:
        values = np.moveaxis(values, 0, 2)
    values = values[..., :3]
    if channels > 1 and channel_order == "BGR":
        values = values[..., ::-1]
    if values.dtype == np.uint8:
        pixels = np.array(values, order="C")
    elif values.dtype.kind == "u" and values.dtype.itemsize == 2:
        pixels = to_8_bits(values, f"<{kind}>")
    elif values.dtype.kind == "f":
        pixels = _from_unit_range(values, described)
    else:
        raise ImageError(f"{described}; convert it to uint8, uint16 or floats in 0 .. 1")
    return np.repeat(pixels, 3, axis=2) if channels == 1 else np.ascontiguousarray(pixels)


def to_8_bits(values: Shaped[np.ndarray, "*shape"], name: str) -> UInt8[np.ndarray, "*shape"]:
    """Scale 16 bits to 8 by their full range; an ImageWarning is issued if the values use 12 bits or fewer."""
    if 0 < values.max() <= TWELVE_BITS:
        # The range of the camera is unknown; a range guessed per image would scale images of one camera differently.
        warnings.warn(
            f"{name} has 16 bits and uses 12 or fewer, so that it becomes nearly black; if it should not be, let the "
            "camera or a converter scale such images to the full 16 bits or to 8",
            ImageWarning,
            stacklevel=2,
        )
    rounded: np.ndarray = (values.astype(np.uint32) + 128) // 257
    return rounded.astype(np.uint8)


def _from_unit_range(values: Shaped[np.ndarray, "h w c"], described: str) -> UInt8[np.ndarray, "h w c"]:
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):
        if low != low:  # NaN
            raise ImageError(f"{described}: it holds NaN; replace those values")
        mend = "divide it by 255 or convert it to uint8" if low >= 0 and 1 < high <= 255 else "scale its values"
        raise ImageError(f"{described}: floats must lie in 0 .. 1, its values lie in {low:g} .. {high:g}; {mend}")
    scaled: np.ndarray = np.rint(np.multiply(values, 255, dtype=np.float32))
    return scaled.astype(np.uint8)


def _mend_shape(shape: tuple[int, ...], kind: str) -> str:
    if 0 in shape:
        return "it has no pixels"
    if len(shape) == 4:
        return "pass the images of a batch one by one"
    if len(shape) == 3 and shape[2 if kind == "tensor" else 0] in CHANNELS:
        return f"pass {ACCEPTED[kind]}: {TO_CHANNELS_LAST[kind]}"
    return f"pass {ACCEPTED[kind]}"


def _is_tensor(source: object) -> bool:
    # Only a program that has imported torch can hold a tensor.
    return isinstance(source, getattr(sys.modules.get("torch"), "Tensor", ()))


def _numpy(source: Any) -> Shaped[np.ndarray, "*shape"]:
    if isinstance(source, np.ndarray):
        return source
    tensor = source.detach().cpu()
    # NumPy has no bfloat16.
    values: np.ndarray = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    return values
