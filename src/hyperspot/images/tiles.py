"""Cuts an input into overlapping tiles, and blends their anomaly maps without seams."""

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from hyperspot.images.geometry import LONGEST_TILED, InputSize
from hyperspot.images.reading import MAX_PIXELS
from hyperspot.images.resampling import bilinear, bilinear_taps, resize

Run = Callable[[UInt8[np.ndarray, "b h w 3"]], tuple[Float32[np.ndarray, "b h w"], Float32[np.ndarray, "b"] | None]]
"""Runs a model on tiles: 8-bit RGB to anomaly maps and, if the method has its own, image scores."""
Scored = tuple[Float32[np.ndarray, "h w"], float | None]
"""Anomaly map and image score of a tile."""

TILE_BATCH = 8
"""Tiles that run together: the memory of the model does not grow with the image."""
SMALLEST_TILE, LARGEST_TILE = 64, 2048
"""Sides of a tile."""
BAND = 64
"""Rows of a large map that are computed at a time."""
MARGIN = 32
"""Pixels at a border between tiles, at most an eighth of the tile, that count nothing: the backbone sees padding there.
As many more count less, the nearer to the border."""


@dataclass(frozen=True)
class TileGrid:
    """Overlapping tiles of one size that cover an input.

    Attributes:
        height: Of the input, in pixels.
        width: Of the input, in pixels.
        tile_height: Of each tile.
        tile_width: Of each tile.
        tops: First row of each row of tiles.
        lefts: First column of each column of tiles.

    Examples:
        >>> import numpy as np
        >>> grid = TileGrid.covering(100, 160, 64)
        >>> grid.tops, grid.lefts, len(grid)
        ((0, 36), (0, 32, 64, 96), 8)
        >>> image = np.random.default_rng(0).integers(0, 256, (100, 160, 3), dtype=np.uint8)
        >>> tiles = np.concatenate(list(grid.batches(image)))
        >>> tiles.shape
        (8, 64, 64, 3)
        >>> blended = grid.blend(iter(tiles[..., 0].astype(np.float32)))
        >>> bool(np.allclose(blended, image[..., 0], atol=1e-4))
        True

    """

    height: int
    width: int
    tile_height: int
    tile_width: int
    tops: tuple[int, ...]
    lefts: tuple[int, ...]

    @property
    def tile_size(self) -> InputSize:
        """The size of every tile."""
        return InputSize(self.tile_height, self.tile_width, "stretch")

    @classmethod
    def covering(cls, height: int, width: int, tile: int) -> "TileGrid":
        """Return the smallest evenly spaced grid whose tiles overlap by at least three margins.

        Args:
            height: Of the input.
            width: Of the input.
            tile: Side of the tiles; shorter along a side of the input that is shorter.

        """
        tile_height, tile_width = min(tile, height), min(tile, width)
        return cls(height, width, tile_height, tile_width, _starts(height, tile_height), _starts(width, tile_width))

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.tops) * len(self.lefts)

    def batches(self, image: UInt8[np.ndarray, "H W 3"]) -> Iterator[UInt8[np.ndarray, "_b h w 3"]]:
        """Yield the tiles of an image, scaled to the grid, row by row in batches of at most `TILE_BATCH`."""
        image = image if image.shape[:2] == (self.height, self.width) else resize(image, self.height, self.width)
        tiles = list(self._corners)
        for start in range(0, len(tiles), TILE_BATCH):
            yield np.stack(
                [
                    image[top : top + self.tile_height, left : left + self.tile_width]
                    for top, left in tiles[start : start + TILE_BATCH]
                ]
            )

    def blend(self, maps: Iterable[Float32[np.ndarray, "h w"]]) -> Float32[np.ndarray, "H W"]:
        """Return the anomaly map of the input from those of its tiles, given row by row.

        Where tiles overlap, the weight of each falls linearly to zero and stays zero for `MARGIN` pixels at its border,
        so that neither seams nor the borders of tiles are visible. The weights of a pixel add up to 1.
        """
        blended = np.zeros((self.height, self.width), np.float32)
        rows, columns = self._weights
        for number, ((top, left), one) in enumerate(zip(self._corners, maps, strict=True)):
            row, column = divmod(number, len(self.lefts))
            weighted = one * columns[column]
            weighted *= rows[row][:, None]
            blended[top : top + self.tile_height, left : left + self.tile_width] += weighted
        return blended

    @property
    def _corners(self) -> Iterator[tuple[int, int]]:
        return ((top, left) for top in self.tops for left in self.lefts)

    @cached_property
    def _weights(self) -> tuple[list[Float32[np.ndarray, "h"]], list[Float32[np.ndarray, "w"]]]:
        return (
            _axis_weights(self.tops, self.tile_height, self.height),
            _axis_weights(self.lefts, self.tile_width, self.width),
        )


def _margin(tile: int) -> int:
    return min(MARGIN, tile // 8)


def _starts(length: int, tile: int) -> tuple[int, ...]:
    if length == tile:
        return (0,)
    overlap = 3 * _margin(tile)
    count = max(2, -(-(length - overlap) // (tile - overlap)))
    return tuple(round(number * (length - tile) / (count - 1)) for number in range(count))


def _axis_weights(starts: Sequence[int], tile: int, length: int) -> list[Float32[np.ndarray, "tile"]]:
    """Return the weights of each tile along one axis: ramps over its overlaps, normalized to a sum of 1 per pixel."""
    place, margin = np.arange(tile) + 0.5, _margin(tile)
    weights = []
    for number, start in enumerate(starts):
        weight = np.ones(tile)
        if number > 0:
            ramp = starts[number - 1] + tile - start - 2 * margin
            weight = np.minimum(weight, np.clip((place - margin) / ramp, 0, 1))
        if number + 1 < len(starts):
            ramp = start + tile - starts[number + 1] - 2 * margin
            weight = np.minimum(weight, np.clip((tile - margin - place) / ramp, 0, 1))
        weights.append(weight)
    total = np.zeros(length)
    for start, weight in zip(starts, weights, strict=True):
        total[start : start + tile] += weight
    return [
        (weight / total[start : start + tile]).astype(np.float32) for start, weight in zip(starts, weights, strict=True)
    ]


@dataclass(frozen=True)
class ViewStats:
    """Mean and standard deviation, over good images, of the anomaly map and of the image score of a view."""

    map_mean: float = 0.0
    map_deviation: float = 1.0
    score_mean: float = 0.0
    score_deviation: float = 1.0


@dataclass(frozen=True)
class Tiling:
    """The views of an image, each with a model of its own, and how their anomaly maps become that of the image.

    The first view is the input, cut into tiles. The second is the whole image at a smaller size, so that a missing or
    misplaced part, larger than a tile, is found too. The anomaly map is the mean of the two, each standardized over
    good images.

    Attributes:
        input_size: The image is letterboxed to it.
        tile: Side of the tiles, in input pixels.
        whole: Size of the second view; None if there is one view.
        stats: Of the views.

    Examples:
        >>> import numpy as np
        >>> tiling = Tiling(InputSize(128, 192, "stretch"), 64, InputSize(64, 96, "stretch"))
        >>> [(view.height, view.width, len(view)) for view in tiling.views]
        [(128, 192, 15), (64, 96, 1)]
        >>> def darkness(tiles):
        ...     return (255 - tiles.mean(axis=3)).astype(np.float32), None
        >>> image = np.full((1, 128, 192, 3), 255, np.uint8)
        >>> image[:, 40:50, 100:110] = 0
        >>> maps, scores = tiling.run(image, [darkness, darkness])
        >>> maps.shape, float(maps[0, 45, 105]), scores
        ((1, 128, 192), 255.0, None)

    """

    input_size: InputSize
    tile: int
    whole: InputSize | None = None
    stats: tuple[ViewStats, ...] = ()

    @cached_property
    def views(self) -> tuple[TileGrid, ...]:
        """The grid of the input, and a single tile of the whole image."""
        tiles = TileGrid.covering(self.input_size.height, self.input_size.width, self.tile)
        if self.whole is None:
            return (tiles,)
        height, width = self.whole.height, self.whole.width
        return tiles, TileGrid.covering(height, width, max(height, width))

    def __len__(self) -> int:
        """Return the number of tiles of all views together."""
        return sum(map(len, self.views))

    def run(
        self, images: UInt8[np.ndarray, "b H W 3"], models: Sequence[Run]
    ) -> tuple[Float32[np.ndarray, "b H W"], Float32[np.ndarray, "b"] | None]:
        """Return the anomaly maps, and the image scores if the method has its own.

        Args:
            images: At the input size.
            models: Of the views.

        """
        results = [
            self.assemble(
                [scored_tiles(map(model, view.batches(image))) for view, model in zip(self.views, models, strict=True)]
            )
            for image in images
        ]
        scores = [score for _, score in results if score is not None]
        # No copy of the map of a single large image.
        maps = results[0][0][None] if len(results) == 1 else np.stack([found for found, _ in results])
        return maps, np.array(scores, np.float32) if scores else None

    def assemble(self, tiles: Sequence[Iterator[Scored]]) -> tuple[Float32[np.ndarray, "H W"], float | None]:
        """Return the anomaly map and the image score of an image from those of its tiles, for each view row by row.

        The image score is the highest of its tiles, standardized per view.
        """
        fused: Float32[np.ndarray, "H W"] | None = None
        highest: list[float] = []
        stats = self.stats or (ViewStats(),) * len(self.views)
        for view, of_view, found in zip(self.views, stats, tiles, strict=True):
            own: list[float] = []
            blended = view.blend(_noting(itertools.islice(found, len(view)), own))
            if own:
                highest.append((max(own) - of_view.score_mean) / of_view.score_deviation)
            if len(self.views) > 1:
                blended -= of_view.map_mean
                blended /= of_view.map_deviation * len(self.views)
            if fused is None:
                fused = blended
            else:
                _add_scaled(fused, blended)
        assert fused is not None
        return fused, max(highest) if highest else None

    def with_stats(self, tiles: Sequence[Iterator[Scored]]) -> "Tiling":
        """Return the tiling with the statistics of its views over the tiles of good images, for each view."""
        stats = [_view_stats(found, len(view)) for view, found in zip(self.views, tiles, strict=True)]
        return replace(self, stats=tuple(stats))

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, as JSON values."""
        return {
            "input_size": self.input_size.to_dict(),
            "tile": self.tile,
            "whole": None if self.whole is None else self.whole.to_dict(),
            "stats": [dict(vars(one)) for one in self.stats],
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> "Tiling":
        """Return the tiling that `to_dict` described; raises KeyError, TypeError or ValueError if it is malformed."""
        tiling = cls(
            InputSize.from_dict(fields["input_size"], LONGEST_TILED),
            int(fields["tile"]),
            None if fields["whole"] is None else InputSize.from_dict(fields["whole"]),
            tuple(ViewStats(**{name: float(value) for name, value in one.items()}) for one in fields["stats"]),
        )
        pixels = tiling.input_size.height * tiling.input_size.width
        finite = all(math.isfinite(value) for one in tiling.stats for value in vars(one).values())
        positive = all(one.map_deviation > 0 and one.score_deviation > 0 for one in tiling.stats)
        bounded = SMALLEST_TILE <= tiling.tile <= LARGEST_TILE and pixels <= MAX_PIXELS
        if not bounded or len(tiling.stats) != len(tiling.views) or not (finite and positive):
            raise ValueError(f"{fields} is no tiling")
        return tiling


def _noting(tiles: Iterable[Scored], scores: list[float]) -> Iterator[Float32[np.ndarray, "h w"]]:
    """Yield the maps of tiles one by one, and append their scores to a list."""
    for one, score in tiles:
        if score is not None:
            scores.append(score)
        yield one


def _view_stats(tiles: Iterator[Scored], per_image: int) -> ViewStats:
    """Return the statistics over all map values, and over the highest image score of the tiles of each image.

    The deviation of a constant is 1.
    """
    count, total, squares = 0, 0.0, 0.0
    scores: list[float | None] = []
    for one, score in tiles:
        count += one.size
        total += float(one.sum(dtype=np.float64))
        squares += float(np.square(one, dtype=np.float64).sum())
        scores.append(score)
    mean = total / count
    deviation = max(squares / count - mean**2, 0.0) ** 0.5 or 1.0
    own = [score for score in scores if score is not None]
    if not own:
        return ViewStats(mean, deviation)
    highest = np.reshape(own, (-1, per_image)).max(axis=1)
    return ViewStats(mean, deviation, float(highest.mean()), float(highest.std()) or 1.0)


def scored_tiles(
    results: Iterable[tuple[Float32[np.ndarray, "_b h w"], Float32[np.ndarray, "_b"] | None]],
) -> Iterator[Scored]:
    """Yield the anomaly map and the image score of each tile from the results of a model on batches."""
    for maps, scores in results:
        for number, one in enumerate(maps):
            yield one, None if scores is None else float(scores[number])


def _add_scaled(total: Float32[np.ndarray, "H W"], coarse: Float32[np.ndarray, "_h _w"]) -> None:
    """Add a coarse map to a fine one in place, in bands of rows: no map of the full size is made."""
    wide = bilinear(coarse, bilinear_taps(coarse.shape[1], total.shape[1]), axis=1)
    for start in range(0, len(total), BAND):
        rows = slice(start, start + BAND)
        total[rows] += bilinear(wide, bilinear_taps(len(wide), len(total), rows))
