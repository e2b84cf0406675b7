"""Drawings of results at the size of the image: the heatmap over it, and outlines of masks."""

import numpy as np
from jaxtyping import Bool, Float, UInt8

from hyperspot.images.masks import erode

HEAT_COLORS = np.array(
    [[255, 240, 120], [255, 200, 50], [255, 130, 20], [240, 50, 50], [225, 20, 130]], dtype=np.float32
)
"""From typical to hot."""
OUTLINE_COLOR = (255, 40, 90)
TRUTH_COLOR = (60, 220, 90)
"""Of annotated masks."""
HALO_COLOR = (16, 16, 16)
STRONGEST = 0.4
"""Share of the heat color in the hottest pixels; the rest is the image."""


def normalize_heat(heatmap: Float[np.ndarray, "h w"], heat_range: tuple[float, float]) -> Float[np.ndarray, "h w"]:
    """Scale a heatmap linearly to 0 (cold) to 1 (hot), clipped.

    Examples:
        >>> normalize_heat(np.array([[0.0, 3.0, 9.0]]), (1.0, 5.0)).tolist()
        [[0.0, 0.5, 1.0]]

    """
    cold, hot = heat_range
    return np.clip((heatmap - cold) / (hot - cold), 0, 1).astype(np.float32)


def overlay_heatmap(
    image: UInt8[np.ndarray, "h w 3"],
    heatmap: Float[np.ndarray, "h w"],
    heat_range: tuple[float, float],
) -> UInt8[np.ndarray, "h w 3"]:
    """Tint an image by its heatmap; typical pixels show the image alone, and the hottest ones 60 % of it.

    Examples:
        >>> gray = np.full((1, 3, 3), 100, np.uint8)
        >>> overlay_heatmap(gray, np.array([[0.0, 1.0, 9.0]]), (1.0, 5.0))[0].tolist()
        [[100, 100, 100], [100, 100, 100], [150, 68, 112]]

    """
    level = normalize_heat(heatmap, heat_range)
    position = level * (len(HEAT_COLORS) - 1)
    lower = np.minimum(position.astype(np.intp), len(HEAT_COLORS) - 2)
    share = (position - lower)[..., None]
    colors = HEAT_COLORS[lower] * (1 - share) + HEAT_COLORS[lower + 1] * share
    # Steeper than the excess over typical: the variation among good pixels stays faint.
    strength = (STRONGEST * level**1.5)[..., None]
    mixed: UInt8[np.ndarray, "h w 3"] = np.round(image * (1 - strength) + colors * strength).astype(np.uint8)
    return mixed


def outline(
    image: UInt8[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"],
    line: tuple[int, int, int] = OUTLINE_COLOR,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw a line around a mask on a copy of an image, with a dark rim that sets it off from bright images.

    The line keeps a distance from the mask and covers none of its pixels; its width grows with the image.

    Examples:
        >>> mask = np.zeros((5, 9), bool)
        >>> mask[:, :2] = True
        >>> outline(np.full((5, 9, 3), 200, np.uint8), mask)[2, :, 0].tolist()
        [200, 200, 200, 255, 16, 200, 200, 200, 200]

    """
    drawn = image.copy()
    if not mask.any():
        return drawn
    width = max(1, round(min(mask.shape) / 256))
    near = _dilate(mask, width)
    far = _dilate(near, width)
    drawn[_dilate(far, (width + 1) // 2) & ~far] = HALO_COLOR
    drawn[far & ~near] = line
    return drawn


def _dilate(mask: Bool[np.ndarray, "h w"], reach: int) -> Bool[np.ndarray, "h w"]:
    """Return the pixels with a set one within `reach` rows and columns."""
    return ~erode(~mask, reach)
