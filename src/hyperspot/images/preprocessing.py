"""From an image source to the pixels of the model's input: read, align, cut to the region of interest, letterbox.

Every way in goes through here. One image is one letterboxed input: training, the predictor, the decision rule and the
evaluation rely on it.
"""

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8

from hyperspot.images.geometry import InputSize, Letterbox
from hyperspot.images.inspected_area import InspectedArea, fill_outside
from hyperspot.images.reading import read_image
from hyperspot.images.registration import Alignment


@dataclass(frozen=True, eq=False)
class LetterboxedImage:
    """An image at the input size.

    Attributes:
        pixels: 8-bit RGB at the input size.
        letterbox: How the image lies in it.
        inside: Pixels of the input in the region of interest; None if all inside the image are.
        alignment: How the image was aligned to the reference; None without registration.

    """

    pixels: UInt8[np.ndarray, "H W 3"]
    letterbox: Letterbox
    inside: Bool[np.ndarray, "H W"] | None = field(default=None, kw_only=True)
    alignment: Alignment | None = field(default=None, kw_only=True)


@dataclass(frozen=True, eq=False)
class PreparedImage(LetterboxedImage):
    """An image ready for the model, with all that its verdict needs.

    Attributes:
        image: The original pixels, 8-bit RGB.
        path: The file it was read from, if any.
        seconds: Time spent on alignment and letterboxing; reading is not counted.

    """

    image: UInt8[np.ndarray, "h w 3"]
    path: Path | None
    seconds: float


def prepare(source: Any, input_size: InputSize, area: InspectedArea | None = None, **reading: Any) -> PreparedImage:
    """Read an image, align it, fill what lies outside the region of interest with one color, and letterbox it.

    The image is filled before it is scaled, so that no pixel outside has any effect.

    Args:
        source: Whatever `read_image` reads.
        input_size: Of the model.
        area: Region of interest and reference; default: the whole image as it is.
        **reading: Options of `read_image`, for example `channel_order`.

    Raises ImageError if the source cannot be read, SettingsError if the region of interest has no pixel.
    """
    image = read_image(source, **reading)
    started = time.perf_counter()
    letterbox = input_size.letterbox(*image.shape[:2])
    shown, inside, alignment = image, None, None
    if area is not None:
        if area.reference is not None:
            alignment = area.reference.locate(image)
            shown = alignment.apply(image)
        within = area.mask(*image.shape[:2])
        if within is not None:
            shown = fill_outside(shown, within)
            inside = area.input_mask(letterbox)
    pixels = letterbox.apply(shown)
    path = Path(source) if isinstance(source, str | os.PathLike) else None
    seconds = time.perf_counter() - started
    return PreparedImage(pixels, letterbox, image, path, seconds, inside=inside, alignment=alignment)


def inspected_pixels(image: UInt8[np.ndarray, "h w 3"], area: InspectedArea) -> Bool[np.ndarray, "h w"] | None:
    """Return the pixels of an image that count, in its region of interest after registration; None if all do."""
    within = area.mask(*image.shape[:2])
    if within is None or area.reference is None:
        return within
    return area.reference.locate(image).back(within, within.shape, beyond=0.0)
