"""PaDiM against straightforward float64 NumPy."""

import numpy as np
import pytest
import torch

from hyperspot.methods.padim import PaDiM, PaDiMSettings
from hyperspot.utils.progress import SILENT


@pytest.fixture(scope="module")
def images():
    return torch.randn(7, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def fitted(backbone, batches, seed=3, **values):
    method = PaDiM(backbone, PaDiMSettings(**{"channels": 20, **values}))
    method.fit(batches, seed=seed, progress=SILENT)
    return method


def replicated(backbone, images, channels) -> np.ndarray:
    """All levels on the finest grid, each coarse value repeated; place x image x chosen channel."""
    pyramid = [level.double().numpy() for level in backbone(images)]
    height = pyramid[0].shape[2]
    grid = np.concatenate(
        [level.repeat(height // level.shape[2], axis=2).repeat(height // level.shape[2], axis=3) for level in pyramid],
        axis=1,
    )
    return grid[:, channels].reshape(len(images), len(channels), -1).transpose(2, 0, 1)


def test_map_is_the_mahalanobis_distance_of_each_place(backbone, images):
    method = fitted(backbone, [images[1:4], images[4:6], images[6:]])
    channels = method.channels.numpy()
    training, unseen = replicated(backbone, images[1:], channels), replicated(backbone, images[:2], channels)
    expected = []
    for good, new in zip(training, unseen, strict=True):
        covariance = np.cov(good, rowvar=False) + 0.01 * np.eye(len(channels))
        offsets = new - good.mean(0)
        expected.append(np.sqrt(np.einsum("bi,ij,bj->b", offsets, np.linalg.inv(covariance), offsets)))
    with torch.inference_mode():
        raw, own = method(images[:2])
    assert own is None
    assert raw.shape == (2, 16, 24)
    np.testing.assert_allclose(raw.flatten(1).numpy(), np.stack(expected, axis=1), rtol=1e-3)


def test_batches_change_nothing_and_far_means_cost_no_digits(backbone, images):
    whole = fitted(backbone, [images])
    single = fitted(backbone, list(images.split(1)))
    torch.testing.assert_close(whole.mean, single.mean, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(whole.whitening, single.whitening, rtol=1e-2, atol=1e-3)


def test_one_image_gives_the_regularized_euclidean_distance(backbone, images):
    method = fitted(backbone, [images[:1]], regularization=0.04)
    both = replicated(backbone, images[:2], method.channels.numpy())
    expected = np.linalg.norm(both[:, 1] - both[:, 0], axis=1) / 0.2
    with torch.inference_mode():
        raw, _ = method(images[1:2])
    np.testing.assert_allclose(raw[0].flatten().numpy(), expected, rtol=1e-3)


def test_channels_are_those_of_the_paper_and_the_seed_decides_which(backbone, images):
    drawn = fitted(backbone, [images[:2]], channels=None).channels
    assert len(drawn.unique()) == 100
    assert not torch.equal(drawn, fitted(backbone, [images[:2]], channels=None, seed=4).channels)
    every = fitted(backbone, [images[:1, :, :32, :32]], channels=10_000).channels
    assert torch.equal(every, torch.arange(sum(backbone.channels)))
