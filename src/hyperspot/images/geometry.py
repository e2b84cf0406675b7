"""Input size, letterbox with its exact inverse, and crops."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from hyperspot.errors import DataError, ImageError
from hyperspot.images.resampling import EVERYTHING, Taps, area_mean, bilinear, bilinear_taps, resize

STRETCH_TOLERANCE = 1 / 16
"""Relative difference of aspect ratios that is stretched instead of padded: the error of rounding the long side of an
input size of 256 pixels to a multiple of 32, so that images of the median shape are never padded."""
LONGEST = 8192
"""Limit of the sides of an input that the model sees whole, in pixels: memory grows with their square."""
LONGEST_TILED = 65_536
"""Limit of the sides of an input that is cut into tiles, in pixels."""
LARGE = 8_000_000
"""Pixels of an input above which images are read and run one by one: several would not fit in memory."""
CENTRAL = 224 / 256
"""Side of the papers' center crop, as a fraction of the image's."""


@dataclass(frozen=True)
class InputSize:
    """The size all images are scaled to.

    Attributes:
        height: In pixels.
        width: In pixels.
        fit: `stretch` scales each side independently; `contain` keeps the aspect ratio, centers the image and pads it
            by repeating its edges (a letterbox).

    Examples:
        >>> from hyperspot.images import InputSize
        >>> InputSize.for_sizes([(480, 640)], short_side=256)
        InputSize(height=256, width=352, fit='contain')

    """

    height: int
    width: int
    fit: Literal["stretch", "contain"]

    @classmethod
    def for_sizes(
        cls,
        sizes: Sequence[tuple[int, int]],
        short_side: int = 256,
        aspect: Literal["keep", "square"] = "keep",
        multiple: int = 32,
        longest: int = LONGEST,
    ) -> "InputSize":
        """Return the input size for images of these sizes.

        Args:
            sizes: Height and width of each good image, in pixels.
            short_side: Short side of the input size, in pixels.
            aspect: `keep` takes the median aspect ratio of the images; `square` stretches every image to a square, as
                the papers do.
            multiple: The long side is rounded to a multiple of it.
            longest: Limit of the long side, in pixels.

        Raises:
            DataError: `sizes` is empty, or the images are so long that the input size would exceed the memory.

        """
        if not sizes:
            raise DataError("there is no image to take the input size from; give at least one")
        if aspect == "square":
            return cls(short_side, short_side, "stretch")
        ratio = math.exp(float(np.median([math.log(width / height) for height, width in sizes])))
        long_side = max(short_side, round(short_side * max(ratio, 1 / ratio) / multiple) * multiple)
        if long_side > longest:
            raise DataError(
                f"the images are {max(ratio, 1 / ratio):.0f} times as long as they are wide: a short side of "
                f"{short_side} pixels makes the long side {long_side}, more than {longest}; choose --tile auto, a "
                "smaller --short-side or --aspect square"
            )
        return cls(short_side, long_side, "contain") if ratio > 1 else cls(long_side, short_side, "contain")

    @property
    def is_large(self) -> bool:
        """Whether images of this size are read and run one by one."""
        return self.height * self.width > LARGE

    def letterbox(self, height: int, width: int) -> "Letterbox":
        """Return the letterbox of an image of this height and width, in pixels.

        Examples:
            >>> InputSize(64, 64, "contain").letterbox(100, 200).content
            (slice(16, 48, None), slice(0, 64, None))

        """
        ratio = (width / height) / (self.width / self.height)
        if self.fit == "stretch" or max(ratio, 1 / ratio) <= 1 + STRETCH_TOLERANCE:
            return Letterbox(self, height, width, 0, 0, self.height, self.width)
        scale = min(self.height / height, self.width / width)
        content_height = min(self.height, max(1, round(height * scale)))
        content_width = min(self.width, max(1, round(width * scale)))
        top, left = (self.height - content_height) // 2, (self.width - content_width) // 2
        return Letterbox(self, height, width, top, left, content_height, content_width)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return dict(self.__dict__)

    @classmethod
    def from_dict(cls, fields: dict[str, Any], longest: int = LONGEST) -> "InputSize":
        """Return the input size `to_dict` described; raises TypeError or ValueError if the fields are malformed."""
        input_size = cls(**fields)
        sides = (input_size.height, input_size.width)
        whole = all(isinstance(side, int) and 1 <= side <= longest for side in sides)
        if not whole or input_size.fit not in ("stretch", "contain"):
            raise ValueError(f"{fields} is no input size")
        return input_size


@dataclass(frozen=True)
class Letterbox:
    """Maps an image of `height` x `width` pixels to the input size, and heatmaps back to the image.

    Attributes:
        input_size: The size of the result.
        height: Of the image, in pixels.
        width: Of the image, in pixels.
        top: First row of the content, in pixels of the input size; the rows above are padding.
        left: First column of the content.
        content_height: Height of the scaled image within the input size.
        content_width: Width of the scaled image within the input size.

    Examples:
        >>> import numpy as np
        >>> from hyperspot.images import InputSize
        >>> letterbox = InputSize(64, 64, "contain").letterbox(100, 200)
        >>> letterbox.apply(np.zeros((100, 200, 3), np.uint8)).shape
        (64, 64, 3)
        >>> letterbox.invert(np.zeros((64, 64), np.float32)).shape
        (100, 200)

    """

    input_size: InputSize
    height: int
    width: int
    top: int
    left: int
    content_height: int
    content_width: int

    @property
    def content(self) -> tuple[slice, slice]:
        """Rows and columns of the input size that show the image, without padding."""
        return (
            slice(self.top, self.top + self.content_height),
            slice(self.left, self.left + self.content_width),
        )

    def apply(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """Scale and pad an image to the input size; an image of that size is returned itself.

        Raises ImageError if it has another size than the letterbox.
        """
        self._check("image", image.shape[:2], (self.height, self.width))
        if image.shape[:2] == (self.input_size.height, self.input_size.width):
            return image
        content = resize(image, self.content_height, self.content_width)
        if content.shape[:2] == (self.input_size.height, self.input_size.width):
            return content
        bottom = self.input_size.height - self.top - self.content_height
        right = self.input_size.width - self.left - self.content_width
        return np.pad(content, ((self.top, bottom), (self.left, right), (0, 0)), mode="edge")

    def apply_to_mask(self, mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "H W"]:
        """Scale a mask to the input size: true where at least half of the area of a pixel is covered.

        Raises ImageError if the mask has another size than the letterbox.
        """
        self._check("mask", mask.shape, (self.height, self.width))
        scaled = np.zeros((self.input_size.height, self.input_size.width), dtype=bool)
        if mask.any():
            narrow = np.ascontiguousarray(area_mean(mask, self.content_width).T)
            scaled[self.content] = area_mean(narrow, self.content_height).T >= 0.5 - 1e-9
        return scaled

    def invert(
        self, heatmap: Float[np.ndarray, "H W"], rows: slice = EVERYTHING, columns: slice = EVERYTHING
    ) -> Float32[np.ndarray, "_h _w"]:
        """Scale a heatmap of the input size back to the pixels of the image, without the padding.

        Bilinear between the centers of pixels; the geometry is the exact inverse of `apply`. A part has the values that
        the whole would have there.

        Args:
            heatmap: At the input size.
            rows: Of the image; default: all.
            columns: Of the image; default: all.

        Raises:
            ImageError: If the heatmap has another size than the input size.

        Examples:
            >>> import numpy as np
            >>> from hyperspot.images import InputSize
            >>> letterbox = InputSize(2, 2, "stretch").letterbox(4, 4)
            >>> letterbox.invert(np.array([[0.0, 1.0], [2.0, 3.0]]), rows=slice(1, 2)).tolist()
            [[0.5, 0.75, 1.25, 1.5]]

        """
        self._check("heatmap", heatmap.shape, (self.input_size.height, self.input_size.width))
        down = bilinear_taps(self.content_height, self.height, rows)
        across = bilinear_taps(self.content_width, self.width, columns)
        if not len(down.first):
            return np.empty((0, len(across.first)), np.float32)
        top = int(down.first[0])
        content = np.asarray(heatmap[self.content][top : int(down.second[-1]) + 1], dtype=np.float32)
        # The smaller intermediate result first: the last step costs the most.
        inverted = bilinear(bilinear(content, across, axis=1), Taps(down.first - top, down.second - top, down.share))
        return inverted.copy() if np.may_share_memory(inverted, heatmap) else inverted

    def box_above(self, heatmap: Float[np.ndarray, "H W"], level: float) -> tuple[slice, slice] | None:
        """Return rows and columns of the image outside of which the inverted heatmap is at most `level`, if any.

        The box is found at the input size, so that only its pixels need be computed.

        Args:
            heatmap: At the input size.
            level: Excluded.

        Examples:
            >>> import numpy as np
            >>> from hyperspot.images import InputSize
            >>> heatmap = np.zeros((8, 8))
            >>> heatmap[4, 1] = 1.0
            >>> InputSize(8, 8, "stretch").letterbox(80, 80).box_above(heatmap, 0.5)
            (slice(35, 55, None), slice(5, 25, None))

        """
        above: Bool[np.ndarray, "_h _w"] = heatmap[self.content] > level
        if not above.any():
            return None
        return _reach(np.any(above, axis=1), self.height), _reach(np.any(above, axis=0), self.width)

    def _check(self, kind: str, given: tuple[int, ...], expected: tuple[int, int]) -> None:
        if tuple(given) != expected:
            article = "an" if kind == "image" else "a"
            raise ImageError(
                f"{article} {kind} of {given[0]} x {given[1]} pixels (height x width) was given, {expected[0]} x "
                f"{expected[1]} were expected; use the letterbox of its size"
            )


def _reach(set_places: Bool[np.ndarray, "_old"], new: int) -> slice:
    """Return the part of an axis resampled bilinearly to `new` places that depends on the set ones."""
    places, scale = np.flatnonzero(set_places), new / len(set_places)
    # A value reaches to the center of its neighbor; the edge is repeated beyond the outermost centers.
    first = math.floor((int(places[0]) - 0.5) * scale)
    last = math.ceil((int(places[-1]) + 1.5) * scale)
    return slice(max(0, first), min(new, last))


@dataclass(frozen=True)
class Crop:
    """The part of the input size a model sees, in pixels.

    Attributes:
        top: First row.
        left: First column.
        height: Number of rows.
        width: Number of columns.

    Examples:
        >>> from hyperspot.images import Crop, InputSize
        >>> Crop.central(InputSize(256, 256, "stretch"))
        Crop(top=16, left=16, height=224, width=224)
        >>> Crop.full(InputSize(256, 352, "contain"))
        Crop(top=0, left=0, height=256, width=352)

    """

    top: int
    left: int
    height: int
    width: int

    @classmethod
    def full(cls, input_size: InputSize) -> "Crop":
        """Return the crop of the whole input size."""
        return cls(0, 0, input_size.height, input_size.width)

    @classmethod
    def central(cls, input_size: InputSize, fraction: float = CENTRAL) -> "Crop":
        """Return the center crop: a fraction of each side, rounded to a multiple of 8 (224 of 256)."""
        height = min(input_size.height, max(8, round(input_size.height * fraction / 8) * 8))
        width = min(input_size.width, max(8, round(input_size.width * fraction / 8) * 8))
        return cls((input_size.height - height) // 2, (input_size.width - width) // 2, height, width)
