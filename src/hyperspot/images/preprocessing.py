"""From an image source to the pixels of the model's input: read, then letterbox. Every way in goes through here.

One image is one letterboxed input: training, the predictor, the decision rule and the evaluation rely on it.
"""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from hyperspot.images.geometry import InputSize, Letterbox
from hyperspot.images.reading import read_image


@dataclass(frozen=True, eq=False)
class LetterboxedImage:
    """An image at the input size.

    Attributes:
        pixels: 8-bit RGB at the input size.
        letterbox: How the image lies in it.

    """

    pixels: UInt8[np.ndarray, "H W 3"]
    letterbox: Letterbox


@dataclass(frozen=True, eq=False)
class PreparedImage(LetterboxedImage):
    """An image ready for the model, with all that its verdict needs.

    Attributes:
        image: The original pixels, 8-bit RGB.
        path: The file it was read from, if any.
        seconds: Time spent on letterboxing; reading is not counted.

    """

    image: UInt8[np.ndarray, "h w 3"]
    path: Path | None
    seconds: float


def prepare(source: Any, input_size: InputSize, **reading: Any) -> PreparedImage:
    """Read an image and letterbox it.

    Args:
        source: Whatever `read_image` reads.
        input_size: Of the model.
        **reading: Options of `read_image`, for example `channel_order`.

    Raises ImageError if the source cannot be read.
    """
    image = read_image(source, **reading)
    started = time.perf_counter()
    letterbox = input_size.letterbox(*image.shape[:2])
    pixels = letterbox.apply(image)
    path = Path(source) if isinstance(source, str | os.PathLike) else None
    return PreparedImage(pixels, letterbox, image, path, time.perf_counter() - started)
