import tracemalloc

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from hyperspot.detector.heatmaps import fuse, gaussian_matrix, smooth, uncrop
from hyperspot.images.geometry import LONGEST


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.0, 0.7, 4.0]))
def test_smoothing_is_upsampling_then_the_gaussian(height, width, tall, wide, sigma):
    raw = torch.rand(1, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(height * width))
    upsampled = F.interpolate(raw[None], size=(tall, wide), mode="bilinear", align_corners=False)[0, 0]
    expected = ndimage.gaussian_filter(upsampled.numpy(), sigma, mode="reflect", truncate=4) if sigma else upsampled
    np.testing.assert_allclose(smooth(raw, tall, wide, sigma)[0].numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(("length", "sigma"), [(1, 4.0), (5, 4.0), (40, 0.7), (40, 64.0), (40, 0.0)])
def test_the_gaussian_matrix_is_scipys_filter(length, sigma):
    identity = np.eye(length)
    expected = ndimage.gaussian_filter1d(identity, sigma, axis=0, mode="reflect", truncate=4) if sigma else identity
    np.testing.assert_allclose(gaussian_matrix(length, sigma).toarray(), expected, atol=1e-14)


def test_the_longest_side_is_smoothed_in_little_memory():
    """Dense, the Gaussian of the longest side allowed would take 537 MB, and 137 thousand million products."""
    raw = torch.rand(1, 1, LONGEST // 8, generator=torch.Generator().manual_seed(0))
    tracemalloc.start()
    try:
        found = smooth(raw, 1, LONGEST, 4.25)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 200e6
    upsampled = F.interpolate(raw.double()[None], size=(1, LONGEST), mode="bilinear", align_corners=False)[0, 0, 0]
    expected = ndimage.gaussian_filter1d(upsampled.numpy(), 4.25, mode="reflect", truncate=4)
    np.testing.assert_allclose(found[0, 0].numpy(), expected, atol=1e-6)


def test_what_a_crop_did_not_see_is_its_lowest_value():
    maps = torch.tensor([[[3.0, 2.0]], [[7.0, 9.0]]])
    whole = uncrop(maps, 1, 1, 3, 4)
    assert whole[0].min() == 2
    assert whole[1].min() == 7
    assert torch.equal(whole[:, 1:2, 1:3], maps)


def test_fusion_averages_standardized_maps_where_each_has_seen():
    inner = uncrop(torch.full((1, 1, 2), 5.0), 1, 1, 3, 4)
    outer = torch.full((1, 3, 4), 30.0)
    fused = fuse([inner, outer], [(1, 1, 1, 2), (0, 0, 3, 4)], [(1.0, 2.0), (10.0, 5.0)])
    assert fused[0, 0, 0] == pytest.approx(4.0)
    assert fused[0, 1, 1] == pytest.approx((2.0 + 4.0) / 2)
