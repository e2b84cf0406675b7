"""PatchCore against straightforward float64 NumPy, step by step as the released code takes them."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from hyperspot.features import coresets
from hyperspot.features.coresets import k_centers
from hyperspot.methods import patchcore
from hyperspot.methods.patchcore import PatchCore, PatchCoreSettings
from hyperspot.utils.progress import SILENT


@pytest.fixture(scope="module")
def images():
    return torch.randn(5, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def fitted(backbone, images, **values):
    method = PatchCore(backbone, PatchCoreSettings(**{"dimensions": 96, **values}))
    method.fit([images[:2], images[2:]], seed=3, progress=SILENT)
    return method


def adaptive_mean(rows: np.ndarray, bins: int) -> np.ndarray:
    """Mean of the values from floor(i n / bins) up to ceil((i + 1) n / bins)."""
    n = rows.shape[-1]
    bounds = [(i * n // bins, math.ceil((i + 1) * n / bins)) for i in range(bins)]
    return np.stack([rows[..., first:last].mean(-1) for first, last in bounds], axis=-1)


def embedded(backbone, images, dimensions: int) -> np.ndarray:
    """Released order: unfold, upsample the neighborhoods, pool each level, join, pool again; image x place x d."""
    joined = []
    _, *used = (level.double().numpy() for level in backbone(images))
    height, width = used[0].shape[2:]
    for level in used:
        padded = np.pad(level, ((0, 0), (0, 0), (1, 1), (1, 1)))
        shifted = [
            padded[:, :, row : row + level.shape[2], column : column + level.shape[3]]
            for row in range(3)
            for column in range(3)
        ]
        unfolded = np.stack(shifted, axis=2).reshape(len(level), -1, *level.shape[2:])
        zoom = height // level.shape[2]
        rows, columns = np.meshgrid(
            (np.arange(height) + 0.5) / zoom - 0.5, (np.arange(width) + 0.5) / zoom - 0.5, indexing="ij"
        )
        upsampled = np.stack(
            [
                [ndimage.map_coordinates(channel, [rows, columns], order=1, mode="nearest") for channel in image]
                for image in unfolded
            ]
        )
        joined.append(adaptive_mean(upsampled.reshape(len(level), -1, height * width).transpose(0, 2, 1), dimensions))
    return adaptive_mean(np.stack(joined, axis=2).reshape(len(images), height * width, -1), dimensions)


def squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.stack([((b - row) ** 2).sum(1) for row in a])


def memory(method) -> np.ndarray:
    return (method.bank + method.center).double().numpy()


def greedy(points: np.ndarray, starts: list[int], count: int) -> list[int]:
    """Released approximate coreset: one pass over all points for each choice."""
    far = np.sqrt(squared(points, points[starts])).mean(1)
    chosen = []
    for _ in range(count):
        chosen.append(int(far.argmax()))
        far = np.minimum(far, np.sqrt(squared(points, points[chosen[-1:]])[:, 0]))
    return chosen


def test_features_are_those_of_the_released_order(backbone, images):
    with torch.inference_mode():
        found = PatchCore(backbone, PatchCoreSettings(dimensions=100)).embed(images[:2]).flatten(1, 2)
    np.testing.assert_allclose(found.numpy(), embedded(backbone, images[:2], 100), rtol=1e-4, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), count=st.integers(1, 60), candidates=st.sampled_from([1, 2, 7, 1024]))
def test_coreset_is_the_choice_one_pass_at_a_time(seed, count, candidates):
    generator = np.random.default_rng(seed)
    points = generator.normal(0, 1, (60, 3)) * generator.exponential(1, (60, 1))
    starts = torch.randperm(60, generator=torch.Generator().manual_seed(seed))[:10].tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(coresets, "CANDIDATES", candidates)
        patch.setattr(coresets, "CHUNK_ELEMENTS", 100)
        found = list(k_centers(torch.from_numpy(points), count, torch.Generator().manual_seed(seed)))
    assert found == greedy(points, starts, count)


def test_twins_are_chosen_once_and_too_many_are_refused():
    points = torch.ones(20, 4)
    assert sorted(k_centers(points, 20, torch.Generator().manual_seed(0))) == list(range(20))
    with pytest.raises(ValueError, match="21 of 20"):
        list(k_centers(points, 21, torch.Generator()))


def test_bank_is_the_coreset_of_the_projection(backbone, images):
    method = fitted(backbone, images, ratio=0.1)
    features = embedded(backbone, images, 96).reshape(-1, 96)
    generator = torch.Generator().manual_seed(3)
    projection = ((torch.rand(96, 128, generator=generator).double() * 2 - 1) / 96**0.5).numpy()
    starts = torch.randperm(len(features), generator=generator)[:10].tolist()
    chosen = greedy(features @ projection, starts, int(len(features) * 0.1))
    np.testing.assert_allclose(memory(method), features[sorted(chosen)], rtol=1e-4, atol=1e-4)


def test_features_computed_again_give_the_same_bank(backbone, images, monkeypatch):
    kept = fitted(backbone, images)
    monkeypatch.setattr(patchcore, "KEPT_BYTES", 0)
    again = fitted(backbone, images)
    assert torch.equal(kept.bank, again.bank)


@pytest.mark.parametrize("neighbors", [1, 3])
def test_map_is_the_mean_squared_distance_and_its_maximum_the_score(backbone, images, neighbors):
    method = fitted(backbone, images[1:], neighbors=neighbors)
    expected = np.stack(
        [
            np.sort(squared(image, memory(method)), axis=1)[:, :neighbors].mean(1)
            for image in embedded(backbone, images[:2], 96)
        ]
    )
    with torch.inference_mode():
        raw, own = method(images[:2])
    assert raw.shape == (2, 8, 12)
    np.testing.assert_allclose(raw.flatten(1).numpy(), expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(own.numpy(), expected.max(1), rtol=1e-3)


def test_reweighted_score_is_equation_7(backbone, images):
    method = fitted(backbone, images[1:], image_score="reweighted", reweight_neighbors=4, ratio=0.5)
    bank = memory(method)
    expected = []
    for image in embedded(backbone, images[:2], 96):
        distances = np.sqrt(squared(image, bank))
        patch = distances.min(1).argmax()
        nearest = distances[patch].argmin()
        around = np.argsort(squared(bank[[nearest]], bank)[0])[:4]
        weights = np.exp(distances[patch])
        expected.append((1 - weights[nearest] / weights[around].sum()) * distances[patch, nearest])
    with torch.inference_mode():
        _, own = method(images[:2])
    np.testing.assert_allclose(own.numpy(), expected, rtol=1e-3)


def test_reweighting_leaves_the_distance_to_a_single_vector(backbone, images):
    method = fitted(backbone, images[1:], image_score="reweighted", ratio=0.001)
    assert len(method.bank) == 1
    with torch.inference_mode():
        raw, own = method(images[:2])
    torch.testing.assert_close(own, raw.amax((1, 2)).sqrt())
