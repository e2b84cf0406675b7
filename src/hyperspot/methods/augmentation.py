"""Augmentations of good images, with pixels in 0..1 and random numbers from a given generator."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

GRAY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in luma (ITU-R BT.601)."""


def uniform(low: float, high: float, count: int, generator: torch.Generator) -> Float[Tensor, "count"]:
    """Return uniform random numbers from an interval."""
    drawn: Tensor = low + (high - low) * torch.rand(count, generator=generator)
    return drawn


def jitter(images: Float[Tensor, "b 3 h w"], amount: float, generator: torch.Generator) -> Float[Tensor, "b 3 h w"]:
    """Scale brightness, contrast and saturation of each image by factors within 1 ± amount; the hue is unchanged."""
    factors = uniform(1 - amount, 1 + amount, 3 * len(images), generator).to(images)
    brightness, contrast, saturation = factors.reshape(3, -1, 1, 1, 1)
    changed = images * brightness
    mean = _gray(changed).mean((2, 3), keepdim=True)
    changed = mean + (changed - mean) * contrast
    gray = _gray(changed)
    jittered: Tensor = (gray + (changed - gray) * saturation).clamp(0, 1)
    return jittered


def move(
    images: Float[Tensor, "b 3 H W"], degrees: float, shift: float, generator: torch.Generator
) -> Float[Tensor, "b 3 H W"]:
    """Rotate each image about its center by up to ± `degrees`, and shift it by up to ± `shift` of its sides.

    Bilinear; beyond the border the edge is repeated.
    """
    count, _, height, width = images.shape
    angles = uniform(-degrees, degrees, count, generator) * (math.pi / 180)
    # Coordinates run from -1 to 1 along each side, hence twice the shift and the ratio of the sides.
    across, down = 2 * uniform(-shift, shift, 2 * count, generator).reshape(2, -1)
    cosine, sine = angles.cos(), angles.sin()
    top = torch.stack([cosine, -sine * (height / width), across], dim=1)
    bottom = torch.stack([sine * (width / height), cosine, down], dim=1)
    grid = F.affine_grid(torch.stack([top, bottom], dim=1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid.to(images), mode="bilinear", padding_mode="border", align_corners=False)


def crops(images: Float[Tensor, "b 3 H W"], side: int, generator: torch.Generator) -> Float[Tensor, "b 3 side side"]:
    """Return a square crop at a random position of each image."""
    count, _, height, width = images.shape
    tops = torch.randint(height - side + 1, (count,), generator=generator).tolist()
    lefts = torch.randint(width - side + 1, (count,), generator=generator).tolist()
    return torch.stack(
        [image[:, top : top + side, left : left + side] for image, top, left in zip(images, tops, lefts, strict=True)]
    )


def _gray(images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 1 h w"]:
    weights = images.new_tensor(GRAY)[:, None, None]
    return (images * weights).sum(1, keepdim=True)
