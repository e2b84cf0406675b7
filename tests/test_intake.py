"""Photos enter as (pixel / 255 - mean) / deviation of each colour, in fitting as in judging."""

import numpy as np
import pytest
import torch

from hyperspot.backbones import create
from hyperspot.devices import CPU
from hyperspot.fitting import fit_scorer
from hyperspot.images import Frame, View
from hyperspot.intake import Batches, Photos, normalise
from hyperspot.progress import SILENT
from hyperspot.settings import make_settings

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet."""


@pytest.fixture(scope="module")
def photos():
    return np.random.default_rng(0).integers(0, 256, (10, 64, 96, 3), dtype=np.uint8)


def entered(photos: np.ndarray, mean=MEAN, deviation=DEVIATION) -> np.ndarray:
    return ((photos.astype(np.float64) / 255 - mean) / deviation).transpose(0, 3, 1, 2)


def test_normalising_is_the_definition(photos):
    mean, deviation = (0.1, 0.5, 0.7), (0.2, 1.0, 3.0)
    found = normalise(torch.from_numpy(photos), mean, deviation)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), entered(photos, mean, deviation), rtol=1e-5, atol=2e-6)


def test_batches_are_the_normalised_view(photos):
    batches = Batches(
        Photos(list(photos), Frame(64, 96, "contain")), [9, *range(9)], View(8, 16, 32, 40), MEAN, DEVIATION
    )
    first, rest = batches
    assert (len(first), len(rest)) == (8, 2)
    expected = entered(photos[[9, *range(9)], 8:40, 16:56])
    np.testing.assert_allclose(torch.cat([first, rest]).numpy(), expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("views", ["whole", "crop"])
def test_a_method_meets_the_same_photos_in_fitting_and_in_judging(photos, views):
    learned, judged = [], []

    def watch(method, view):
        fit = method.fit

        def fit_and_tell(images, **options):
            learned.extend(batch.numpy() for batch in images)
            fit(images, **options)

        method.fit = fit_and_tell
        method.register_forward_pre_hook(lambda _, given: judged.append(given[0].numpy()))

    settings = make_settings({"method": "padim", "backbone": "resnet18", "views": views})
    backbone = create("resnet18", weights="random:0")
    kept = Photos(list(photos), Frame(64, 96, "contain"))
    scorer = fit_scorer(kept, range(len(photos)), backbone, settings, SILENT, CPU, watch)
    assert judged == []
    scorer.run(photos)
    seen = photos if views == "whole" else photos[:, 4:60, 8:88]
    for met in (learned, judged):
        np.testing.assert_allclose(np.concatenate(met), entered(seen), rtol=1e-5, atol=2e-6)
