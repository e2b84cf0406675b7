"""Tiles: they cover every pixel, and blending them back shows no seam."""

import itertools

import numpy as np
import pytest

from hyperspot.images import InputSize
from hyperspot.images.tiles import TILE_BATCH, TileGrid, Tiling, ViewStats

WHOLE = InputSize(64, 64, "stretch")


@pytest.mark.parametrize("height", [64, 65, 100, 119, 121, 500])
@pytest.mark.parametrize("width", [64, 71, 1260])
def test_tiles_cover_the_input_and_overlap(height, width):
    grid = TileGrid.covering(height, width, 64)
    for starts, length in ((grid.tops, height), (grid.lefts, width)):
        assert starts[0] == 0
        assert starts[-1] + 64 == length
        assert all(0 < second - first <= 40 for first, second in itertools.pairwise(starts))


def test_a_side_shorter_than_a_tile_makes_shorter_tiles():
    grid = TileGrid.covering(40, 200, 64)
    assert (grid.tile_height, grid.tile_width, grid.tops) == (40, 64, (0,))


@pytest.mark.parametrize("size", [(64, 64), (100, 160), (333, 129)])
def test_blending_the_pixels_of_the_tiles_gives_the_image(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    grid = TileGrid.covering(*size, 64)
    batches = list(grid.batches(image))
    assert all(len(batch) <= TILE_BATCH for batch in batches)
    blended = grid.blend(tile[..., 0].astype(np.float32) for batch in batches for tile in batch)
    np.testing.assert_allclose(blended, image[..., 0], rtol=1e-5)


def test_an_error_at_the_border_of_a_tile_does_not_show():
    """A map that is wrong in its outermost pixels, as where a backbone sees padding."""
    grid = TileGrid.covering(120, 120, 64)
    wrong = np.zeros((64, 64), np.float32)
    wrong[[0, -1]] = wrong[:, [0, -1]] = 1
    blended = grid.blend([wrong] * len(grid))
    inside = blended[2:-2, 2:-2]
    assert inside.max() == 0
    assert blended[0].min() == pytest.approx(1)


def test_the_number_of_maps_must_be_that_of_the_tiles():
    grid = TileGrid.covering(100, 100, 64)
    with pytest.raises(ValueError, match=r"shorter|longer"):
        grid.blend([np.zeros((64, 64), np.float32)] * 3)


def test_the_whole_image_is_a_view_too():
    tiling = Tiling(InputSize(512, 1280, "contain"), 256, InputSize(128, 320, "contain"))
    assert [(view.height, view.width) for view in tiling.views] == [(512, 1280), (128, 320)]
    assert [view.tile_size for view in tiling.views] == [InputSize(256, 256, "stretch"), InputSize(128, 320, "stretch")]
    assert len(Tiling(InputSize(256, 1280, "contain"), 256).views) == 1


def test_views_are_standardized_and_averaged():
    stats = ViewStats(2.0, 4.0, 1.0, 2.0), ViewStats(1.0, 0.5, 0.0, 1.0)
    tiling = Tiling(InputSize(128, 128, "stretch"), 64, WHOLE, stats)
    fine, whole = len(tiling.views[0]), len(tiling.views[1])
    tiles = [(np.full((64, 64), 6, np.float32), 5.0)] * fine, [(np.full((64, 64), 2, np.float32), 3.0)] * whole
    found, score = tiling.assemble([iter(one) for one in tiles])
    np.testing.assert_allclose(found, ((6 - 2) / 4 + (2 - 1) / 0.5) / 2)
    assert score == 3.0


def test_statistics_are_those_of_the_tiles():
    tiling = Tiling(InputSize(128, 128, "stretch"), 64, WHOLE)
    random = np.random.default_rng(0)
    tiles = [
        [(random.normal(3, 2, (64, 64)).astype(np.float32), float(random.normal(7, 1))) for _ in range(4 * len(view))]
        for view in tiling.views
    ]
    stats = tiling.with_stats([iter(one) for one in tiles]).stats
    for view, of_view, found in zip(tiling.views, tiles, stats, strict=True):
        values = np.concatenate([one.ravel() for one, _ in of_view])
        highest = np.reshape([score for _, score in of_view], (4, len(view))).max(axis=1)
        assert (found.map_mean, found.map_deviation) == pytest.approx((values.mean(), values.std()), rel=1e-5)
        assert (found.score_mean, found.score_deviation) == pytest.approx((highest.mean(), highest.std()), rel=1e-5)


def test_the_maps_of_views_lie_at_the_same_place():
    tiling = Tiling(InputSize(128, 200, "stretch"), 64, WHOLE, (ViewStats(), ViewStats()))
    image = np.zeros((128, 200, 3), np.uint8)
    image[20:40, 150:180] = 200
    maps, scores = tiling.run(image[None], [lambda tiles: (tiles[..., 0].astype(np.float32), None)] * 2)
    assert scores is None
    assert np.abs(maps[0] - image[..., 0])[24:36, 154:176].max() < 20
    assert maps[0][60:].max() == 0


@pytest.mark.parametrize(
    "change",
    [
        {"tile": 0},
        {"tile": 7},
        {"input_size": {"height": 65_536, "width": 65_536, "fit": "stretch"}},
        {"tile": 10**9},
        {"stats": []},
        {"stats": [{"map_deviation": 0.0}, {}]},
        {"stats": [{"other": 1}, {}]},
    ],
)
def test_malformed_tilings_are_refused(change):
    tiling = Tiling(InputSize(128, 200, "stretch"), 64, WHOLE, (ViewStats(), ViewStats()))
    assert Tiling.from_dict(tiling.to_dict()) == tiling
    with pytest.raises((TypeError, ValueError)):
        Tiling.from_dict({**tiling.to_dict(), **change})


def test_the_whole_view_is_enlarged_like_a_heatmap():
    """Between the centers of pixels, as `Letterbox.invert` does."""
    tiling = Tiling(InputSize(200, 130, "stretch"), 64, WHOLE, (ViewStats(), ViewStats()))
    coarse = np.random.default_rng(0).random((64, 64), np.float32)
    fine = [(np.zeros((64, 64), np.float32), None)] * len(tiling.views[0])
    found, _ = tiling.assemble([iter(fine), iter([(coarse, None)])])
    np.testing.assert_allclose(found, WHOLE.letterbox(200, 130).invert(coarse) / 2, rtol=1e-5)
