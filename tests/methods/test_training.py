"""What the methods share that train from scratch."""

import itertools
import math

import numpy as np
import pytest
import torch

from hyperspot.errors import SettingsError
from hyperspot.methods import training as scratch
from hyperspot.methods.augmentation import crops, jitter, move
from hyperspot.methods.training import (
    ImageCache,
    ResNet18,
    fold_norms,
    initialize,
    steps_with_rates,
    with_norms,
    without_storage,
)
from hyperspot.methods.windows import cut_windows, spread, starts
from hyperspot.utils.progress import SILENT


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_folding_changes_no_result_and_leaves_plain_convolutions():
    network = initialize(with_norms(without_storage(ResNet18)), generator())
    images = torch.rand(4, 3, 64, 96, generator=generator())
    for _ in range(3):
        network(images)
    expected = network.eval()(images).detach()
    folded = fold_norms(network)
    torch.testing.assert_close(folded(images), expected, rtol=1e-3, atol=1e-4)
    plain = without_storage(ResNet18).state_dict()
    assert {name: value.shape for name, value in folded.state_dict().items()} == {
        name: value.shape for name, value in plain.items()
    }
    assert folded(images).shape == (4, 512, 2, 3)
    assert not any(parameter.requires_grad for parameter in folded.parameters())


def test_it_is_a_resnet_18():
    # torchvision's has 11 176 512 parameters without its classifier, 9600 of them in batch norms.
    convolutions = sum(
        value.numel() for name, value in without_storage(ResNet18).state_dict().items() if "weight" in name
    )
    assert convolutions == 11_176_512 - 9_600


def test_first_weights_are_the_generators_and_touch_no_global_state():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first, second = (initialize(with_norms(without_storage(ResNet18)), generator(3)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(one, other) for one, other in zip(first.parameters(), second.parameters(), strict=True))
    weight = first.stages[2][1].conv1.convolution.weight
    assert float(weight.detach().std()) == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.02)


def test_rates_warm_up_and_fall_by_a_cosine():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    rates = [
        optimizer.param_groups[0]["lr"]
        for _ in steps_with_rates(100, optimizer, SILENT, "training", warm_up=0.1, floor=0.01)
    ]
    expected = [2 * (0.1 + 0.9 * step / 10) for step in range(10)]
    expected += [2 * (0.01 + 0.99 * (1 + math.cos(math.pi * step / 90)) / 2) for step in range(90)]
    np.testing.assert_allclose(rates, expected, rtol=1e-12)


def test_too_many_images_are_sampled_evenly(monkeypatch):
    monkeypatch.setattr(scratch, "CACHE_BYTES", 5 * 2 * 3 * 4 * 4)
    images = torch.arange(20.0)[:, None, None, None].expand(-1, 3, 4, 4)
    counts = np.zeros(20)
    for seed in range(400):
        kept = ImageCache.collect(images.split(7), generator(seed))
        assert len(kept) == 5
        counts[kept.pixels[:, 0, 0, 0].long().numpy()] += 1
    # Each is kept with a chance of 1/4: 100 of 400 times, give or take 4 deviations.
    assert counts.min() > 65
    assert counts.max() < 135


def test_no_image_is_refused():
    with pytest.raises(ValueError, match="no image"):
        ImageCache.collect([], generator())


def test_jitter_stays_within_its_factors_and_leaves_gray_gray():
    gray = torch.full((40, 3, 5, 6), 0.5)
    found = jitter(gray, 0.1, generator())
    assert ((found - 0.5).abs() <= 0.05 + 1e-6).all()
    assert len(found[:, 0, 0, 0].unique()) > 30
    torch.testing.assert_close(found[:, 0], found[:, 2])
    colors = torch.rand(10, 3, 5, 6, generator=generator(1))
    torch.testing.assert_close(jitter(colors, 0.0, generator()), colors)


def test_moving_turns_by_degrees_and_shifts_by_sides():
    image = torch.zeros(1, 3, 81, 121)
    image[:, :, 38:43, 98:103] = 1.0
    places = []
    for seed in range(60):
        moved = move(image, 10.0, 0.05, generator(seed))[0, 0]
        mass = moved / moved.sum()
        places.append([float((mass.sum(1) * torch.arange(81)).sum()), float((mass.sum(0) * torch.arange(121)).sum())])
    rows, columns = np.array(places).T
    # The dot lies 40 pixels right of the center: a turn by 10 degrees lifts it by 7, a shift moves it by 4 of 81.
    assert np.abs(rows - 40).max() < 40 * math.sin(math.radians(10)) + 0.05 * 81 + 0.5
    assert np.abs(rows - 40).max() > 6
    assert np.abs(columns - 100).max() < 0.05 * 121 + 40 * (1 - math.cos(math.radians(10))) + 1.5
    torch.testing.assert_close(move(image, 0.0, 0.0, generator()), image, atol=1e-4, rtol=0)


def test_crops_lie_everywhere_inside():
    image = torch.arange(12 * 15.0).reshape(1, 1, 12, 15).expand(200, 3, -1, -1)
    found = crops(image, 10, generator())
    assert found.shape == (200, 3, 10, 10)
    assert len(found[:, 0, 0, 0].unique()) == 18


@pytest.mark.parametrize(("length", "window", "stride"), [(64, 32, 8), (90, 32, 12), (32, 32, 4)])
def test_windows_hold_every_pixel(length, window, stride):
    found = starts(length, window, stride)
    assert found[0] == 0
    assert found[-1] == length - window
    assert sorted(set(found)) == found
    assert all(later - earlier <= stride for earlier, later in itertools.pairwise(found))
    images = torch.rand(2, 3, length, length + 8)
    windows = cut_windows(images, window, stride)
    across = starts(length + 8, window, stride)
    assert len(windows) == 2 * len(found) * len(across)
    last = images[1, :, found[-1] : found[-1] + window, across[-1] : across[-1] + window]
    assert torch.equal(windows[-1], last)
    second = images[0, :, :window, across[-1] : across[-1] + window]
    assert torch.equal(windows[len(across) - 1], second)


def test_windows_that_do_not_fit_are_refused():
    with pytest.raises(SettingsError, match="--short-side"):
        starts(31, 32, 4)


def test_spreading_is_the_mean_over_windows():
    scores = np.random.default_rng(0).random((2, 4, 3))
    down, across = starts(50, 16, 12), starts(40, 16, 12)
    assert (len(down), len(across)) == (4, 3)
    total, weight = np.zeros((2, 50, 40)), np.zeros((50, 40))
    for i, top in enumerate(down):
        for j, left in enumerate(across):
            total[:, top : top + 16, left : left + 16] += scores[:, i, j, None, None]
            weight[top : top + 16, left : left + 16] += 1
    found = spread(torch.from_numpy(scores).float(), 50, 40, 16, 12)
    np.testing.assert_allclose(found.numpy(), total / weight, rtol=1e-5)
