import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from hyperspot.heatmaps import fuse, in_frame, smooth


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 40), st.integers(1, 40), st.sampled_from([0.0, 0.7, 4.0]))
def test_smoothing_is_upsampling_then_the_gaussian(height, width, tall, wide, sigma):
    raw = torch.rand(1, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(height * width))
    upsampled = F.interpolate(raw[None], size=(tall, wide), mode="bilinear", align_corners=False)[0, 0]
    expected = ndimage.gaussian_filter(upsampled.numpy(), sigma, mode="reflect", truncate=4) if sigma else upsampled
    np.testing.assert_allclose(smooth(raw, tall, wide, sigma)[0].numpy(), expected, atol=1e-12)


def test_what_a_crop_did_not_see_is_its_lowest_value():
    maps = torch.tensor([[[3.0, 2.0]], [[7.0, 9.0]]])
    whole = in_frame(maps, 1, 1, 3, 4)
    assert whole[0].min() == 2
    assert whole[1].min() == 7
    assert torch.equal(whole[:, 1:2, 1:3], maps)


def test_fusion_averages_standardised_maps_where_each_has_seen():
    inner = in_frame(torch.full((1, 1, 2), 5.0), 1, 1, 3, 4)
    outer = torch.full((1, 3, 4), 30.0)
    fused = fuse([inner, outer], [(1, 1, 1, 2), (0, 0, 3, 4)], [(1.0, 2.0), (10.0, 5.0)])
    assert fused[0, 0, 0] == pytest.approx(4.0)
    assert fused[0, 1, 1] == pytest.approx((2.0 + 4.0) / 2)
