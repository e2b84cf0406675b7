import pytest
import torch

from hyperspot.features import patches
from hyperspot.features.patches import PatchCache, concatenate, pool_to_grid

SIZES = ((4, 8, 12), (6, 4, 6), (10, 2, 3))


def batches(counts=(3, 2, 4), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(count, *size, generator=generator) for size in SIZES] for count in counts]


def everything(cache):
    return torch.stack(list(cache.all_images()))


def test_a_gathered_patch_is_that_of_the_concatenated_levels():
    given = batches()
    expected = torch.cat([concatenate(batch) for batch in given])
    torch.testing.assert_close(everything(PatchCache.collect(given)), expected)


@pytest.mark.parametrize(("budget", "dtype", "mapped"), [(10**9, "float32", False), (4000, "float16", True)])
def test_past_the_budget_the_cache_is_a_file_of_half_precision(monkeypatch, budget, dtype, mapped):
    given = batches()
    exact = everything(PatchCache.collect(given))
    monkeypatch.setattr(patches, "CACHE_BUDGET_BYTES", budget)
    spilled, spill = [], patches._mapped
    monkeypatch.setattr(patches, "_mapped", lambda file, shape: spilled.append(shape) or spill(file, shape))
    cache = PatchCache.collect(given)
    assert [str(level.dtype) for level in cache.levels] == [f"torch.{dtype}"] * 3
    assert cache.images == 9
    assert cache.channels == (4, 6, 10)
    torch.testing.assert_close(everything(cache), exact, rtol=2e-3, atol=2e-3)
    torch.testing.assert_close(cache.mean(), exact.mean(0), rtol=2e-3, atol=2e-3)
    assert bool(spilled) == mapped


def test_half_precision_comes_before_the_file(monkeypatch):
    given = batches()
    whole = sum(level.nbytes for batch in given for level in batch)
    monkeypatch.setattr(patches, "CACHE_BUDGET_BYTES", whole * 3 // 4)
    spilled = []
    monkeypatch.setattr(patches, "_append", lambda *given: spilled.append(given))
    assert PatchCache.collect(given).levels[0].dtype == torch.float16
    assert not spilled


def test_nothing_to_keep_is_refused():
    with pytest.raises(ValueError, match="no image"):
        PatchCache.collect([])


@pytest.mark.parametrize("cell", [1, 2, 3, 8])
@pytest.mark.parametrize("size", [(8, 16), (7, 9), (1, 5), (13, 2)])
def test_cells_of_a_coarser_grid_are_means(size, cell):
    """The last cells of odd sizes are narrower, and nothing is padded."""
    level = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    height, width = (-(-side // cell) for side in size)
    expected = torch.stack(
        [
            torch.stack(
                [
                    level[:, :, row * cell : (row + 1) * cell, column * cell : (column + 1) * cell].mean((2, 3))
                    for column in range(width)
                ],
                dim=-1,
            )
            for row in range(height)
        ],
        dim=-2,
    )
    found = pool_to_grid(level, cell)
    assert found.shape == (2, 3, height, width)
    torch.testing.assert_close(found, expected)


def test_the_grid_has_the_size_of_the_level_it_is_of():
    """A stage halves an odd size upward, and so does the grid."""
    level = torch.randn(1, 4, 31, 45)
    stage = torch.nn.Conv2d(4, 4, 3, stride=2, padding=1)
    once = stage(level)
    assert pool_to_grid(level, 2).shape == once.shape
    assert pool_to_grid(level, 4).shape == stage(once).shape
