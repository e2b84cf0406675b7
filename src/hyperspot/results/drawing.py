"""Drawings of results at the size of the image: the heatmap over it, and outlines of masks."""

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8, UInt16

from hyperspot.images.masks import blocks, erode

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
HOTTEST = 65535
TINT_SHIFT = 4
BLOCK_ROWS = 16
"""Rows tinted at a time, which stay in the cache."""
TINTS = 2 ** (16 - TINT_SHIFT)
"""Levels with a color of their own: a step changes no pixel by more than rounding."""


def heat_levels(heatmap: Float[np.ndarray, "h w"], heat_range: tuple[float, float]) -> UInt16[np.ndarray, "h w"]:
    """Scale a heatmap linearly to 0 (cold) to 65535 (hot), clipped and rounded.

    Examples:
        >>> heat_levels(np.array([[0.0, 3.0, 9.0]]), (1.0, 5.0)).tolist()
        [[0, 32768, 65535]]

    """
    cold, hot = heat_range
    levels = np.subtract(heatmap, cold, dtype=np.float32)
    levels *= HOTTEST / (hot - cold)
    np.clip(levels, 0, HOTTEST, out=levels)
    rounded: UInt16[np.ndarray, "h w"] = np.rint(levels, out=levels).astype(np.uint16)
    return rounded


def _tints() -> tuple[Float32[np.ndarray, "n"], Float32[np.ndarray, "3 n"]]:
    """Return the share of the image that each level leaves, and the color that it adds."""
    level = np.linspace(0, 1, TINTS)
    places = np.linspace(0, 1, len(HEAT_COLORS))
    color = np.stack([np.interp(level, places, channel) for channel in HEAT_COLORS.T])
    # Steeper than the excess over typical: the variation among good pixels stays faint.
    strength = STRONGEST * level**1.5
    return (1 - strength).astype(np.float32), (color * strength).astype(np.float32)


KEPT, ADDED = _tints()


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
    drawn = np.empty_like(image)
    for start in range(0, len(image), BLOCK_ROWS):
        rows = slice(start, start + BLOCK_ROWS)
        levels = heat_levels(heatmap[rows], heat_range) >> TINT_SHIFT
        kept = KEPT.take(levels)
        for channel, added in enumerate(ADDED):
            mixed = image[rows, :, channel] * kept
            mixed += added.take(levels)
            drawn[rows, :, channel] = np.rint(mixed, out=mixed)
    return drawn


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
    for rows in blocks(mask):
        drawn[rows] = outline_rows(image[rows], mask, rows, line)
    return drawn


def outline_rows(
    image: UInt8[np.ndarray, "_rows w 3"],
    mask: Bool[np.ndarray, "h w"],
    rows: slice,
    line: tuple[int, int, int] = OUTLINE_COLOR,
) -> UInt8[np.ndarray, "_rows w 3"]:
    """Return rows of `outline`; without a line in them, the image itself.

    Args:
        image: The rows of the image.
        mask: Of the whole image.
        rows: Which ones, from 0.
        line: Color of the line.

    """
    width = max(1, round(min(mask.shape) / 256))
    reach = 2 * width + (width + 1) // 2
    top = max(0, rows.start - reach)
    around = mask[top : rows.stop + reach]
    columns = np.flatnonzero(around.any(axis=0))
    if not len(columns):
        return image
    drawn = image.copy()
    part = slice(max(0, columns[0] - reach), columns[-1] + 1 + reach)
    near = _dilate(around[:, part], width)
    far = _dilate(near, width)
    inner = slice(rows.start - top, rows.start - top + len(image))
    panel = drawn[:, part]
    panel[(_dilate(far, (width + 1) // 2) & ~far)[inner]] = HALO_COLOR
    panel[(far & ~near)[inner]] = line
    return drawn


def _dilate(mask: Bool[np.ndarray, "h w"], reach: int) -> Bool[np.ndarray, "h w"]:
    """Return the pixels with a set one within `reach` rows and columns."""
    return ~erode(~mask, reach)
