import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist

from hyperspot.features.whitening import FLOOR, partial_whitening


@pytest.fixture
def patches():
    """Correlated patches of six channels, whose mean is far from zero."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(6, 6, generator=generator))[0]
    spread = torch.tensor([5.0, 3.0, 2.0, 1.0, 0.5, 0.3])
    return torch.randn(400, 6, generator=generator) * spread @ axes + 7


def described(patches: torch.Tensor, channels: int, power: float) -> np.ndarray:
    return (patches @ partial_whitening(patches, channels, power).T).double().numpy()


def by_hand(patches: torch.Tensor, channels: int, power: float) -> np.ndarray:
    """Projected patches in float64, by the singular values of the patches; of any sign per axis."""
    values = patches.double().numpy()
    centered = values - values.mean(0)
    _, singular, axes = np.linalg.svd(centered, full_matrices=False)
    variances = singular[:channels] ** 2 / len(values)
    floored = np.maximum(variances, FLOOR * variances.mean())
    scaled = centered @ axes[:channels].T * floored**-power
    return scaled / np.sqrt((scaled**2).sum(1).mean())


def same_distances(found: np.ndarray, expected: np.ndarray, rtol: float = 1e-4) -> None:
    np.testing.assert_allclose(pdist(found), pdist(expected), rtol=rtol, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 4, 6, 99])
@pytest.mark.parametrize("power", [0.0, 0.15, 0.5])
def test_the_projection_is_the_definition(patches, channels, power):
    assert partial_whitening(patches, channels, power).shape == (min(channels, 6), 6)
    same_distances(described(patches, channels, power), by_hand(patches, channels, power))


def test_power_0_keeps_all_distances_but_for_one_factor(patches):
    given = pdist(patches.double().numpy())
    found = pdist(described(patches, 6, 0.0))
    np.testing.assert_allclose(found / given, (found / given)[0], rtol=1e-4)


def test_power_a_half_makes_all_axes_equal(patches):
    found = described(patches, 6, 0.5)
    np.testing.assert_allclose(np.cov(found.T, bias=True), np.eye(6) / 6, atol=1e-5)


def test_between_them_the_axes_keep_their_order(patches):
    deviations = {power: described(patches, 6, power).std(0) for power in (0.0, 0.15, 0.3, 0.5)}
    ratios = [value[0] / value[-1] for value in deviations.values()]
    assert ratios == sorted(ratios, reverse=True)
    for power, value in deviations.items():
        assert (np.diff(value) <= 1e-6).all()
        np.testing.assert_allclose(
            value / value[0], (deviations[0.0] / deviations[0.0][0]) ** (1 - 2 * power), rtol=1e-3
        )


@pytest.mark.parametrize("power", [0.0, 0.15, 0.5])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
def test_the_size_of_the_features_does_not_matter(patches, power, scale):
    found = described(patches * scale, 4, power)
    assert ((found - found.mean(0)) ** 2).sum(1).mean() == pytest.approx(1, rel=1e-3)
    same_distances(found, described(patches, 4, power), rtol=2e-3)


@pytest.mark.parametrize("power", [0.0, 0.15, 0.5])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_patches_have_axes_too(patches, count, power):
    """Fewer patches than channels leave axes without variance, which are not divided by zero."""
    projection = partial_whitening(patches[:count], 6, power)
    assert projection.shape == (6, 6)
    assert torch.isfinite(projection).all()
    found = (patches[:count] @ projection.T).double().numpy()
    spread = ((found - found.mean(0)) ** 2).sum(1).mean()
    assert spread == pytest.approx(0 if count == 1 else 1, abs=1e-3)
    # A direction that no patch varies in is amplified by the floor at most.
    assert projection.norm(dim=1).max() <= (1 if count == 1 else projection.norm(dim=1)[0] * FLOOR**-power * 6)


def test_constant_patches_are_projected_to_zero():
    projection = partial_whitening(torch.full((50, 5), 3.7), 4, 0.15)
    assert projection.shape == (4, 5)
    assert projection.dtype == torch.float32
    assert not projection.any()


def test_channels_without_variance_are_left_out(patches):
    padded = torch.cat([patches, torch.full((len(patches), 3), 2.0)], dim=1)
    found = partial_whitening(padded, 6, 0.15)
    np.testing.assert_allclose(found[:, 6:], 0, atol=1e-6)
    same_distances(described(padded, 6, 0.15), described(patches, 6, 0.15), rtol=1e-3)


@pytest.mark.parametrize("power", [0.0, 0.15, 0.5])
def test_one_channel_is_scaled_to_deviation_1(power):
    values = torch.arange(10.0)[:, None] * 8
    found = described(values, 1, power)
    np.testing.assert_allclose(found.std(0), 1, rtol=1e-5)
