"""All bilinear resamplers against one slow float64 reference: half-pixel centers, edges repeated.

`resize` alone is antialiased, and only along axes that shrink.
"""

import numpy as np
import pytest
import torch
from PIL import Image

from hyperspot.detector.heatmaps import bilinear_matrix
from hyperspot.features.patches import PatchCache, align
from hyperspot.hardware import native
from hyperspot.hardware.native import resizing
from hyperspot.images import InputSize, resize

SIZES = [
    ((8, 8), (8, 8)),
    ((4, 6), (8, 12)),
    ((5, 7), (16, 24)),
    ((7, 9), (10, 31)),
    ((1, 1), (5, 6)),
    ((1, 9), (6, 20)),
    ((6, 1), (13, 1)),
    ((3, 2), (64, 96)),
    ((14, 20), (57, 61)),
]
"""Height and width before and after: whole and fractional ratios, sides of one pixel, all growing or equal."""
SHRINKING = [((8, 12), (4, 6)), ((31, 10), (9, 7)), ((20, 33), (1, 1)), ((90, 61), (57, 14)), ((9, 40), (30, 11))]
"""At least one side shrinks."""


def axis(length: int, target: int, antialias: bool = False) -> np.ndarray:
    """Return the target x length matrix of one axis, weight by weight from the definition.

    Each output pixel is a weighted mean of input pixels. The weights are a triangle around its center, which lies at
    (i + 1/2) length / target. The half-width is one input pixel, or one output pixel if that is larger and antialiased.
    Without antialiasing, weights beyond the edge belong to the edge pixel; with it they are dropped, as in Pillow, and
    the rest is normalized. Both agree for growing axes.
    """
    support = max(1.0, length / target) if antialias else 1.0
    reach = int(np.ceil(support)) + 1
    matrix = np.zeros((target, length))
    for i in range(target):
        center = (i + 0.5) * length / target
        for j in range(int(center) - reach, int(center) + reach + 1):
            weight = max(0.0, 1.0 - abs(j + 0.5 - center) / support)
            if antialias and not 0 <= j < length:
                continue
            matrix[i, min(max(j, 0), length - 1)] += weight
    return matrix / matrix.sum(axis=1, keepdims=True)


def reference(values: np.ndarray, height: int, width: int, antialias: bool = False) -> np.ndarray:
    """Resample the first two axes of an array in float64."""
    rows, columns = axis(values.shape[0], height, antialias), axis(values.shape[1], width, antialias)
    return np.einsum("ij,jk...,lk->il...", rows, values.astype(np.float64), columns)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).random(shape)


@pytest.mark.parametrize(("before", "after"), [*SIZES, *SHRINKING])
def test_matrix(before, after):
    for length, target in zip(before, after, strict=True):
        np.testing.assert_allclose(bilinear_matrix(length, target), axis(length, target), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("before", "after"), [*SIZES, *SHRINKING])
def test_letterbox_invert(before, after):
    heatmap = noise(*before).astype(np.float32)
    letterbox = InputSize(*before, "stretch").letterbox(*after)
    np.testing.assert_allclose(letterbox.invert(heatmap), reference(heatmap, *after), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_align(before, after):
    level = noise(*before, 3)
    found = align(torch.from_numpy(level).permute(2, 0, 1)[None], *after)[0].permute(1, 2, 0)
    np.testing.assert_allclose(found, reference(level, *after), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_patch_cache(before, after):
    fine, coarse = noise(*after, 2).astype(np.float32), noise(*before, 3).astype(np.float32)
    cache = PatchCache.collect([[torch.from_numpy(level).permute(2, 0, 1)[None] for level in (fine, coarse)]])
    found = cache.image(0).reshape(*after, 5)
    np.testing.assert_array_equal(found[..., :2], fine)
    np.testing.assert_allclose(found[..., 2:], reference(coarse, *after), rtol=0, atol=1e-6)


@pytest.mark.skipif(not native.level(), reason="no compiled search, or no AVX2 here")
@pytest.mark.parametrize(("before", "after"), SIZES)
def test_compiled_search(before, after):
    # Distances to the unit vectors and to zero give the query back: |q|² - |q - e|² = 2 q·e - 1.
    channels = 3
    fine, coarse = np.zeros((*after, channels), np.float32), noise(*before, channels).astype(np.float32)
    affine = np.zeros((3, channels), np.float32)

    def distances(vector: np.ndarray) -> np.ndarray:
        bank = native.PackedBank(vector[None].astype(np.float32), prefix=channels, split=0, candidates=1)
        found, _ = bank.nearest_in_pyramid([fine, coarse], affine, 1, threads=1)
        return found.reshape(after).astype(np.float64)

    to_zero = distances(np.zeros(channels))
    found = np.stack([(to_zero - distances(unit) + 1) / 2 for unit in np.eye(channels)], axis=-1)
    np.testing.assert_allclose(found, reference(coarse, *after), rtol=0, atol=2e-6)


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize(("before", "after"), [*SIZES, *SHRINKING])
def test_resize(before, after, compiled, monkeypatch):
    if not compiled:
        monkeypatch.setattr(resizing, "_library", lambda: None)
    image = (noise(*before, 3) * 255).round().astype(np.uint8)
    found = resize(image, *after)
    assert found.dtype == np.uint8
    # Rounded to 8 bits after each axis.
    assert np.abs(found - reference(image, *after, antialias=True)).max() <= 1.0 + 1e-3


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_growing_axes_are_the_same_with_and_without_antialiasing(before, after):
    for length, target in zip(before, after, strict=True):
        np.testing.assert_allclose(axis(length, target, antialias=True), axis(length, target), rtol=0, atol=1e-12)
    # And Pillow, float, agrees with the reference.
    values = noise(*before).astype(np.float32)
    found = np.asarray(Image.fromarray(values).resize(after[::-1], Image.Resampling.BILINEAR))
    np.testing.assert_allclose(found, reference(values, *after), rtol=0, atol=1e-6)
