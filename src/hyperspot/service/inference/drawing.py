"""Draws the pictures of an inspection again, from its files."""

import io
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Shaped
from PIL import Image

from hyperspot.choices import OverlayStyle
from hyperspot.images import InputSize, Letterbox, read_image
from hyperspot.results.drawing import heat_levels
from hyperspot.results.verdict import Verdict
from hyperspot.service.database.tables import Inspection

Picture = Literal["overlay", "heat", "side-by-side", "heatmap", "mask"]
"""`overlay` outlines the regions, `heat` tints the image, `heatmap` is 16-bit gray, cold to hot, `mask` is 1-bit."""
PICTURES: tuple[Picture, ...] = get_args(Picture)
STYLES: dict[str, OverlayStyle] = {"overlay": "outline", "heat": "heatmap", "side-by-side": "side-by-side"}


def verdict_of(inspection: Inspection, image: bytes, result: dict[str, Shaped[np.ndarray, "..."]]) -> Verdict:
    """Return the verdict of an inspection; its regions are in `inspection.verdict`.

    Args:
        inspection: The row.
        image: As it was received.
        result: What `ImageStore.read_result` returns.
    """
    rendering = inspection.rendering
    letterbox = rendering["letterbox"]
    pixels = read_image(image)
    height, width = pixels.shape[:2]
    low, high = rendering["heat_range"]
    return Verdict(
        score=inspection.score,
        p_value=inspection.p_value,
        is_anomalous=inspection.is_anomalous,
        mask=mask_of(result, height, width),
        regions=(),
        image=pixels,
        input_map=result["map"],
        letterbox=Letterbox(**letterbox | {"input_size": InputSize.from_dict(letterbox["input_size"])}),
        heat_range=(low, high),
        milliseconds=inspection.milliseconds,
        threshold=inspection.threshold,
        mask_floor=rendering["mask_floor"],
    )


def mask_of(result: dict[str, Shaped[np.ndarray, "..."]], height: int, width: int) -> Bool[np.ndarray, "_h _w"]:
    """Return the mask of an inspection at the size of its image.

    Args:
        result: What `ImageStore.read_result` returns.
        height: Of the image, in pixels.
        width: Of the image, in pixels.
    """
    bits = result.get("mask")
    return np.zeros((height, width), bool) if bits is None else np.unpackbits(bits, axis=1, count=width).astype(bool)


def draw(verdict: Verdict, picture: Picture, *, caption: bool = False, width: int | None = None) -> bytes:
    """Return a picture as PNG.

    Args:
        verdict: Of the inspection.
        picture: Which.
        caption: Decision, score and p-value above the overlay.
        width: In pixels, of a smaller picture; default: that of the image.
    """
    if picture == "mask":
        drawn = Image.fromarray(verdict.mask)
    elif picture == "heatmap":
        drawn = Image.fromarray(heat_levels(verdict.heatmap, verdict.heat_range))
    else:
        drawn = verdict.overlay(STYLES[picture], caption=caption)
    return encode(drawn, width)


def encode(image: Image.Image, width: int | None = None) -> bytes:
    """Return an image as PNG, scaled down to a width if it is wider."""
    if width is not None and width < image.width:
        reduced = max(1, round(image.height * width / image.width))
        image = image.resize((width, reduced), Image.Resampling.BOX if image.mode == "1" else Image.Resampling.BILINEAR)
    content = io.BytesIO()
    # Encoding is most of the time; a higher level saves little on pictures of noise.
    image.save(content, format="PNG", compress_level=1)
    return content.getvalue()
