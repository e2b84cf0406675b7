"""Drawings of results: the heatmap over the image, and outlines of masks."""

import numpy as np
from jaxtyping import Bool, Float, UInt8

from hyperspot.images.masks import erode

HEAT_COLORS = np.array(
    [[0, 0, 0], [60, 15, 110], [150, 30, 110], [220, 60, 60], [250, 140, 30], [255, 235, 120]], dtype=np.float32
)
OUTLINE_COLOR = (255, 40, 90)
TRUTH_COLOR = (60, 220, 90)
"""Of annotated masks."""


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
    """Blend a heatmap over an image; cold pixels show the image."""
    level = normalize_heat(heatmap, heat_range)
    position = level * (len(HEAT_COLORS) - 1)
    lower = np.minimum(position.astype(np.intp), len(HEAT_COLORS) - 2)
    share = (position - lower)[..., None]
    colors = HEAT_COLORS[lower] * (1 - share) + HEAT_COLORS[lower + 1] * share
    strength = (0.85 * np.clip(level * 1.6, 0, 1))[..., None]
    mixed: UInt8[np.ndarray, "h w 3"] = np.round(image * (1 - strength) + colors * strength).astype(np.uint8)
    return mixed


def outline(
    image: UInt8[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"],
    line: tuple[int, int, int] = OUTLINE_COLOR,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw the border of a mask on a copy of an image; the line width grows with the image."""
    width = max(1, round(min(mask.shape) / 200))
    drawn = image.copy()
    drawn[mask & ~erode(mask, width)] = line
    return drawn
