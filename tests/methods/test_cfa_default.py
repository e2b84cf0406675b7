"""The default variant of CFA: levels whitened apart, weighted, on the grid of level 3."""

import importlib.util

import numpy as np
import pytest
import torch
from torch import nn

from hyperspot import Detector
from hyperspot.backbones import Backbone, create
from hyperspot.detector.settings import make_settings, parse_assignments
from hyperspot.errors import SettingsError
from hyperspot.features.whitening import partial_whitening
from hyperspot.methods import cfa
from hyperspot.methods.cfa import CFA
from hyperspot.methods.cfa_settings import CFASettings
from hyperspot.utils.progress import SILENT
from tests.methods.cfa_reference import described, distances, fitted, memory, patch_features, pooled

WEIGHTS = (0.5, 1.0, 1.0)


class Plain(CFA):
    """Stays in the axes of the levels."""

    def _rotate(self):
        pass


def plain(backbone, images, **settings):
    method = Plain(backbone, CFASettings(**settings))
    method.fit([images], seed=0, progress=SILENT)
    return method


def settings_of(*assignments):
    return make_settings({"method_settings": parse_assignments(assignments)}).method_settings


@pytest.mark.parametrize("levels", [(2, 3, 4), [2, 3, 4], (4, 3, 2), ("2", "3", "4")])
def test_the_levels_of_the_variant_keep_its_weights(levels):
    assert CFASettings(levels=levels).level_weights == CFASettings().level_weights == WEIGHTS


@pytest.mark.parametrize("levels", [(3, 4), [4], (2, 3)])
def test_other_levels_drop_the_weights_of_the_variant(levels):
    settings = CFASettings(levels=levels)
    assert settings.level_weights == ()
    assert (settings.grid_level, settings.initialization) == (3, "whitened")
    again = CFASettings.model_validate_json(settings.model_dump_json())
    assert again == settings
    own = tuple(float(level) for level in levels)
    assert CFASettings(levels=levels, level_weights=own).level_weights == own
    assert CFASettings.model_validate_json(CFASettings().model_dump_json()) == CFASettings()


@pytest.mark.parametrize(
    ("assignments", "named"),
    [
        (["level_weights=1,2"], r"'level_weights' cannot be \(1, 2\): the 3 levels need as many weights$"),
        (["levels=3,4", "level_weights=1,2,3"], r"'level_weights' cannot be \(1, 2, 3\): the 2 levels need"),
        (["level_weights=1,0,1"], "greater than 0"),
        (["whitening=0.6"], "whitening"),
        (["whitened_channels=0"], "whitened_channels"),
        (["grid_level=7"], "grid_level"),
    ],
)
def test_wrong_weights_are_one_error(assignments, named):
    with pytest.raises(SettingsError, match=named) as refused:
        settings_of(*assignments)
    assert "\n" not in str(refused.value)


def test_one_level_takes_one_weight_from_the_command_line():
    settings = settings_of("levels=4", "level_weights=0.5")
    assert (settings.levels, settings.level_weights) == ((4,), (0.5,))


def test_the_descriptor_whitens_each_level_by_itself(backbone, images):
    method = plain(backbone, images)
    expected = torch.zeros(0, 0)
    for level, weight in zip(method.pooled_levels(images), WEIGHTS, strict=True):
        patches = level.permute(0, 2, 3, 1).flatten(0, 2)
        kept = min(64, patches.shape[1] // 2)
        expected = torch.block_diag(expected, partial_whitening(patches, kept, 0.15) * weight)
    assert method.weight.shape == (32 + 64 + 64, 448 + 2)
    # Axes have no sign.
    assert_same_gram(method.weight[:, :-2], expected)
    assert not method.weight[:, -2:].any(), "the position counts for nothing"
    assert not method.bias.any()


def assert_same_gram(found, expected):
    found, expected = (one.double().T @ one.double() for one in (found, expected))
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-3, atol=1e-5 * float(expected.abs().max()))


def test_a_weight_is_the_factor_of_its_level(backbone, images):
    one, other = (plain(backbone, images, level_weights=weights) for weights in ((1, 1, 1), (0.5, 2, 1)))
    factors = torch.tensor([0.5] * 32 + [2.0] * 64 + [1.0] * 64)[:, None]
    torch.testing.assert_close(other.weight, one.weight * factors)


def test_whitening_takes_a_sample_of_many_patches(backbone, images, monkeypatch):
    seen = []

    def recorded(patches, channels, power):
        seen.append((tuple(patches.shape), channels, power))
        return partial_whitening(patches, channels, power)

    monkeypatch.setattr(cfa, "partial_whitening", recorded)
    monkeypatch.setattr(cfa, "WHITENING_PATCHES", 200)
    method = plain(backbone, images, whitening=0.3, whitened_channels=20, gamma_d=8)
    # The coarsest level has 4 x 6 positions in each of 6 images.
    assert seen == [((200, 64), 8, 0.3), ((200, 128), 16, 0.3), ((144, 256), 20, 0.3)]
    assert method.weight.shape == (8 + 16 + 20, 450)


def test_the_score_is_the_distance_to_the_nearest_vector(backbone, images):
    """Without the softmin, whose weight of one neighbor is 1."""
    method = fitted(backbone, images)
    features = patch_features(backbone, images, (2, 3, 4), grid=3)
    expected = np.sqrt([distances(described(method, image), memory(method)).min(1) for image in features])
    with torch.inference_mode():
        found = method(images)[0].flatten(1).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2e-3 * expected.max())
    assert expected.max() > 0.1


class Pyramid(Backbone):
    """One convolution for each of the given strides."""

    def __init__(self, strides, levels):
        super().__init__("pyramid", (6,) * len(strides), strides, levels=levels)
        self.stages = nn.ModuleList(nn.Conv2d(3, 6, stride, stride) for stride in strides)
        self.requires_grad_(False)

    def pyramid(self, images):
        return [stage(images) for stage in self.stages]


@pytest.mark.parametrize(
    ("strides", "levels", "used", "grid_level", "stride"),
    [
        ((4, 8, 16), (2, 3, 4), (2, 3, 4), 3, 8),
        ((4, 8, 16), (2, 3, 4), (2, 3, 4), None, 4),
        ((4, 8, 16), (2, 3, 4), (2, 3), 4, 8),
        ((4, 8, 16), (2, 3, 4), (2, 3), 6, 8),
        ((4, 8, 16), (2, 3, 4), (2, 4), 3, 8),
        ((4, 8, 16), (2, 3, 4), (4,), 3, 16),
        # A vision transformer: all levels of one stride.
        ((16, 16, 16), (2, 3, 4), (2, 3, 4), 3, 16),
        # Levels of other strides than their numbers.
        ((8, 16, 32), (2, 3, 4), (2, 3, 4), 3, 16),
        ((8, 16, 32), (3, 4, 5), (3, 4, 5), 3, 8),
        ((8, 16, 32), (3, 4, 5), (4, 5), 2, 16),
    ],
)
def test_the_grid_is_that_of_its_level(strides, levels, used, grid_level, stride):
    method = CFA(Pyramid(strides, levels), CFASettings(levels=used, grid_level=grid_level))
    images = torch.randn(3, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    method.fit([images], seed=0, progress=SILENT)
    with torch.inference_mode():
        assert method(images)[0].shape == (3, 64 // stride, 96 // stride)


def test_odd_levels_are_averaged_to_the_grid(backbone):
    """C2 is 15 x 23, C3 is 8 x 12: the last cells are one position wide."""
    images = torch.randn(3, 3, 60, 92, generator=torch.Generator().manual_seed(0))
    method = fitted(backbone, images)
    fine, grid = method.pooled_levels(images)[:2]
    assert fine.shape[2:] == grid.shape[2:] == (8, 12)
    expected = pooled(backbone(images)[0].double().numpy())
    np.testing.assert_allclose(fine[:, :, -1, -1].numpy(), expected[:, :, -1, -1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(fine[:, :, 0, 0].numpy(), expected[:, :, :2, :2].mean((2, 3)), rtol=1e-4, atol=1e-5)


def test_a_level_that_the_backbone_lacks_is_named():
    with pytest.raises(SettingsError, match=r"'pyramid' has no level 2 \(stride 4\); choose levels among 3, 4"):
        CFA(Pyramid((8, 16), (3, 4)))
    CFA(Pyramid((8, 16), (3, 4)), CFASettings(levels=(3, 4)))


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("kind", ["noise", "constant", "copies"])
def test_few_and_poor_images_give_finite_maps(backbone, count, kind):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, 64, 64, generator=generator)
    if kind == "constant":
        images = torch.full((count, 3, 64, 64), 0.7)
    elif kind == "copies":
        images = images[:1].expand(count, -1, -1, -1).contiguous()
    method = fitted(backbone, images)
    odd = images[:1].clone()
    odd[:, :, 24:40, 24:40] += 3
    with torch.inference_mode():
        good, bad = method(images[:1])[0], method(odd)[0]
    assert torch.isfinite(good).all()
    assert torch.isfinite(bad).all()
    assert bad.max() > 2 * good.max()


@pytest.mark.parametrize("name", ["vgg19_bn", "timm/mobilenetv3_small_050"])
def test_other_backbones(name):
    if name.startswith("timm") and importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    backbone = create(name, weights="random:0")
    method = fitted(backbone, images)
    with torch.inference_mode():
        found = method(images)[0]
    assert found.shape == (4, 64 // backbone.strides[1], 64 // backbone.strides[1])
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("crops", ["center", "fused"])
def test_crops(crops):
    generator = np.random.default_rng(0)
    good = list(generator.integers(100, 140, (12, 128, 128, 3), dtype=np.uint8))
    detector = Detector.fit(good, crops=crops, short_side=128, false_alarm_rate=0.2, device="cpu")
    bad = good[0].copy()
    bad[32:80, 40:88] = 255
    verdict = detector.predict(bad)
    true = np.zeros((128, 128), dtype=bool)
    true[32:80, 40:88] = True
    assert verdict.is_anomalous
    assert (verdict.mask & true).sum() > 0.9 * true.sum()
    assert verdict.mask.sum() < 3 * true.sum()
    assert not detector.predict(good[1]).is_anomalous


@pytest.mark.parametrize("count", [2, 5])
def test_constant_images_calibrate(count):
    plain_images = [np.full((64, 64, 3), 120, np.uint8)] * count
    detector = Detector.fit(plain_images, short_side=64, false_alarm_rate=0.4, device="cpu")
    assert np.isfinite(detector.decision_rule.calibration.scores).all()
    odd = plain_images[0].copy()
    odd[20:44, 20:44] = 250
    verdict = detector.predict(odd)
    assert np.isfinite(verdict.heatmap).all()
    assert verdict.is_anomalous
    assert not detector.predict(plain_images[0]).is_anomalous
