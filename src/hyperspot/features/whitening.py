"""Partial whitening: principal axes, scaled by a power of their variance.

Distances in raw features are dominated by the few directions in which good patches vary anyway. Full whitening (power
1/2) gives noise the same weight as structure. A small power lies between the two.
"""

import torch
from jaxtyping import Float
from torch import Tensor

FLOOR = 1e-3
"""Smallest variance of an axis, relative to the mean variance of the kept axes."""
ROUNDING = 1e-6
"""Deviation of constant patches at most, relative to their root mean square: rounding of 32-bit features."""


def partial_whitening(patches: Float[Tensor, "n c"], channels: int, power: float) -> Float[Tensor, "d c"]:
    """Return the projection to the principal axes of the patches, each divided by its variance to a power.

    The mean squared norm of the projected patches about their mean is 1, so that projections of several levels can be
    weighted against each other. Patches without any variance are projected to zero.

    Args:
        patches: Features of good patches.
        channels: Number of axes to keep at most, those of the largest variance.
        power: 0 keeps all distances along the kept axes, 1/2 whitens them.

    Examples:
        >>> wide = torch.randn(1000, 2, generator=torch.Generator().manual_seed(0)) * torch.tensor([10.0, 1.0])
        >>> projected = wide @ partial_whitening(wide, 2, power=0.5).T
        >>> [round(value, 1) for value in projected.var(0).tolist()]
        [0.5, 0.5]

    """
    values = patches.double()
    centered = values - values.mean(0)
    variances, axes = torch.linalg.eigh(centered.T @ centered / len(patches))
    # Ascending, and rounding may make those of a singular covariance negative.
    variances, axes = variances.flip(0)[:channels].clamp(min=0), axes.flip(1)[:, :channels]
    if variances.sum() <= ROUNDING**2 * values.square().sum(1).mean():
        return torch.zeros(axes.T.shape).to(patches)
    floored = variances.clamp(min=FLOOR * float(variances.mean()))
    scaled = axes * floored**-power
    norm = (variances * floored ** (-2 * power)).sum().sqrt()
    projection: Tensor = (scaled / norm).T
    return projection.to(patches)
