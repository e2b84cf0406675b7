"""Chooses the tiles: from the setting, the size of the images, and the smallest defect of interest."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hyperspot.detector.settings import Settings
from hyperspot.errors import DataError, SettingsError
from hyperspot.images import InputSize
from hyperspot.images.geometry import LONGEST_TILED
from hyperspot.images.tiles import Tiling

DEFECT_PIXELS = 16
"""Input pixels across the smallest defect: two patches of the default method, whose grid has a stride of 8."""
WORTHWHILE = 1.5
"""Tiles are used if the input of the tiles has at least so many times the short side of the whole view."""
AUTO_ENLARGED = 2.0
"""Times that the short side of the input exceeds that of the whole view, at most, if no smallest defect is stated. More
pixels alone found less on screw: in tiles at four times the short side 32 %, at twice 68 %."""
AUTO_TILE = 512
"""Side of the tiles by `auto`: the larger the tiles, the less they overlap."""
LEAST_SIDE = 64
"""Short side of an input that is cut into tiles, at least."""
MULTIPLE = 32
"""A side that fits into one tile is rounded up to a multiple of it."""


@dataclass(frozen=True)
class TileChoice:
    """The tiling of a product, and what it costs.

    Attributes:
        tiling: None if the model sees each image whole.
        input_size: That every image is letterboxed to.
        scale: Image pixels per input pixel.

    """

    tiling: Tiling | None
    input_size: InputSize
    scale: float

    def describe(self) -> str:
        """Return one sentence on the choice and its cost.

        Examples:
            >>> from hyperspot.detector.settings import Settings
            >>> choose_tiles(Settings(tile=256), [(1024, 1024)] * 3).describe()  # doctest: +ELLIPSIS
            '36 tiles of 256 x 256 pixels per image, and the whole image, at 1 image...'
            >>> choose_tiles(Settings(), [(1024, 1024)] * 3).describe()
            'no tiles: each image is scaled to 256 x 256 pixels, 4 image pixels per input pixel'

        """
        pixels = f"{self.scale:.3g} image pixel{'' if self.scale == 1 else 's'} per"
        if self.tiling is None:
            height, width = self.input_size.height, self.input_size.width
            return f"no tiles: each image is scaled to {height} x {width} pixels, {pixels} input pixel"
        tiles, *whole = self.tiling.views
        seen = sum(len(view) * view.tile_height * view.tile_width for view in self.tiling.views)
        untiled = self.tiling.whole or self.input_size
        cost = seen / (untiled.height * untiled.width)
        return (
            f"{len(tiles)} tile{'' if len(tiles) == 1 else 's'} of {tiles.tile_height} x {tiles.tile_width} pixels per "
            f"image{', and the whole image' if whole else ''}, at {pixels} tile pixel: about {cost:.0f} times the time "
            "without tiles"
        )


def choose_tiles(settings: Settings, sizes: Sequence[tuple[int, int]]) -> TileChoice:
    """Return the tiling for images of these sizes, height and width in pixels.

    Raises:
        DataError: If there is no image, or the images are so long that the input would exceed the memory.
        SettingsError: If the images have fewer than 64 pixels at the scale of the tiles.

    """
    short = float(np.median([min(size) for size in sizes]))
    whole = _whole(settings, sizes)
    if whole is not None and not _is_tiled(settings, short):
        return TileChoice(None, whole, short / min(whole.height, whole.width))
    side = round(short / _scale(settings, short))
    if side < LEAST_SIDE:
        given = "--pixels-per-tile-pixel" if settings.smallest_defect is None else "--smallest-defect"
        raise SettingsError(
            f"the images are {side} pixels at the scale of the tiles, less than {LEAST_SIDE}; choose a smaller "
            f"{given}, or --tile off"
        )
    tile = settings.tile if isinstance(settings.tile, int) else AUTO_TILE
    exact = InputSize.for_sizes(sizes, side, settings.aspect, multiple=1, longest=LONGEST_TILED)
    input_size = InputSize(_rounded(exact.height, tile), _rounded(exact.width, tile), exact.fit)
    larger = whole is not None and min(input_size.height, input_size.width) > min(whole.height, whole.width)
    return TileChoice(Tiling(input_size, tile, whole if larger else None), input_size, short / side)


def _whole(settings: Settings, sizes: Sequence[tuple[int, int]]) -> InputSize | None:
    """Return the size of an input that is seen whole; None if the images are too long for it and tiles are allowed."""
    try:
        return InputSize.for_sizes(sizes, settings.short_side, settings.aspect)
    except DataError:
        if settings.tile == "off" or not sizes:
            raise
        return None


def _is_tiled(settings: Settings, short: float) -> bool:
    if settings.tile == "auto":
        return short / _scale(settings, short) >= WORTHWHILE * settings.short_side
    return settings.tile != "off"


def _scale(settings: Settings, short: float) -> float:
    """Return the image pixels per tile pixel: never enlarged."""
    if settings.pixels_per_tile_pixel is not None:
        return settings.pixels_per_tile_pixel
    if settings.smallest_defect is not None:
        return max(1.0, settings.smallest_defect / DEFECT_PIXELS)
    if settings.tile == "auto":
        return max(1.0, short / (AUTO_ENLARGED * settings.short_side))
    return 1.0


def _rounded(side: int, tile: int) -> int:
    return side if side > tile else min(tile, -(-side // MULTIPLE) * MULTIPLE)
