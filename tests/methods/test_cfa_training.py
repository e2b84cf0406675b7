"""Initialization and training of CFA, against NumPy, SciPy, scikit-learn and torch's own optimizer."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.cluster import KMeans
from torch.nn import functional

from hyperspot.backbones import create
from hyperspot.features.patches import PatchCache
from hyperspot.methods.cfa import CFA
from hyperspot.methods.cfa_settings import CFASettings
from hyperspot.utils.progress import SILENT
from tests.methods.cfa_reference import algorithm_1_of_the_paper, described, fitted, memory, patch_features


@pytest.mark.parametrize("initialization", ["torch", "he"])
def test_the_descriptor_begins_as_its_source_says(backbone, images, initialization):
    """PyTorch's convolution draws weight and bias from U(±1/√fan_in), He et al. (2015) weights from N(0, 2/fan_in)."""
    method = CFA(backbone, CFASettings(variant="released", initialization=initialization))
    cache = PatchCache.collect([method.pooled_levels(images)])
    method._initialize(cache, torch.Generator().manual_seed(0))
    weight, bias = method.weight.double().numpy(), method.bias.double().numpy()
    fan_in = 64 + 128 + 256 + 2
    assert weight.shape == (448, fan_in)
    bound = 1 / np.sqrt(fan_in)
    uniform = stats.uniform(-bound, 2 * bound)
    expected = uniform if initialization == "torch" else stats.norm(0, np.sqrt(2 / fan_in))
    # The largest gap between what was drawn and what it was drawn from: 1.95/√n is exceeded once in a thousand draws.
    assert stats.kstest(weight.ravel(), expected.cdf).statistic < 1.95 / np.sqrt(weight.size)
    assert stats.kstest(bias, uniform.cdf).statistic < 1.95 / np.sqrt(bias.size)
    assert 0.97 * bound < np.abs(bias).max() <= bound


def test_the_taps_of_each_variant(backbone, images):
    options = {name: CFA.backbone_options(CFASettings(variant=name)) for name in ("released", "paper", "default")}
    steep = create("resnet18", weights="random:0", output_negative_slope=0.5)(images)
    for name, slope in {"released": 0.01, "paper": 0.0, "default": 0.0}.items():
        for seen, level in zip(create("resnet18", weights="random:0", **options[name])(images), steep, strict=True):
            expected = np.where(level > 0, level, level / 0.5 * slope)
            np.testing.assert_allclose(seen.numpy(), expected, rtol=1e-5, atol=1e-6)
            assert (level < 0).any()


@pytest.mark.parametrize("gamma_c", [1, 8])
def test_fit_builds_the_bank_of_algorithm_1(backbone, images, gamma_c):
    """From all positions of the first image, or from their K-means; then image by image in their order, moving by β."""
    method = fitted(
        backbone, images, variant="paper", bank="algorithm1", levels=(3, 4), steps=0, beta=0.35, gamma_c=gamma_c
    )
    patches = described(method, patch_features(backbone, images, (3, 4)))
    start = patches[0]
    if gamma_c > 1:
        start = KMeans(len(start) // gamma_c, n_init=1, max_iter=3000, random_state=3).fit(start).cluster_centers_
    expected = algorithm_1_of_the_paper(patches, start, 0.35)
    np.testing.assert_allclose(memory(method), expected, rtol=1e-4, atol=1e-4)


class Unturned(CFA):
    """Stays in the axes that it was trained in: only in those can the steps of Adam be repeated."""

    def _rotate(self):
        pass


@pytest.mark.parametrize(
    "changes", [{}, {"learning_rate": 0.02}, {"weight_decay": 10.0}, {"learn_radius": False}], ids=str
)
def test_training_takes_the_steps_of_adamw(backbone, images, changes):
    """Each step takes all patches of all images, so that the order in which they are drawn has no part in it."""
    count = 12
    settings = {"variant": "released", "levels": (4,), "gamma_d": 8, "radius": 3.5, "steps": count}
    settings |= {"images_per_step": len(images), "patches_per_step": 0, **changes}
    start, trained = (Unturned(backbone, CFASettings(**{**settings, "steps": steps})) for steps in (0, count))
    for method in (start, trained):
        method.fit([images], seed=3, progress=SILENT)
    patches = torch.from_numpy(patch_features(backbone, images, (4,))).flatten(0, 1)
    bank = torch.from_numpy(memory(start))
    names = ["weight", "bias", "radius"]
    weight, bias, radius = (getattr(start, name).detach().double().clone() for name in names)
    radius.requires_grad_(changes.get("learn_radius", True))
    optimizer = torch.optim.AdamW(
        [weight.requires_grad_(), bias.requires_grad_(), *([radius] if radius.requires_grad else [])],
        lr=changes.get("learning_rate", 0.001),
        weight_decay=changes.get("weight_decay", 0.0005),
        amsgrad=True,
    )
    for step in range(count):
        ranked = torch.cdist(functional.linear(patches, weight, bias), bank).square().sort(dim=1).values
        attraction = (ranked[:, :3] - radius**2).clamp(min=0).mean()
        repulsion = (radius**2 - ranked[:, 3:6] - 0.1).clamp(min=0).mean()
        assert step > 0 or min(attraction.item(), repulsion.item()) > 0.1
        optimizer.zero_grad()
        (1000 * (attraction + repulsion)).backward()
        optimizer.step()
    for name, expected in zip(names, (weight, bias, radius), strict=True):
        found = getattr(trained, name).double().numpy()
        np.testing.assert_allclose(found, expected.detach().numpy(), rtol=5e-7, atol=5e-7, err_msg=name)


OTHER = {
    "hard_negatives": 5, "radius": 0.5, "learn_radius": False, "alpha": 0.7, "beta": 0.9, "loss_scale": 3.0,
    "losses": "attraction", "steps": 3, "images_per_step": 2, "patches_per_step": 64, "learning_rate": 0.1,
    "weight_decay": 0.2, "bank_ratio": 2, "level_weights": (1.0, 2.0, 3.0), "whitening": 0.4, "whitened_channels": 5,
}  # fmt: skip


@pytest.mark.parametrize(
    "given",
    [
        {"variant": "default", "losses": "none"},
        {"variant": "released", "losses": "attraction", "steps": 2},
        {"variant": "released", "steps": 0},
    ],
)
def test_unused_settings_are_those_that_change_nothing(backbone, images, given):
    def trained(**changes):
        method = CFA(backbone, CFASettings(**{**given, **changes}))
        method.fit([images], seed=0, progress=SILENT)
        return {name: value for name, value in method.fitted_state().items() if name != "radius"}

    expected = trained()
    unused = CFA.unused_settings(CFASettings(**given))
    assert "beta" in unused
    for name in unused - given.keys():
        changed = trained(**{name: OTHER[name]})
        assert all(torch.equal(changed[key], value) for key, value in expected.items()), name
    for name in {"learning_rate", "patches_per_step"} - unused:
        changed = trained(**{name: OTHER[name]})
        assert not all(torch.equal(changed[key], value) for key, value in expected.items()), name
