"""Where a photo lies in the common frame, and the exact way back to its own pixels."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from hyperspot.errors import DataError, ImageError
from hyperspot.images.reading import resize

STRETCH_TOLERANCE = 1 / 16
"""Relative difference of aspect ratio that is stretched away: what rounding the long side of a frame of 256
pixels to a multiple of 32 can cost, so that photos of the usual shape never get a border."""
LONGEST = 8192
"""Of the frame's sides, in pixels: what a longer one needs in memory grows with its square."""
CENTRAL = 224 / 256
"""The papers' central crop."""
ROWS = 64
"""Of a map made at a time: to be given the memory for a whole one takes longer than to compute it."""
EVERYTHING = slice(None)


@dataclass(frozen=True)
class InputSize:
    """The size all photos are brought to.

    Attributes:
        height: In pixels.
        width: In pixels.
        fit: `stretch` scales each side by itself; `contain` keeps the aspect ratio of a photo that is shaped
            otherwise, centers it and repeats its edges up to the border of the frame.

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
    ) -> "InputSize":
        """Return the frame for photos of these sizes.

        Args:
            sizes: Height and width of each good photo, in pixels.
            short_side: Of the frame, in pixels.
            aspect: `square` stretches every photo to a square, as the papers do; `keep` gives the frame the median
                aspect ratio of the photos.
            multiple: The long side is rounded to one of these.

        Raises:
            DataError: Where there is no size, or the photos are so long that the frame would not fit into memory.

        """
        if not sizes:
            raise DataError("there is no photo to take the size of the frame from; give at least one")
        if aspect == "square":
            return cls(short_side, short_side, "stretch")
        ratio = math.exp(float(np.median([math.log(width / height) for height, width in sizes])))
        long_side = max(short_side, round(short_side * max(ratio, 1 / ratio) / multiple) * multiple)
        if long_side > LONGEST:
            raise DataError(
                f"the photos are {max(ratio, 1 / ratio):.0f} times as long as they are wide, which a short side of "
                f"{short_side} pixels makes {long_side} long, more than {LONGEST}; cut them into pieces, choose a "
                "smaller --short-side or --aspect square"
            )
        return cls(short_side, long_side, "contain") if ratio > 1 else cls(long_side, short_side, "contain")

    def letterbox(self, height: int, width: int) -> "Letterbox":
        """Return how a photo of this size lies in the frame."""
        ratio = (width / height) / (self.width / self.height)
        if self.fit == "stretch" or max(ratio, 1 / ratio) <= 1 + STRETCH_TOLERANCE:
            return Letterbox(self, height, width, 0, 0, self.height, self.width)
        scale = min(self.height / height, self.width / width)
        content_height = min(self.height, max(1, round(height * scale)))
        content_width = min(self.width, max(1, round(width * scale)))
        top, left = (self.height - content_height) // 2, (self.width - content_width) // 2
        return Letterbox(self, height, width, top, left, content_height, content_width)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields under their names."""
        return dict(self.__dict__)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "InputSize":
        """Return the frame that `to_dict` described; raises TypeError or ValueError where it is none."""
        frame = cls(**fields)
        sides = (frame.height, frame.width)
        whole = all(isinstance(side, int) and 1 <= side <= LONGEST for side in sides)
        if not whole or frame.fit not in ("stretch", "contain"):
            raise ValueError(f"{fields} is no frame")
        return frame


@dataclass(frozen=True)
class Letterbox:
    """How a photo of `height` x `width` pixels lies in the frame: scaled to the content, which starts at top, left."""

    input_size: InputSize
    height: int
    width: int
    top: int
    left: int
    content_height: int
    content_width: int

    @property
    def content(self) -> tuple[slice, slice]:
        """Return the rows and columns of the frame that show the photo itself."""
        return (
            slice(self.top, self.top + self.content_height),
            slice(self.left, self.left + self.content_width),
        )

    def apply(self, image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """Scale a photo into the frame; raises ImageError where it has not the size of this placement."""
        self._check("photo", image.shape[:2], (self.height, self.width))
        content = resize(image, self.content_height, self.content_width)
        if content.shape[:2] == (self.input_size.height, self.input_size.width):
            return content
        bottom = self.input_size.height - self.top - self.content_height
        right = self.input_size.width - self.left - self.content_width
        return np.pad(content, ((self.top, bottom), (self.left, right), (0, 0)), mode="edge")

    def apply_to_mask(self, mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "H W"]:
        """Scale a mask into the frame: true where at least half of a frame's pixel is covered.

        Raises ImageError where the mask has not the size of this placement.
        """
        self._check("mask", mask.shape, (self.height, self.width))
        framed = np.zeros((self.input_size.height, self.input_size.width), dtype=bool)
        if mask.any():
            narrow = np.ascontiguousarray(_area_mean(mask, self.content_width).T)
            framed[self.content] = _area_mean(narrow, self.content_height).T >= 0.5 - 1e-9
        return framed

    def invert(self, heatmap: Float[np.ndarray, "H W"]) -> Float32[np.ndarray, "h w"]:
        """Bring a map of the frame back to the pixels of the photo.

        Bilinear between the centers of pixels, without the border of the frame; the geometry is the exact inverse of
        `apply`. Raises ImageError where the map has not the size of the frame.
        """
        self._check("map", heatmap.shape, (self.input_size.height, self.input_size.width))
        content = np.asarray(heatmap[self.content], dtype=np.float32)
        # The smaller intermediate result first: the last step costs the most.
        return _bilinear(_bilinear(content, self.width, axis=1), self.height)

    def _check(self, what: str, given: tuple[int, ...], expected: tuple[int, int]) -> None:
        if tuple(given) != expected:
            raise ImageError(
                f"a {what} of {given[0]} x {given[1]} pixels (height x width) was given where "
                f"{expected[0]} x {expected[1]} were expected; place it by its own size"
            )


@dataclass(frozen=True)
class Crop:
    """The part of the frame that a model sees, in pixels of the frame."""

    top: int
    left: int
    height: int
    width: int

    @classmethod
    def full(cls, frame: InputSize) -> "Crop":
        """Return the view of the whole frame."""
        return cls(0, 0, frame.height, frame.width)

    @classmethod
    def central(cls, frame: InputSize, fraction: float = CENTRAL) -> "Crop":
        """Return the centered view of a fraction of each side, rounded to a multiple of 8 (224 of 256)."""
        height = min(frame.height, max(8, round(frame.height * fraction / 8) * 8))
        width = min(frame.width, max(8, round(frame.width * fraction / 8) * 8))
        return cls((frame.height - height) // 2, (frame.width - width) // 2, height, width)


def _bilinear(values: Float32[np.ndarray, "h w"], length: int, axis: int = 0) -> Float32[np.ndarray, "_h _w"]:
    """Resample one axis between the centers of pixels; beyond the outermost centers the edge is repeated."""
    old = values.shape[axis]
    if old == length:
        return values.copy()
    place = np.clip((np.arange(length) + 0.5) * (old / length) - 0.5, 0, old - 1)
    first = place.astype(np.intp)
    second = np.minimum(first + 1, old - 1)
    share = (place - first).astype(np.float32)
    result = np.empty((length, values.shape[1]) if axis == 0 else (len(values), length), np.float32)
    room = np.empty((ROWS, result.shape[1]), np.float32)
    for start in range(0, len(result), ROWS):
        rows = slice(start, start + ROWS)
        lower = result[rows]
        upper = room[: len(lower)]
        source, along = (values, rows) if axis == 0 else (values[rows], EVERYTHING)
        # Clipping changes nothing, and saves numpy a copy that it makes where a mistake would have to be undone.
        source.take(first[along], axis, out=lower, mode="clip")
        source.take(second[along], axis, out=upper, mode="clip")
        upper -= lower
        upper *= share[rows, None] if axis == 0 else share
        lower += upper
    return result


def _area_mean(values: np.ndarray, length: int) -> Float[np.ndarray, "_h _w"]:
    """Resample the columns so that every new pixel is the mean of the area it covers."""
    old = values.shape[1]
    # Whole numbers for masks: they add up faster than fractions, and exactly.
    total = np.zeros((values.shape[0], old + 1), dtype=np.int32 if values.dtype == np.bool_ else np.float64)
    np.cumsum(values, axis=1, dtype=total.dtype, out=total[:, 1:])
    edges = np.arange(length + 1) * (old / length)
    first = np.minimum(edges.astype(np.intp), old - 1)
    share = edges - first
    at_edges = total[:, first] * (1 - share) + total[:, first + 1] * share
    mean: Float[np.ndarray, "_h _w"] = np.diff(at_edges, axis=1) * (length / old)
    return mean
