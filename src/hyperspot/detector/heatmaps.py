"""From raw to smoothed anomaly maps: upsample, blur, fuse crops (CFA++).

Bilinear upsampling and the separable Gaussian with its border rule are both linear along one axis, so the two
together are one fixed matrix per axis: exact, fast on every engine, and right for inputs that are not square.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy import sparse
from torch import Tensor

from hyperspot.features.patches import bilinear_taps
from hyperspot.hardware.cached_tensors import cached_tensor


def bilinear_matrix(length: int, target: int) -> Float[np.ndarray, "target length"]:
    """Return the matrix that resamples `length` values to `target` (half-pixel centers, edges repeated)."""
    first, second, weight = bilinear_taps(length, target)
    matrix = np.zeros((target, length))
    np.add.at(matrix, (np.arange(target), first), 1 - weight)
    np.add.at(matrix, (np.arange(target), second), weight)
    return matrix


def gaussian_matrix(length: int, sigma: float) -> sparse.csr_array:
    """Return the matrix of a Gaussian cut at 4 sigma with half-sample symmetric borders (SciPy's defaults).

    It is a band: only length x (8 sigma + 1) of its length x length numbers are held.
    """
    if sigma == 0:
        return sparse.eye_array(length, format="csr")
    radius = int(4 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel /= kernel.sum()
    reached = (np.arange(length)[:, None] + offsets) % (2 * length)
    reached = np.where(reached < length, reached, 2 * length - 1 - reached)
    starts = np.arange(length + 1) * len(offsets)
    # Near the borders a row reaches some places twice: what goes there is added up.
    return sparse.csr_array((np.tile(kernel, length), reached.ravel(), starts), shape=(length, length))


@cached_tensor
def _axis(length: int, target: int, sigma: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    matrix = gaussian_matrix(target, sigma) @ sparse.csr_array(bilinear_matrix(length, target))
    return torch.from_numpy(matrix.toarray()).to(device, dtype)


def smooth(raw: Float[Tensor, "b h w"], height: int, width: int, sigma: float) -> Float[Tensor, "b H W"]:
    """Upsample raw maps to `height` x `width` pixels and blur them with a Gaussian of `sigma` pixels."""
    rows = _axis(raw.shape[1], height, sigma, raw.dtype, raw.device)
    columns = _axis(raw.shape[2], width, sigma, raw.dtype, raw.device)
    return rows @ raw @ columns.T


def uncrop(maps: Float[Tensor, "b h w"], top: int, left: int, height: int, width: int) -> Float[Tensor, "b H W"]:
    """Pad the maps of a crop to the whole input.

    Pixels outside the crop get the minimum of their own map: they never decide the score, and no other image enters.
    """
    if maps.shape[1:] == (height, width):
        return maps
    bottom, right = height - top - maps.shape[1], width - left - maps.shape[2]
    seen = F.pad(torch.ones_like(maps[:1], dtype=torch.bool), (left, right, top, bottom))
    return torch.where(seen, F.pad(maps, (left, right, top, bottom)), maps.amin((1, 2))[:, None, None])


def fuse(
    maps: Sequence[Float[Tensor, "b H W"]],
    seen: Sequence[tuple[int, int, int, int]],
    statistics: Sequence[tuple[float, float]],
) -> Float[Tensor, "b H W"]:
    """Average the maps of several crops, each standardized by mean and deviation over good images (CFA++).

    Args:
        maps: One batch per crop, at the input size.
        seen: Top, left, height and width of each crop; pixels outside it do not count.
        statistics: Mean and standard deviation of each crop's map over good training images.

    """
    total = torch.zeros_like(maps[0])
    count = torch.zeros(maps[0].shape[1:], dtype=maps[0].dtype, device=maps[0].device)
    for crop, (top, left, height, width), (mean, deviation) in zip(maps, seen, statistics, strict=True):
        box = (slice(top, top + height), slice(left, left + width))
        total[:, *box] += (crop[:, *box] - mean) / deviation
        count[box] += 1
    return total / count.clamp(min=1)
