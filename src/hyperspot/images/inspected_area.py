"""The part of an image that is inspected: region of interest and registration, in the pixels of a reference image."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Int, UInt8

from hyperspot.errors import SettingsError
from hyperspot.images.geometry import Letterbox
from hyperspot.images.reading import read_mask
from hyperspot.images.registration import FILL, Reference

Point = tuple[float, float]
Polygon = tuple[Point, ...]
"""Corners x, y, in pixels of the reference image; the last one joins the first."""


@dataclass(frozen=True, eq=False)
class InspectedArea:
    """Region of interest in product coordinates: pixels of a reference image, scaled to the size of any other image.

    Attributes:
        image_size: Width and height of the reference image, in pixels; None without polygons and without a mask.
        include: Polygons; only pixels in one of them count. Without polygons all pixels do.
        ignore: Polygons whose pixels do not count.
        runs: Run lengths of a mask of pixels that count, row by row, first of pixels that do not; None without a mask.
        reference: For registration: images are aligned to it before the polygons apply; None without registration.

    Examples:
        >>> area = InspectedArea((8, 4), include=(((0.0, 0.0), (4.0, 0.0), (4.0, 4.0), (0.0, 4.0)),))
        >>> area.mask(2, 4).tolist()
        [[True, True, False, False], [True, True, False, False]]

    """

    image_size: tuple[int, int] | None = None
    include: tuple[Polygon, ...] = ()
    ignore: tuple[Polygon, ...] = ()
    runs: tuple[int, ...] | None = None
    reference: Reference | None = None

    def __post_init__(self) -> None:
        """Raise SettingsError if a polygon or the mask is malformed."""
        check_polygons((*self.include, *self.ignore), self.image_size)
        if self.runs is not None:
            width, height = self.image_size or (0, 0)
            if min(self.runs, default=-1) < 0 or sum(self.runs) != width * height:
                raise SettingsError("the run lengths of the mask do not add up to its width times its height")

    @classmethod
    def from_mask(cls, mask: Bool[np.ndarray, "h w"]) -> "InspectedArea":
        """Return the region of interest of a mask: its set pixels count."""
        return cls(mask.shape[::-1], runs=tuple(map(int, run_lengths(mask))))

    @classmethod
    def read_mask(cls, path: Path) -> "InspectedArea":
        """Return the region of interest of a mask image: its pixels that are not black count; raises ImageError."""
        return cls.from_mask(read_mask(path))

    @property
    def is_limited(self) -> bool:
        """Whether some pixels do not count."""
        return bool(self.include or self.ignore or self.runs is not None)

    def mask(self, height: int, width: int) -> Bool[np.ndarray, "h w"] | None:
        """Return the pixels that count, at any size; None if all do. The array is shared and read-only.

        Raises SettingsError if no pixel counts.
        """
        return _mask(self, height, width) if self.is_limited else None

    def input_mask(self, letterbox: Letterbox) -> Bool[np.ndarray, "H W"] | None:
        """Return the pixels of the input that count, without padding; None if all inside the image do."""
        return _input_mask(self, letterbox) if self.is_limited else None


def fill_outside(image: UInt8[np.ndarray, "h w 3"], inside: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Return a copy whose pixels outside have one constant color, so that no model sees them."""
    filled = np.full_like(image, FILL)
    np.copyto(filled, image, where=inside[..., None])
    return filled


def rasterize(
    polygons: Sequence[Polygon], image_size: tuple[int, int], height: int, width: int
) -> Bool[np.ndarray, "h w"]:
    """Return the pixels whose centers lie in one of the polygons, scaled from the reference image to a size.

    Crossing edges follow the even-odd rule.

    Examples:
        >>> rasterize([((0.0, 0.0), (2.0, 0.0), (2.0, 4.0), (0.0, 4.0))], (4, 4), height=1, width=4)
        array([[ True,  True, False, False]])

    """
    inside = np.zeros((height, width), dtype=bool)
    scale = np.array([width / image_size[0], height / image_size[1]])
    for polygon in polygons:
        corners = np.asarray(polygon, dtype=np.float64) * scale
        # Each crossing of an edge with the center line of a row toggles all pixels to its right.
        toggles = np.zeros((height, width + 1), dtype=np.uint8)
        for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
            first, last = np.clip(np.ceil(np.sort([y0, y1]) - 0.5), 0, height).astype(int)
            if first < last:
                rows = np.arange(first, last)
                crossings = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
                np.bitwise_xor.at(toggles, (rows, np.clip(np.ceil(crossings - 0.5), 0, width).astype(int)), 1)
        inside |= np.bitwise_xor.accumulate(toggles, axis=1)[:, :width].astype(bool)
    return inside


def check_polygons(polygons: Sequence[Polygon], image_size: tuple[int, int] | None) -> None:
    """Raise SettingsError unless all polygons have three corners or more, and the size that they refer to is known."""
    if image_size is not None and min(image_size) < 1:
        raise SettingsError("the image size of a region of interest is not positive; give width and height in pixels")
    if polygons and image_size is None:
        raise SettingsError("polygons need the size of the image that they are drawn on; give its width and height")
    for polygon in polygons:
        if len(polygon) < 3 or not np.isfinite(np.asarray(polygon, dtype=np.float64)).all():
            raise SettingsError("a polygon has fewer than three corners or a corner that is not a finite number")


def run_lengths(mask: Bool[np.ndarray, "h w"]) -> Int[np.ndarray, "_runs"]:
    """Return the lengths of runs of equal pixels, row by row, the first of unset pixels.

    Examples:
        >>> run_lengths(np.array([[True, True, False], [False, True, True]]))
        array([0, 2, 2, 2])

    """
    edges = np.flatnonzero(np.diff(mask.ravel(), prepend=False))
    return np.diff(edges, prepend=0, append=mask.size)


@functools.lru_cache(maxsize=4)
def _mask(area: InspectedArea, height: int, width: int) -> Bool[np.ndarray, "h w"]:
    assert area.image_size is not None
    inside = np.ones((height, width), dtype=bool)
    if area.runs is not None:
        columns, rows = area.image_size
        own = np.repeat(np.arange(len(area.runs)) % 2 == 1, area.runs).reshape(rows, columns)
        nearest = [((np.arange(n) + 0.5) * (old / n)).astype(int) for n, old in ((height, rows), (width, columns))]
        inside &= own[np.ix_(*nearest)]
    if area.include:
        inside &= rasterize(area.include, area.image_size, height, width)
    if area.ignore:
        inside &= ~rasterize(area.ignore, area.image_size, height, width)
    if not inside.any():
        raise SettingsError(f"the region of interest has no pixel of an image of {width} x {height}; draw it again")
    inside.flags.writeable = False
    return inside


@functools.lru_cache(maxsize=16)
def _input_mask(area: InspectedArea, letterbox: Letterbox) -> Bool[np.ndarray, "H W"]:
    inside = np.zeros((letterbox.input_size.height, letterbox.input_size.width), dtype=bool)
    inside[letterbox.content] = _mask(area, letterbox.content_height, letterbox.content_width)
    inside.flags.writeable = False
    return inside
