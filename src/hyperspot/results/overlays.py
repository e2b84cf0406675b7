"""What surrounds a drawing of a verdict: the caption, the color bar of the heatmap, and panels side by side."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from hyperspot.results.drawing import overlay_heatmap

INK, PAPER = (255, 255, 255), (24, 29, 36)
GRAY = 150
"""Of the ground of the color bar, which the color of typical pixels leaves visible."""
DECISION_COLORS = {True: (194, 38, 80), False: (27, 122, 84), None: (86, 97, 112)}
"""By `is_anomalous`; dark enough for white text."""


def with_caption(picture: Image.Image, decision: str, details: Sequence[str], is_anomalous: bool | None) -> Image.Image:
    """Return a picture with a strip above it: the decision on its color, then the details.

    Details that do not fit continue on further lines, and a narrow picture is padded on the right.

    Args:
        picture: RGB; no pixel of it is covered.
        decision: One word or two.
        details: Short texts.
        is_anomalous: Chooses the color.

    """
    font = _font(picture)
    pad = round(font.size / 2)
    line_height = round(1.8 * font.size)
    widths = [round(font.getlength(text)) + 2 * pad for text in (decision, *details)]
    width = max(picture.width, *widths)
    places, x, line = [], 0, 0
    for one in widths:
        if x + one > width:
            x, line = 0, line + 1
        places.append((x, line * line_height))
        x += one
    height = (line + 1) * line_height
    drawn = Image.new("RGB", (width, height + picture.height), PAPER)
    drawn.paste(picture, (0, height))
    pen = ImageDraw.Draw(drawn)
    pen.rectangle((0, 0, widths[0] - 1, line_height - 1), fill=DECISION_COLORS[is_anomalous])
    for text, (left, top) in zip((decision, *details), places, strict=True):
        pen.text((left + pad, top + line_height / 2), text, INK, font, anchor="lm")
    return drawn


def with_color_bar(picture: Image.Image, heat_range: tuple[float, float], mask_floor: float | None) -> Image.Image:
    """Return a picture with a color bar on its right: the scores of the heatmap, and the floor of masks.

    Args:
        picture: RGB.
        heat_range: The scores at the lower and the upper end; higher ones have the color of the upper end.
        mask_floor: Marked by a line; None marks none.

    """
    font = _font(picture)
    size = round(font.size)
    cold, hot = heat_range
    marks = [(hot, f"{hot:.3g}+"), (cold, f"{cold:.3g}")]
    if mask_floor is not None and cold < mask_floor < hot:
        marks.append((mask_floor, f"{mask_floor:.3g} mask"))
    text_width = max(round(font.getlength(text)) for _, text in marks)
    height = max(picture.height, 8 * size)
    length = height - 2 * size
    drawn = Image.new("RGB", (picture.width + text_width + 3 * size, height), PAPER)
    drawn.paste(picture, (0, 0))
    colors = np.repeat(bar_colors(length, GRAY)[::-1, None], size, axis=1)
    left = picture.width + size // 2
    drawn.paste(Image.fromarray(colors), (left, size))
    pen = ImageDraw.Draw(drawn)
    for score, text in marks:
        y = size + (length - 1) * (hot - score) / (hot - cold)
        pen.line((left, y, left + 1.25 * size, y), INK, max(1, size // 10))
        if score not in heat_range:
            # The label keeps clear of those of the ends; the line marks the place.
            y = min(max(y, 2.2 * size), length - 0.2 * size)
        pen.text((left + 1.5 * size, y), text, INK, font, anchor="lm")
    return drawn


def bar_colors(count: int, gray: int) -> UInt8[np.ndarray, "_count 3"]:
    """Return the colors of evenly spaced scores over a gray ground, from cold to hot."""
    levels = np.linspace(0, 1, count, dtype=np.float32)[:, None]
    return overlay_heatmap(np.full((count, 1, 3), gray, np.uint8), levels, (0.0, 1.0))[:, 0]


def side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    """Return pictures in a row, with a gap of a hundredth of their height."""
    height = max(picture.height for picture in pictures)
    gap = max(2, height // 100)
    drawn = Image.new("RGB", (sum(one.width for one in pictures) + gap * (len(pictures) - 1), height), PAPER)
    x = 0
    for one in pictures:
        drawn.paste(one, (x, 0))
        x += one.width + gap
    return drawn


def _font(picture: Image.Image) -> ImageFont.FreeTypeFont:
    """Return the font of Pillow in a size that suits the picture."""
    font = ImageFont.load_default(max(12, round(min(picture.size) / 26)))
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
