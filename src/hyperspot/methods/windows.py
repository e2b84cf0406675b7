"""Sliding windows over an image: their positions, their pixels, and scores per window to scores per pixel."""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from hyperspot.errors import SettingsError
from hyperspot.hardware.cached_tensors import cached_tensor


def starts(length: int, window: int, stride: int) -> list[int]:
    """Return the starts of the windows along a side; the last window ends at its end, so that every pixel is covered.

    Raises SettingsError if the side is shorter than a window.
    """
    if length < window:
        raise SettingsError(
            f"windows of {window} pixels do not fit into {length} pixels; give a larger short side (--short-side)"
        )
    last = length - window
    return [*range(0, last, stride), last]


@cached_tensor
def start_places(length: int, window: int, stride: int, device: torch.device, step: int = 1) -> Int[Tensor, "n"]:
    """Return `starts` as a tensor, divided by `step`."""
    return torch.tensor([start // step for start in starts(length, window, stride)]).to(device)


def cut_windows(images: Float[Tensor, "b c H W"], window: int, stride: int) -> Float[Tensor, "n c window window"]:
    """Return all windows, image by image, row by row."""
    batch, channels, height, width = images.shape
    rows, columns = (
        (begin[:, None] + torch.arange(window, device=images.device)).flatten()
        for begin in (start_places(length, window, stride, images.device) for length in (height, width))
    )
    cut = images.index_select(2, rows).index_select(3, columns)
    shaped = cut.reshape(batch, channels, len(rows) // window, window, len(columns) // window, window)
    return shaped.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, window, window)


def spread(
    scores: Float[Tensor, "b h w"], height: int, width: int, window: int, stride: int, sigma: float | None = None
) -> Float[Tensor, "b H W"]:
    """Return for each pixel the mean score of the windows that contain it.

    With `sigma` the windows are weighted by a Gaussian of this standard deviation, in pixels, around their centers. The
    weights are separable, so the mean is one matrix product per axis.
    """
    rows = _axis(height, window, stride, sigma, scores.dtype, scores.device)
    columns = _axis(width, window, stride, sigma, scores.dtype, scores.device)
    return rows @ scores @ columns.T


@cached_tensor
def _axis(
    length: int, window: int, stride: int, sigma: float | None, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "length _n"]:
    inside = np.arange(length)[:, None] - np.array(starts(length, window, stride))
    weights = ((inside >= 0) & (inside < window)).astype(np.float64)
    if sigma is not None:
        weights *= np.exp(-0.5 * ((inside - (window - 1) / 2) / sigma) ** 2)
    return torch.from_numpy(weights / weights.sum(1, keepdims=True)).to(device, dtype)
