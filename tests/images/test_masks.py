"""Connected components and erosion equal SciPy's."""

import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from hyperspot.images.masks import connected_runs, erode
from hyperspot.results.drawing import HALO_COLOR, OUTLINE_COLOR, outline
from hyperspot.results.regions import Region, find_regions

EIGHT_CONNECTED = np.ones((3, 3), dtype=bool)


def spiral(size: int) -> np.ndarray:
    """Return a spiral one pixel wide, whose runs meet only at its very end."""
    mask = np.zeros((size, size), dtype=bool)
    row, column, down, right = 0, -1, 0, 1
    for turn in range(size):
        length = size if turn == 0 else size - 1 - 2 * ((turn - 1) // 2)
        for _ in range(length):
            row, column = row + down, column + right
            mask[row, column] = True
        down, right = right, -down
    return mask


def comb(size: int) -> np.ndarray:
    """Return teeth that are connected at the bottom alone."""
    mask = np.zeros((size, size), dtype=bool)
    mask[:, ::2] = mask[-1] = True
    return mask


def blobs(sigma: float, share: float) -> np.ndarray:
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((240, 310)), sigma)
    return smooth > np.quantile(smooth, 1 - share)


SHAPES = {
    "nothing": np.zeros((7, 9), dtype=bool),
    "everything": np.ones((7, 9), dtype=bool),
    "one row": np.array([[True, True, False, True]]),
    "one column": np.array([[True], [False], [True], [True]]),
    "diagonals": np.indices((30, 41)).sum(axis=0) % 2 == 0,
    "far corners": np.eye(2, dtype=bool)[[0, 1, 1, 0]][:, [0, 0, 1, 1, 1]],
    "spiral": spiral(41),
    "spiral, seen in a mirror": spiral(40)[::-1, ::-1],
    "comb": comb(33),
    "comb upside down": comb(34)[::-1],
    "noise": np.random.default_rng(1).random((120, 150)) < 0.4,
    "sparse noise": np.random.default_rng(2).random((120, 150)) < 0.05,
    "blobs": blobs(4, 0.1),
    "holes": blobs(3, 0.9),
}


def labels_of(mask: np.ndarray) -> np.ndarray:
    labels = np.zeros(mask.shape, dtype=np.int64)
    for row, start, stop, part in zip(*connected_runs(mask), strict=True):
        assert not labels[row, start:stop].any()
        labels[row, start:stop] = part + 1
    return labels


def slow_regions(mask: np.ndarray, heatmap: np.ndarray) -> tuple[Region, ...]:
    labels, count = ndimage.label(mask, structure=EIGHT_CONNECTED)
    regions = []
    for number in range(1, count + 1):
        rows, columns = np.nonzero(labels == number)
        regions.append(
            Region(
                left=int(columns.min()),
                top=int(rows.min()),
                width=int(np.ptp(columns)) + 1,
                height=int(np.ptp(rows)) + 1,
                area=len(rows),
                score=float(heatmap[rows, columns].max()),
            )
        )
    return tuple(sorted(regions, key=lambda region: -region.score))


def slow_outline(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    width = max(1, round(min(mask.shape) / 256))
    near = ndimage.binary_dilation(mask, EIGHT_CONNECTED, iterations=width)
    far = ndimage.binary_dilation(near, EIGHT_CONNECTED, iterations=width)
    drawn = image.copy()
    drawn[ndimage.binary_dilation(far, EIGHT_CONNECTED, iterations=(width + 1) // 2) & ~far] = HALO_COLOR
    drawn[far & ~near] = OUTLINE_COLOR
    return drawn


@pytest.mark.parametrize("name", SHAPES)
def test_components_are_scipys_in_scipys_order(name):
    np.testing.assert_array_equal(labels_of(SHAPES[name]), ndimage.label(SHAPES[name], EIGHT_CONNECTED)[0])


@given(arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=24)))
def test_components_of_any_mask(mask):
    np.testing.assert_array_equal(labels_of(mask), ndimage.label(mask, EIGHT_CONNECTED)[0])


@pytest.mark.parametrize("reach", [1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize("name", SHAPES)
def test_erosion_is_scipys(name, reach):
    mask = SHAPES[name]
    before = mask.copy()
    expected = ndimage.binary_erosion(mask, EIGHT_CONNECTED, iterations=reach, border_value=1)
    np.testing.assert_array_equal(erode(mask, reach), expected)
    np.testing.assert_array_equal(mask, before)


@given(arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=16)), st.integers(1, 20))
def test_erosion_of_any_mask(mask, reach):
    expected = ndimage.binary_erosion(mask, EIGHT_CONNECTED, iterations=reach, border_value=1)
    np.testing.assert_array_equal(erode(mask, reach), expected)


@pytest.mark.parametrize("name", SHAPES)
def test_regions_and_outlines_follow(name):
    mask = SHAPES[name]
    random = np.random.default_rng(3)
    heatmap = random.standard_normal(mask.shape).astype(np.float32)
    assert find_regions(mask, heatmap) == slow_regions(mask, heatmap)
    image = random.integers(0, 255, (*mask.shape, 3), dtype=np.uint8)
    np.testing.assert_array_equal(outline(image, mask), slow_outline(image, mask))


def test_regions_of_equal_score_keep_reading_order():
    mask = SHAPES["sparse noise"]
    heatmap = np.ones(mask.shape, dtype=np.float32)
    assert find_regions(mask, heatmap) == slow_regions(mask, heatmap)
