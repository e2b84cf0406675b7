"""CutPaste against straightforward float64 NumPy."""

import math

import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf

from hyperspot.backbones import NONE, create
from hyperspot.errors import SettingsError
from hyperspot.methods.cutpaste import CutPaste, CutPasteSettings, Gaussian, cut_paste, gradient_map, scar
from hyperspot.utils.progress import SILENT


@pytest.fixture(scope="module")
def images():
    return torch.rand(4, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def fitted(images, **values):
    quick = {"steps": 2, "images_per_step": 2, "patch_steps": 2, "patches_per_step": 2, "localization": "patches"}
    method = CutPaste(create(NONE), CutPasteSettings(**{**quick, **values}))
    method.fit([images[:2], images[2:]], seed=0, progress=SILENT)
    return method


def changed_boxes(draw, image, count):
    """Return the box of changed pixels of many draws: top, left, height, width, and whether all of it changed."""
    for seed in range(count):
        different = (draw(image, torch.Generator().manual_seed(seed)) != image).any(0)
        if not different.any():
            continue
        rows, columns = torch.where(different)
        top, left = int(rows.min()), int(columns.min())
        height, width = int(rows.max()) - top + 1, int(columns.max()) - left + 1
        yield top, left, height, width, bool(different[top : top + height, left : left + width].all()), different


def test_cut_paste_is_a_rectangle_of_the_papers_areas_and_aspects():
    image = torch.rand(3, 200, 300, generator=torch.Generator().manual_seed(0))
    found = list(changed_boxes(lambda one, by: cut_paste(one, (0.02, 0.15), (0.3, 3.3), by), image, 300))
    assert len(found) == 300
    assert all(whole for *_, whole, _ in found)
    areas = np.array([height * width / 60_000 for _, _, height, width, *_ in found])
    aspects = np.array([height / width for _, _, height, width, *_ in found])
    assert 0.0195 < areas.min() < 0.03
    assert 0.14 < areas.max() < 0.153
    assert 0.29 < aspects.min() < 0.4
    assert 2.9 < aspects.max() < 3.4
    # Half of them are flat, half upright.
    assert 0.4 < (aspects < 1).mean() < 0.6
    assert len({(top, left) for top, left, *_ in found}) > 250


def test_cut_paste_takes_its_pixels_from_the_image():
    rows = torch.linspace(0.2, 0.8, 60)[:, None].expand(60, 80)
    columns = torch.linspace(0.2, 0.8, 80).expand(60, 80)
    image = torch.stack([rows, columns, torch.full((60, 80), 0.5)])
    for seed in range(20):
        pasted = cut_paste(image, (0.05, 0.1), (0.5, 2.0), torch.Generator().manual_seed(seed))
        different = (pasted != image).any(0)
        values = pasted[:, different]
        # Colors move by a tenth in brightness, contrast and saturation at most.
        assert values.min() > 0.1
        assert values.max() < 1.0
        reds = pasted[0][different].reshape(-1, int(different.any(0).sum()))
        assert (reds[1:] > reds[:-1]).all()


def test_scar_is_a_turned_strip_of_the_papers_sizes():
    image = torch.rand(3, 120, 140, generator=torch.Generator().manual_seed(0))
    turns = []
    for top, left, height, width, _, different in changed_boxes(
        lambda one, by: scar(one, (2.0, 16.0), (10.0, 25.0), 45.0, by), image, 300
    ):
        if top == 0 or left == 0 or top + height == 120 or left + width == 140:
            continue
        rows, columns = (part.double().numpy() for part in torch.where(different))
        centered = np.stack([rows - rows.mean(), columns - columns.mean()])
        assert 0.8 * 2 * 10 <= len(rows) <= 1.1 * 16 * 25
        values, vectors = np.linalg.eigh(centered @ centered.T / len(rows))
        # A strip of length l has the variance l² / 12 along it; the grid of pixels blurs that a little.
        longest, shortest = np.sqrt(12 * values[1] + 1), np.sqrt(12 * max(values[0], 0) + 1)
        assert 9 < longest < 27
        assert 1 < shortest < 18
        if longest > 1.5 * shortest:
            turns.append(math.degrees(math.atan2(vectors[1, 1], vectors[0, 1])))
    folded = np.array([(turn + 90) % 180 - 90 for turn in turns])
    assert len(folded) > 80
    assert np.abs(folded).max() < 52
    assert folded.min() < -30
    assert folded.max() > 30


def test_scar_of_a_plain_image_only_jitters():
    image = torch.full((3, 50, 50), 0.5)
    changed = scar(image, (8.0, 8.0), (20.0, 20.0), 45.0, torch.Generator().manual_seed(3))
    assert ((changed - 0.5).abs() <= 0.05 + 1e-6).all()
    assert (changed != image).any()


def test_score_is_the_mahalanobis_form():
    generator = np.random.default_rng(0)
    features, new = generator.normal(size=(40, 6)) @ generator.normal(size=(6, 6)), generator.normal(size=(3, 2, 6))
    mean = features.mean(0)
    gaussian = Gaussian()
    gaussian.fit(torch.from_numpy(mean[None]).float(), torch.from_numpy(features - mean).float())
    covariance, _ = ledoit_wolf(features - mean, assume_centered=True)
    precision = np.linalg.inv(covariance + 1e-6 * np.eye(6))
    offsets = new - mean
    expected = np.einsum("bni,ij,bnj->bn", offsets, precision, offsets) / 2
    found = gaussian.score(torch.from_numpy(new).float())
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4)
    gradient = gaussian.gradient(torch.from_numpy(new[:, 0]).float())
    np.testing.assert_allclose(gradient.numpy(), offsets[:, 0] @ precision, rtol=1e-3, atol=1e-4)


def test_gradient_map_is_grad_cam_of_the_score():
    generator = np.random.default_rng(1)
    features = torch.from_numpy(generator.random((2, 6, 3, 4))).requires_grad_()
    gaussian = Gaussian()
    sample = torch.from_numpy(generator.normal(size=(30, 6)))
    gaussian.fit(sample.mean(0, keepdim=True).float(), (sample - sample.mean(0)).float())
    gaussian.double()
    scores = gaussian.score(features.mean((2, 3))[:, None])[:, 0]
    scores.sum().backward()
    # Selvaraju et al.: weights are the gradients by the features, averaged over places.
    weights = features.grad.mean((2, 3), keepdim=True).numpy()
    expected = np.maximum((weights * features.detach().numpy()).sum(1), 0)
    found = gradient_map(features.detach().float(), gaussian.gradient(features.detach().mean((2, 3))).float())
    assert expected.max() > 0
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("density", ["shared", "place"])
def test_map_is_the_weighted_mean_of_the_windows_about_a_pixel(images, density):
    method = fitted(images, density=density)
    with torch.inference_mode():
        raw, own = method(images[:1])
        features = {}
        for top in range(0, 33, 8):
            for left in range(0, 65, 8):
                window = images[:1, :, top : top + 32, left : left + 32]
                features[top, left] = method.patch_trunk(window).mean((2, 3))[0].double().numpy()
    whitening = method.patch_gaussian.whitening.double().numpy()
    means = method.patch_gaussian.means.double().numpy()
    assert len(means) == (len(features) if density == "place" else 1)
    total, weight = np.zeros((64, 96)), np.zeros((64, 96))
    offsets = np.arange(32) - 15.5
    kernel = np.exp(-(offsets[:, None] ** 2 + offsets**2) / (2 * 8**2))
    for number, ((top, left), feature) in enumerate(features.items()):
        deviation = whitening @ (feature - means[number if density == "place" else 0])
        total[top : top + 32, left : left + 32] += kernel * (deviation @ deviation) / 2
        weight[top : top + 32, left : left + 32] += kernel
    assert own.shape == (1,)
    np.testing.assert_allclose(raw[0].numpy(), total / weight, rtol=1e-2)


def test_gradient_needs_no_second_network(images):
    method = fitted(images, localization="gradient")
    assert not any(name.startswith("patch_") for name in method.fitted_state())
    with torch.inference_mode():
        raw, own = method(images)
    assert raw.shape == (4, 1, 2)
    assert (raw >= 0).all()
    assert torch.isfinite(own).all()


def test_mistakes_are_named(images):
    with pytest.raises(SettingsError, match="96 pixels do not fit into 64"):
        fitted(images, patch=96)
    with pytest.raises(ValueError, match="the smaller first"):
        CutPasteSettings(area=(0.2, 0.1))
