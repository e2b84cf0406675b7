"""SPADE against straightforward float64 NumPy."""

import numpy as np
import pytest
import torch

from hyperspot.detector.heatmaps import bilinear_matrix
from hyperspot.methods.spade import SPADE, SPADESettings
from hyperspot.utils.progress import SILENT


@pytest.fixture(scope="module")
def images():
    return torch.randn(7, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def fitted(backbone, samples, **values):
    method = SPADE(backbone, SPADESettings(**values))
    method.fit([samples[:3], samples[3:]], seed=0, progress=SILENT)
    return method


@pytest.mark.parametrize(("samples", "neighbors"), [(3, 1), (50, 4)])
def test_score_and_map_are_the_definition(backbone, images, samples, neighbors):
    training, unseen = ([level.double().numpy() for level in backbone(part)] for part in (images[2:], images[:2]))
    expected_scores, expected_maps = [], []
    for number in range(2):
        apart = np.linalg.norm(unseen[-1][number].mean((1, 2)) - training[-1].mean((2, 3)), axis=1)
        alike = np.argsort(apart)[:samples]
        expected_scores.append(apart[alike].mean())
        maps = []
        for level, gallery in zip(unseen, training, strict=True):
            places = level[number].reshape(level.shape[1], -1).T
            kept = gallery[alike].transpose(0, 2, 3, 1).reshape(-1, gallery.shape[1])
            distances = np.stack([np.sort(np.linalg.norm(kept - place, axis=1))[:neighbors].mean() for place in places])
            height, width = level.shape[2:]
            maps.append(bilinear_matrix(height, 64) @ distances.reshape(height, width) @ bilinear_matrix(width, 96).T)
        expected_maps.append(np.mean(maps, axis=0))
    method = fitted(backbone, images[2:], images=samples, neighbors=neighbors)
    with torch.inference_mode():
        raw, own = method(images[:2])
    np.testing.assert_allclose(own.numpy(), expected_scores, rtol=1e-4)
    np.testing.assert_allclose(raw.numpy(), np.stack(expected_maps), rtol=1e-3, atol=1e-4)


def test_a_training_image_is_at_no_distance_from_itself(backbone, images):
    with torch.inference_mode():
        raw, own = fitted(backbone, images, images=1)(images[:2])
    assert own.max() < 1e-4
    assert raw.max() < 1e-3


def test_only_the_nearest_images_are_compared_with(backbone, images):
    near, far = images[:1] * 0.1, images[1:2] * 10
    method = fitted(backbone, torch.cat([near, near, near, far]), images=1)
    method.gallery2[3] = method.gallery3[3] = method.gallery4[3] = torch.nan
    with torch.inference_mode():
        raw, own = method(near * 1.01)
    assert torch.isfinite(raw).all()
    assert torch.isfinite(own).all()
