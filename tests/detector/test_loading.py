"""Photos enter as (pixel / 255 - mean) / deviation of each color, in fitting as in judging."""

import numpy as np
import pytest
import torch

from hyperspot.backbones import create
from hyperspot.detector.fitting import fit_model
from hyperspot.detector.loading import BatchLoader, ImageLoader, normalize
from hyperspot.detector.settings import make_settings
from hyperspot.hardware.devices import CPU
from hyperspot.images import Crop, InputSize
from hyperspot.utils.progress import SILENT

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet."""


@pytest.fixture(scope="module")
def photos():
    return np.random.default_rng(0).integers(0, 256, (10, 64, 96, 3), dtype=np.uint8)


def entered(photos: np.ndarray, mean=MEAN, deviation=DEVIATION) -> np.ndarray:
    return ((photos.astype(np.float64) / 255 - mean) / deviation).transpose(0, 3, 1, 2)


def test_normalizing_is_the_definition(photos):
    mean, deviation = (0.1, 0.5, 0.7), (0.2, 1.0, 3.0)
    found = normalize(torch.from_numpy(photos), mean, deviation)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), entered(photos, mean, deviation), rtol=1e-5, atol=2e-6)


def test_batches_are_the_normalized_view(photos):
    batches = BatchLoader(
        ImageLoader(list(photos), InputSize(64, 96, "contain")), [9, *range(9)], Crop(8, 16, 32, 40), MEAN, DEVIATION
    )
    first, rest = batches
    assert (len(first), len(rest)) == (8, 2)
    expected = entered(photos[[9, *range(9)], 8:40, 16:56])
    np.testing.assert_allclose(torch.cat([first, rest]).numpy(), expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("crops", ["full", "center"])
def test_a_method_meets_the_same_photos_in_fitting_and_in_judging(photos, crops):
    fitted_state, judged = [], []

    def watch(method, crop):
        fit = method.fit

        def fit_and_tell(images, **options):
            fitted_state.extend(batch.numpy() for batch in images)
            fit(images, **options)

        method.fit = fit_and_tell
        method.register_forward_pre_hook(lambda _, given: judged.append(given[0].numpy()))

    settings = make_settings({"method": "padim", "backbone": "resnet18", "crops": crops})
    backbone = create("resnet18", weights="random:0")
    kept = ImageLoader(list(photos), InputSize(64, 96, "contain"))
    anomaly_model = fit_model(kept, range(len(photos)), backbone, settings, SILENT, CPU, watch)
    assert judged == []
    anomaly_model.run(photos)
    seen = photos if crops == "full" else photos[:, 4:60, 8:88]
    for met in (fitted_state, judged):
        np.testing.assert_allclose(np.concatenate(met), entered(seen), rtol=1e-5, atol=2e-6)
