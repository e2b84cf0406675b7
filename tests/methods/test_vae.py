"""The VAE against straightforward float64 NumPy."""

import math

import numpy as np
import pytest
import torch

from hyperspot.backbones import NONE, create
from hyperspot.methods.vae import VAE, VAESettings, kl_divergence
from hyperspot.utils.progress import SILENT


@pytest.fixture(scope="module")
def images():
    """Soft blobs in pixels of 0..1."""
    rows, columns = np.mgrid[:64, :96]
    generator = np.random.default_rng(0)
    blob = np.exp(-((rows - 32) ** 2 + (columns - 48) ** 2) / 400)
    shades = 0.2 + 0.6 * blob + generator.normal(0, 0.02, (6, 3, 64, 96))
    return torch.tensor(shades.clip(0, 1), dtype=torch.float32)


def fitted(images, **values):
    method = VAE(create(NONE), VAESettings(**{"steps": 4, "images_per_step": 2, **values}))
    method.fit([images], seed=0, progress=SILENT)
    return method


def test_kl_is_that_of_gaussians_integrated_numerically():
    generator = np.random.default_rng(0)
    means, log_variances = generator.normal(size=(2, 3)), generator.normal(size=(2, 3))
    points = np.linspace(-30, 30, 600_001)
    total = 0.0
    for mean, log_variance in zip(means.ravel(), log_variances.ravel(), strict=True):
        deviation = math.exp(log_variance / 2)
        log_posterior = -0.5 * ((points - mean) / deviation) ** 2 - math.log(deviation * math.sqrt(2 * math.pi))
        log_prior = -0.5 * points**2 - math.log(math.sqrt(2 * math.pi))
        total += np.trapezoid(np.exp(log_posterior) * (log_posterior - log_prior), points)
    found = kl_divergence(torch.from_numpy(means).float(), torch.from_numpy(log_variances).float())
    assert float(found) == pytest.approx(total / 2, rel=1e-5)


def test_map_is_the_squared_error_summed_over_colors(images):
    method = fitted(images)
    with torch.inference_mode():
        raw, own = method(images[:2])
        mean, _ = method.network.encode(images[:2] - method.mean_image)
        drawn = method.mean_image + method.network.decode(mean, 64, 96)
    assert own is None
    # Images are cached in half precision.
    torch.testing.assert_close(method.mean_image, images.mean(0), rtol=1e-3, atol=1e-3)
    assert mean.shape == (2, 64, 2, 3)
    expected = ((images[:2].double().numpy() - drawn.double().numpy()) ** 2).sum(1)
    np.testing.assert_allclose(raw.numpy(), expected, rtol=1e-3, atol=1e-5)


def test_sides_that_are_no_multiple_of_32_keep_their_size(images):
    method = fitted(images[:, :, :56, :88])
    with torch.inference_mode():
        raw, _ = method(images[:1, :, :56, :88])
    assert raw.shape == (1, 56, 88)


def test_good_images_are_reconstructed_and_pasted_defects_are_not(images):
    """Good images differ in exposure, so the mean image is not enough."""
    exposures = torch.linspace(0.4, 1.2, 12)[:, None, None, None]
    images = exposures * images[:1, :, :, 16:80]
    method = fitted(images, steps=60, images_per_step=4)
    bad = images[:1].clone()
    bad[:, :, 8:20, 8:20] = 1.0
    with torch.inference_mode():
        good_maps, bad_map = method(images)[0], method(bad)[0]
    plain = (images - images.mean(0)).square().sum(1).mean()
    assert good_maps.mean() < 0.5 * plain
    assert bad_map[0, 8:20, 8:20].mean() > 3 * good_maps.mean()
