"""CFA against straightforward float64 NumPy, equation by equation."""

import copy

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from hyperspot.backbones import create
from hyperspot.detector.settings import make_settings
from hyperspot.errors import SettingsError
from hyperspot.features.patches import PatchCache, coordinates
from hyperspot.methods import cfa
from hyperspot.methods.cfa import CFA, algorithm_1, certainty_score
from hyperspot.methods.cfa_settings import CFASettings
from hyperspot.utils.progress import SILENT, Silent
from tests.methods.cfa_reference import (
    algorithm_1_of_the_paper,
    default_features,
    described,
    distances,
    fitted,
    memory,
    patch_features,
)


class Steps(Silent):
    """Keeps the numbers of each step."""

    def __init__(self):
        self.notes = []

    def note(self, **values):
        self.notes.append(values)


@pytest.mark.parametrize(
    ("variant", "neighbors"), [("released", 3), ("paper", 3), ("default", 1), ("released", 2), ("default", 5)]
)
def test_map_is_the_definition(backbone, images, variant, neighbors):
    method = fitted(backbone, images, variant=variant, steps=3, gamma_d=2, neighbors=neighbors)
    features = patch_features(backbone, images[:2], (2, 3, 4), grid=3 if variant == "default" else 2)
    expected = []
    for image in features:
        delta = np.sqrt(np.sort(distances(described(method, image), memory(method)), axis=1)[:, :neighbors])
        weight = np.exp(-delta[:, 0]) / np.exp(-delta).sum(1)
        expected.append(weight * delta[:, 0])
    with torch.inference_mode():
        raw, own = method(images[:2])
    assert own is None
    np.testing.assert_allclose(raw.flatten(1).numpy(), np.stack(expected), rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("variant", "divisors", "kept"), [("released", (200, 192, 176), 2 * 568 // 5), ("paper", (1, 1, 1), 568 // 5)]
)
def test_released_makes_two_exceptions_for_efficientnet(images, variant, divisors, kept):
    """Its joined maps have 200, 192 and 176 channels; the released code divides by them, and keeps twice as many."""
    efficientnet = create("efficientnet_b5", weights="random:0")
    method = fitted(efficientnet, images, variant=variant, bank="mean", steps=0, gamma_d=5)
    assert method.weight.shape == (kept, 568 + 2)
    features = patch_features(efficientnet, images, (2, 3, 4), divisors)
    np.testing.assert_allclose(memory(method), described(method, features).mean(0), rtol=1e-4, atol=1e-4)
    delta = np.sqrt(np.sort(distances(described(method, features[0]), memory(method)), axis=1)[:, :3])
    with torch.inference_mode():
        raw, _ = method(images[:1])
    expected = delta[:, 0] * np.exp(-delta[:, 0]) / np.exp(-delta).sum(1)
    np.testing.assert_allclose(raw[0].flatten().numpy(), expected, rtol=5e-4, atol=1e-5)


def test_mean_bank_is_the_running_mean_of_the_released_code(backbone, images):
    method = fitted(backbone, images, variant="released", steps=0)
    features = patch_features(backbone, images, (2, 3, 4))
    running = 0.0
    for seen, batch in enumerate(np.split(features, [2, 4]), start=1):
        running = running + (described(method, batch).mean(0) - running) / seen
    np.testing.assert_allclose(memory(method), running, rtol=1e-5, atol=1e-5)


def test_compressed_bank_is_k_means_of_the_mean_bank(backbone, images):
    full = fitted(backbone, images, variant="released", steps=0)
    few = fitted(backbone, images, variant="released", steps=0, gamma_c=4)
    assert len(few.bank) == len(full.bank) // 4
    # Each is turned to the axes of its own bank; both began with the same descriptor.
    turned = few.weight.double().numpy() @ np.linalg.pinv(full.weight.double().numpy())
    centers = memory(few) @ turned
    owners = distances(memory(full), centers).argmin(1)
    for number in np.unique(owners):
        np.testing.assert_allclose(centers[number], memory(full)[owners == number].mean(0), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(("gamma_d", "channels", "share"), [(8, 56, 0.999), (2, 160, 0.9)])
def test_a_coreset_is_of_patches_that_cover_the_others(backbone, images, gamma_d, channels, share):
    """No two greedy choices lie nearer to each other than the worst covered patch to its choice.

    With more than 64 channels about so: the choice is made in the 64 principal axes.
    """
    method = fitted(backbone, images, gamma_c=4, gamma_d=gamma_d)
    assert method.weight.shape[0] == channels
    patches = described(method, default_features(backbone, images)).reshape(-1, channels)
    to_patches = distances(memory(method), patches)
    assert len(method.bank) == 8 * 12
    np.testing.assert_allclose(to_patches.min(1), 0, atol=1e-5)
    apart = distances(memory(method), memory(method)) + np.diag(np.full(len(method.bank), np.inf))
    assert apart.min() > share * to_patches.min(0).max() > 0


def test_clusters_leave_less_spread_than_a_coreset(backbone, images):
    spread = {}
    for bank in ("clusters", "coreset"):
        method = fitted(backbone, images, bank=bank, gamma_c=4)
        patches = described(method, default_features(backbone, images)).reshape(-1, method.weight.shape[0])
        spread[bank] = distances(memory(method), patches).min(0).mean()
    assert spread["clusters"] < spread["coreset"]


@pytest.mark.parametrize("bank", ["coreset", "clusters"])
def test_a_bank_of_patches_is_chosen_from_a_sample_and_is_bounded(backbone, images, bank, monkeypatch):
    monkeypatch.setattr(cfa, "SAMPLED_PATCHES", 70)
    monkeypatch.setattr(cfa, "LARGEST_PATCH_BANK", 40)
    assert len(fitted(backbone, images, bank=bank, bank_ratio=9).bank) == 40


def test_algorithm_1_is_as_written():
    generator = np.random.default_rng(0)
    described_images = [torch.tensor(generator.normal(size=(20, 5)), dtype=torch.float32) for _ in range(4)]
    beta = 0.3
    found = algorithm_1(described_images, 7, beta, seed=0)
    start = KMeans(7, n_init=1, max_iter=3000, random_state=0).fit(described_images[0].numpy()).cluster_centers_
    expected = algorithm_1_of_the_paper([image.double().numpy() for image in described_images], start, beta)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_cluster_bank_stands_for_all_patches(backbone, images):
    method = fitted(backbone, images, variant="default", steps=0, bank_ratio=2)
    patches = described(method, default_features(backbone, images)).reshape(-1, method.bank.shape[1])
    positions = patches.shape[0] // len(images)
    assert len(method.bank) == positions  # few images: no more centers than the positions of one
    to_bank = distances(patches, memory(method)).min(1).mean()
    to_mean = ((patches - patches.mean(0)) ** 2).sum(1).mean()
    assert to_bank < 0.5 * to_mean


@pytest.mark.parametrize(("losses", "radius"), [("both", 0.9), ("attraction", 0.9), ("both", 1e-5)])
def test_losses_are_the_definition(backbone, images, losses, radius):
    method = fitted(backbone, images, variant="released", steps=0, losses=losses, radius=radius)
    loss, attraction, repulsion = both_losses(method, images, K=3, J=3, radius=radius, alpha=0.1)
    expected = attraction + (repulsion if losses == "both" else 0)
    assert loss == pytest.approx(1000 * expected, rel=1e-4)


@pytest.mark.parametrize(
    ("K", "J", "alpha", "scale", "radius"),
    [(2, 4, 0.1, 1000.0, 5.0), (5, 1, 0.1, 1000.0, 6.0), (3, 3, 0.3, 1000.0, 5.0), (2, 4, 0.3, 7.0, 5.0)],
)
def test_each_number_of_the_losses_counts(backbone, images, K, J, alpha, scale, radius):
    """The radius lies between the distances of the neighbors, so that both losses act."""
    numbers = {"neighbors": K, "hard_negatives": J, "alpha": alpha, "loss_scale": scale, "radius": radius}
    method = fitted(backbone, images, variant="released", steps=0, **numbers)
    loss, attraction, repulsion = both_losses(method, images, K=K, J=J, radius=radius, alpha=alpha)
    assert min(attraction, repulsion) > 0.1
    assert loss == pytest.approx(scale * (attraction + repulsion), rel=1e-4)


def both_losses(method, images, *, K, J, radius, alpha) -> tuple[float, float, float]:
    """The method's loss of some patches; attraction and repulsion of the same by the paper."""
    features = patch_features(method.backbone, images[:1], (2, 3, 4))[0][::7]
    ranked = np.sort(distances(described(method, features), memory(method)), axis=1)
    attraction = np.maximum(0, ranked[:, :K] - radius**2).mean()
    repulsion = np.maximum(0, radius**2 - ranked[:, K : K + J] - alpha).mean()
    values = torch.tensor(features, dtype=torch.float32)
    loss, _ = method._loss(values[:, :-2], values[:, -2:])
    return float(loss), attraction, repulsion


def test_gradients_are_finite_differences(backbone, images):
    method = fitted(backbone, images, variant="released", steps=0, radius=1.0, gamma_d=16)
    method = copy.deepcopy(method).double()
    values = torch.tensor(patch_features(backbone, images[:1], (2, 3, 4))[0][::11])
    method.radius.data = nearest_root(method, values)
    parameters = [method.weight, method.bias, method.radius]
    for parameter in parameters:
        parameter.requires_grad_(True)
    loss, numbers = method._loss(values[:, :-2], values[:, -2:])
    assert 0 < numbers["attracted"] < 1
    assert numbers["repelled"] > 0
    loss.backward()
    generator = np.random.default_rng(0)
    for parameter in parameters:
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        for index in generator.choice(len(flat), size=min(12, len(flat)), replace=False):
            kept = float(flat[index])
            ends = []
            for step in (1e-6, -1e-6):
                flat[index] = kept + step
                ends.append(float(method._loss(values[:, :-2], values[:, -2:])[0].detach()))
            flat[index] = kept
            assert float(gradient[index]) == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-3, abs=1e-4)


def nearest_root(method, values) -> torch.Tensor:
    """A radius between the neighbors' distances, so that both losses have active and idle patches."""
    ranked = np.sort(distances(described(method, values.numpy()), memory(method)), axis=1)
    return torch.tensor(np.sqrt(np.quantile(ranked[:, 3:6], 0.5123) + 0.1))


def test_cached_patches_are_the_patches(backbone, images):
    method = CFA(backbone, CFASettings(variant="released"))
    cache = PatchCache.collect([method.pooled_levels(images)])
    expected = patch_features(backbone, images, (2, 3, 4))
    found = torch.stack([cache.image(number) for number in range(len(images))])
    np.testing.assert_allclose(found.numpy(), expected[:, :, :-2], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(cache.mean().numpy(), expected[:, :, :-2].mean(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(coordinates(*cache.sizes[0]).numpy(), expected[0, :, -2:], atol=1e-6)


def test_training_lowers_the_loss_and_grows_the_radius(backbone, images):
    steps = Steps()
    method = CFA(backbone, CFASettings(variant="released", steps=60))
    method.fit([images], seed=0, progress=steps)
    losses = [note["loss"] for note in steps.notes]
    assert np.mean(losses[-5:]) < 0.6 * np.mean(losses[:5])
    assert steps.notes[-1]["radius"] > 0.03
    assert not method.weight.requires_grad


def test_fixed_radius_stays(backbone, images):
    method = fitted(backbone, images, variant="paper", steps=5)
    assert float(method.radius) == pytest.approx(1e-5)


def test_no_losses_leaves_the_descriptor_untrained(backbone, images):
    untrained = fitted(backbone, images, variant="released", losses="none", steps=20)
    start = fitted(backbone, images, variant="released", steps=0)
    assert torch.equal(untrained.weight, start.weight)


def test_one_image_and_a_bank_smaller_than_the_neighbors(backbone, images):
    method = CFA(backbone, CFASettings(variant="released", gamma_c=10_000, steps=2))
    method.fit([images[:1]], seed=0, progress=SILENT)
    assert len(method.bank) == 1
    with torch.inference_mode():
        assert torch.isfinite(method(images[:1])[0]).all()


def test_numbers_beyond_what_there_is_count_as_all_there_is(backbone, images):
    beyond = {"levels": (4, 3), "neighbors": 1000, "gamma_d": 10_000, "gamma_c": 16, "images_per_step": 900}
    method = fitted(backbone, images, steps=2, **beyond)
    same = {"levels": (3, 4), "neighbors": 24, "hard_negatives": 1, "gamma_d": 256, "gamma_c": 16}
    same = fitted(backbone, images, steps=2, images_per_step=6, **same)
    assert method.bank.shape == (24, 2)
    assert torch.equal(method.bank, same.bank)
    assert torch.equal(method.weight, same.weight)
    assert method.settings.neighbors == 1000
    assert method.settings.levels == (3, 4)


def test_score_of_identical_neighbors_is_a_third():
    assert certainty_score(torch.full((1, 3), 4.0)).item() == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"gamma_x": 1}, "gamma_x"),
        ({"gamma_c": 0}, "gamma_c"),
        ({"variant": "best"}, "variant"),
        ({"levels": ()}, "levels"),
        ({"levels": (3, 3)}, r"'levels' cannot be \(3, 3\): each level can be named once"),
        ({"steps": 10**9}, "'steps' cannot be 1000000000"),
        ({"neighbors": 10**6}, "neighbors"),
        ({"hard_negatives": 10**6}, "hard_negatives"),
        ({"bank_ratio": 10**6}, "bank_ratio"),
        ({"gamma_d": 10**9}, "gamma_d"),
        ({"images_per_step": 10**9}, "images_per_step"),
        ({"output_negative_slope": 1}, "output_negative_slope"),
    ],
)
def test_wrong_settings_are_named(given, named):
    with pytest.raises(SettingsError, match=named):
        make_settings({"method_settings": given})
