"""Several lightings of one view as one image: gray images become the channels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from hyperspot.errors import ImageError

if TYPE_CHECKING:
    from hyperspot.images.reading import ImageInput
else:
    from typing import Any as ImageInput

MOST = 3
"""Channels of an image."""


@dataclass(frozen=True, eq=False)
class Lightings:
    """Gray images of one view in two or three lightings; `read_image` returns them as the channels of one image.

    A defect that shows in one lighting alone changes the color of a pixel, and its brightness only in part. With two
    lightings, the channel between them is their mean, so that no lighting counts twice.

    Attributes:
        images: As `read_image` takes them, always in the same order; color is converted to gray.

    Examples:
        >>> from hyperspot.images import read_image
        >>> dark, bright = np.full((2, 4), 40, np.uint8), np.full((2, 4), 200, np.uint8)
        >>> read_image(Lightings((dark, bright)))[0, 0].tolist()
        [40, 120, 200]

    """

    images: tuple[ImageInput, ...]

    def __post_init__(self) -> None:
        """Raise ImageError unless there are two or three."""
        if not 2 <= len(self.images) <= MOST:
            raise ImageError(
                f"{len(self.images)} lightings are no channels of one image; give 2 or 3, or each as a view of its own"
            )


def stack(pixels: Sequence[UInt8[np.ndarray, "h w 3"]], names: str) -> UInt8[np.ndarray, "h w 3"]:
    """Return images as the channels of one; raises ImageError if their sizes differ.

    Args:
        pixels: Two or three images.
        names: Of the images, for the error.

    """
    gray = [np.asarray(Image.fromarray(one).convert("L")) for one in pixels]
    if len({one.shape for one in gray}) > 1:
        sizes = " and ".join(f"{one.shape[1]} x {one.shape[0]}" for one in gray)
        raise ImageError(f"the lightings {names} have {sizes} pixels; give images of one size")
    if len(gray) == 2:
        gray.insert(1, ((gray[0].astype(np.uint16) + gray[1] + 1) // 2).astype(np.uint8))
    return np.stack(gray, axis=2)
