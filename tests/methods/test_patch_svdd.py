"""Patch SVDD against straightforward float64 NumPy."""

import numpy as np
import pytest
import torch

from hyperspot.backbones import NONE, create
from hyperspot.errors import SettingsError
from hyperspot.methods.patch_svdd import (
    DIRECTIONS,
    PatchSVDD,
    PatchSVDDSettings,
    directed_pairs,
    near_pairs,
    svdd_loss,
)
from hyperspot.progress import SILENT


@pytest.fixture(scope="module")
def images():
    return torch.rand(4, 3, 88, 104, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def method(images):
    found = PatchSVDD(create(NONE), PatchSVDDSettings(steps=3, patches_per_step=2))
    found.fit([images[:2], images[2:3]], seed=0, progress=SILENT)
    return found


def numbered(count: int, height: int, width: int) -> torch.Tensor:
    """Photos whose colours tell row, column and number, so that a patch tells where it was cut."""
    rows = torch.arange(height).float()[:, None].expand(-1, width)
    columns = torch.arange(width).float().expand(height, -1)
    return torch.stack([torch.stack([rows, columns, torch.full_like(rows, number)]) for number in range(count)])


def test_one_pass_gives_the_codes_of_patch_by_patch(method, images):
    with torch.inference_mode():
        small, large = method.codes(images[3:])
        photo = (images[3:] - method.mean_photo)[0]
        for codes, side, stride in ((small, 32, 4), (large, 64, 16)):
            for row in range(codes.shape[2]):
                for column in range(codes.shape[3]):
                    top, left = min(row * stride, 88 - side), min(column * stride, 104 - side)
                    patch = photo[None, :, top : top + side, left : left + side]
                    torch.testing.assert_close(
                        codes[0, :, row, column], method.encoder.encode(patch)[0], rtol=1e-4, atol=1e-5
                    )
    assert small.shape[2:] == (15, 19)
    assert large.shape[2:] == (3, 4)


def test_map_is_the_product_of_mean_distances_to_the_nearest_good_patch(method, images):
    with torch.inference_mode():
        good = [method.codes(images[number : number + 1]) for number in range(3)]
        new = method.codes(images[3:])
        raw, own = method(images[3:])
    expected = np.ones((88, 104))
    for size, (side, stride) in enumerate(((32, 4), (64, 16))):
        bank = np.concatenate([codes[size][0].flatten(1).T.double().numpy() for codes in good])
        total, count = np.zeros((88, 104)), np.zeros((88, 104))
        codes = new[size][0].double().numpy()
        for row in range(codes.shape[1]):
            for column in range(codes.shape[2]):
                distance = np.linalg.norm(bank - codes[:, row, column], axis=1).min()
                top, left = min(row * stride, 88 - side), min(column * stride, 104 - side)
                total[top : top + side, left : left + side] += distance
                count[top : top + side, left : left + side] += 1
        expected *= total / count
    assert own is None
    # Photos are kept in half precision for training and for what is remembered.
    np.testing.assert_allclose(raw[0].numpy(), expected, rtol=2e-2)


@pytest.mark.parametrize("side", [32, 64])
def test_labels_tell_the_direction_and_distances_are_the_papers(side):
    photos = numbered(400, 160, 140)
    first, second, labels = directed_pairs(photos, side, torch.Generator().manual_seed(0))
    assert set(labels.tolist()) == set(range(8))
    for one, other, label, number in zip(first, second, labels, range(400), strict=True):
        # The recolouring has a deviation of 0.02, so rounding brings back the whole numbers.
        places = [(patch - patch.new_tensor([0, 0, number])[:, None, None])[:2, 0, 0].round() for patch in (one, other)]
        offset = (places[1] - places[0]).tolist()
        for step, found in zip(DIRECTIONS[label], offset, strict=True):
            if step == 0:
                assert found == 0
            else:
                assert 3 * side / 4 <= found * step < side
        assert abs(float(one[2].mean()) - number) < 0.2
        assert abs(float(other[2].mean()) - number) < 0.2


def test_directions_without_room_are_left_out():
    generator = torch.Generator().manual_seed(0)
    assert directed_pairs(numbered(3, 64, 96), 64, generator) is None
    _, _, labels = directed_pairs(numbered(60, 40, 200), 32, generator)
    assert {DIRECTIONS[label] for label in labels} == {(0, -1), (0, 1)}


@pytest.mark.parametrize("side", [32, 64])
def test_near_pairs_lie_within_a_32nd(side):
    photos = numbered(300, 80, 120)
    first, second = near_pairs(photos, side, torch.Generator().manual_seed(0))
    offsets = (second - first)[:, :2, 0, 0]
    assert offsets.abs().max() == side // 32
    assert torch.equal(first[:, 2], second[:, 2])
    assert len(first[:, 0, 0, 0].unique()) > 5


def test_svdd_loss_is_the_mean_distance():
    generator = np.random.default_rng(0)
    first, second = generator.normal(size=(2, 7, 5))
    expected = np.mean([np.sqrt(((a - b) ** 2).sum()) for a, b in zip(first, second, strict=True)])
    found = svdd_loss(torch.from_numpy(first).float(), torch.from_numpy(second).float())
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_equal_codes_give_a_finite_gradient():
    code = torch.ones(2, 4, requires_grad=True)
    svdd_loss(code, code.detach()).backward()
    assert torch.isfinite(code.grad).all()


def test_directions_are_learned():
    told: list[float] = []

    class Listener:
        def track(self, items, stage, total=None):
            yield from items

        def note(self, **values):
            told.append(values["direction"])

    # Colours rise downwards and to the right, so a patch tells its place and two their direction.
    photos = numbered(1, 96, 96) / 96
    method = PatchSVDD(create(NONE), PatchSVDDSettings(steps=70, patches_per_step=16, learning_rate=1e-3))
    method.fit([torch.cat([photos, photos, 0 * photos])], seed=1, progress=Listener())
    # From 2.0 to about 1.0 for each of many seeds: how a machine rounds can cost a part of that, not most of it.
    assert np.mean(told[-10:]) < np.mean(told[:5]) - 0.3


def test_the_bank_is_bounded(images):
    method = PatchSVDD(create(NONE), PatchSVDDSettings(steps=1, patches_per_step=1, bank=50))
    method.fit([images], seed=0, progress=SILENT)
    assert method.small.bank.shape == (50, 64)
    assert method.large.bank.shape == (48, 64)


def test_photos_smaller_than_a_patch_are_refused(images):
    method = PatchSVDD(create(NONE), PatchSVDDSettings())
    with pytest.raises(SettingsError, match="64 pixels do not fit into 56"):
        method.fit([images[:, :, :56]], seed=0, progress=SILENT)
