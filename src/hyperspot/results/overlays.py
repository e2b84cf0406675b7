"""What surrounds a drawing of a verdict: the caption, the color bar of the heatmap, and panels side by side."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont

from hyperspot.results.drawing import overlay_heatmap
from hyperspot.results.png import Picture

INK, PAPER = (255, 255, 255), (24, 29, 36)
GRAY = 150
"""Of the ground of the color bar, which the color of typical pixels leaves visible."""
DECISION_COLORS = {True: (194, 38, 80), False: (27, 122, 84), None: (86, 97, 112)}
"""By `is_anomalous`; dark enough for white text."""


def with_caption(picture: Picture, decision: str, details: Sequence[str], is_anomalous: bool | None) -> Picture:
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
    strip = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(strip)
    pen.rectangle((0, 0, widths[0] - 1, line_height - 1), fill=DECISION_COLORS[is_anomalous])
    for text, (left, top) in zip((decision, *details), places, strict=True):
        pen.text((left + pad, top + line_height / 2), text, INK, font, anchor="lm")
    return _above(of_image(strip), _padded(picture, picture.height, width))


def with_color_bar(picture: Picture, heat_range: tuple[float, float], mask_floor: float | None) -> Picture:
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
    drawn = Image.new("RGB", (text_width + 3 * size, height), PAPER)
    colors = np.repeat(bar_colors(length, GRAY)[::-1, None], size, axis=1)
    left = size // 2
    drawn.paste(Image.fromarray(colors), (left, size))
    pen = ImageDraw.Draw(drawn)
    for score, text in marks:
        y = size + (length - 1) * (hot - score) / (hot - cold)
        pen.line((left, y, left + 1.25 * size, y), INK, max(1, size // 10))
        if score not in heat_range:
            # The label keeps clear of those of the ends; the line marks the place.
            y = min(max(y, 2.2 * size), length - 0.2 * size)
        pen.text((left + 1.5 * size, y), text, INK, font, anchor="lm")
    return _beside([picture, of_image(drawn)])


def bar_colors(count: int, gray: int) -> UInt8[np.ndarray, "_count 3"]:
    """Return the colors of evenly spaced scores over a gray ground, from cold to hot."""
    levels = np.linspace(0, 1, count, dtype=np.float32)[:, None]
    return overlay_heatmap(np.full((count, 1, 3), gray, np.uint8), levels, (0.0, 1.0))[:, 0]


def side_by_side(pictures: Sequence[Picture]) -> Picture:
    """Return pictures in a row, with a gap of a hundredth of their height."""
    gap = max(2, max(picture.height for picture in pictures) // 100)
    return _beside([*(_padded(one, one.height, one.width + gap) for one in pictures[:-1]), pictures[-1]])


def of_image(image: Image.Image) -> Picture:
    """Return an RGB image as a picture."""
    return Picture(image.height, image.width, np.asarray(image).__getitem__)


def of_mask(mask: Bool[np.ndarray, "h w"]) -> Picture:
    """Return a mask as a picture: white on black."""

    def rows_of(rows: slice) -> UInt8[np.ndarray, "_h _w 3"]:
        white = mask[rows, :, None] * np.uint8(255)
        return np.broadcast_to(white, (*white.shape[:2], 3))

    return Picture(mask.shape[0], mask.shape[1], rows_of)


def _padded(picture: Picture, height: int, width: int) -> Picture:
    """Return a picture with paper below it and on its right."""

    def rows_of(rows: slice) -> UInt8[np.ndarray, "_h _w 3"]:
        drawn = np.full((rows.stop - rows.start, width, 3), PAPER, np.uint8)
        inside = slice(min(rows.start, picture.height), min(rows.stop, picture.height))
        if inside.start < inside.stop:
            drawn[: inside.stop - inside.start, : picture.width] = picture.rows(inside)
        return drawn

    return picture if (height, width) == (picture.height, picture.width) else Picture(height, width, rows_of)


def _beside(pictures: Sequence[Picture]) -> Picture:
    """Return pictures in a row, with paper below the lower ones."""
    height = max(picture.height for picture in pictures)
    padded = [_padded(picture, height, picture.width) for picture in pictures]
    width = sum(picture.width for picture in pictures)
    return Picture(height, width, lambda rows: np.concatenate([one.rows(rows) for one in padded], axis=1))


def _above(upper: Picture, lower: Picture) -> Picture:
    """Return two pictures of one width, one above the other."""

    def rows_of(rows: slice) -> UInt8[np.ndarray, "_h _w 3"]:
        cut = upper.height
        parts = []
        if rows.start < cut:
            parts.append(upper.rows(slice(rows.start, min(rows.stop, cut))))
        if rows.stop > cut:
            parts.append(lower.rows(slice(max(rows.start, cut) - cut, rows.stop - cut)))
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    return Picture(upper.height + lower.height, upper.width, rows_of)


def _font(picture: Picture) -> ImageFont.FreeTypeFont:
    """Return the font of Pillow in a size that suits the picture."""
    font = ImageFont.load_default(max(12, round(min(picture.width, picture.height) / 26)))
    assert isinstance(font, ImageFont.FreeTypeFont)
    return font
