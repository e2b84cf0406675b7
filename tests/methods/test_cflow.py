"""CFLOW against straightforward float64 NumPy."""

import math

import numpy as np
import pytest
import torch

from hyperspot.methods.cflow import CFlow, CFlowSettings, Coupling, Flow, _initialize, position_codes
from hyperspot.utils.progress import SILENT


@pytest.fixture(scope="module")
def images():
    return torch.randn(4, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def drawn_block(channels: int, condition: int, seed: int = 0) -> Coupling:
    """A block in double precision that is far from the identity."""
    generator = torch.Generator().manual_seed(seed)
    block = Coupling(channels, condition)
    _initialize(block, generator)
    block.double()
    with torch.no_grad():
        block.narrow.weight.copy_(torch.randn(block.narrow.weight.shape, generator=generator) * 3)
        block.scale.add_(torch.randn(channels, generator=generator) * 4)
        block.shift.copy_(torch.randn(channels, generator=generator))
    return block


def by_hand(block: Coupling, values: np.ndarray, condition: np.ndarray) -> tuple[np.ndarray, float]:
    """One vector through one block as the papers have it."""
    weights = {name: tensor.detach().numpy() for name, tensor in block.state_dict().items()}
    changed = len(values) // 2
    kept, moved = values[: len(values) - changed], values[len(values) - changed :]
    entering = np.concatenate([kept, condition])
    hidden = np.maximum(weights["widen.weight"] @ entering + weights["widen.bias"], 0)
    given = 0.1 * (weights["narrow.weight"] @ hidden + weights["narrow.bias"])
    logarithm, offset = 1.9 * np.tanh(given[:changed]), given[changed:]
    joined = np.concatenate([kept, moved * np.exp(logarithm) + offset])
    scales = 0.1 * np.log1p(np.exp(0.5 * weights["scale"])) / 0.5
    return (joined * scales + weights["shift"]) @ weights["rotation"], logarithm.sum() + np.log(scales).sum()


@pytest.mark.parametrize("channels", [6, 7])
def test_block_is_the_definition(channels):
    block = drawn_block(channels, 4)
    generator = np.random.default_rng(0)
    values, condition = generator.normal(size=(5, channels)), generator.normal(size=(5, 4))
    with torch.no_grad():
        found, determinants = block(torch.from_numpy(values), torch.from_numpy(condition))
    for number in range(5):
        expected, determinant = by_hand(block, values[number], condition[number])
        np.testing.assert_allclose(found[number].numpy(), expected, rtol=1e-10)
        assert float(determinants[number]) == pytest.approx(determinant, rel=1e-10)


@pytest.mark.parametrize("channels", [6, 7])
def test_inverse_undoes_a_block(channels):
    block = drawn_block(channels, 4)
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(9, channels, dtype=torch.double, generator=generator)
    condition = torch.randn(9, 4, dtype=torch.double, generator=generator)
    with torch.no_grad():
        there, _ = block(values, condition)
        back = block.inverse(there, condition)
    assert (there - values).abs().max() > 0.5
    np.testing.assert_allclose(back.numpy(), values.numpy(), atol=1e-5)


def test_determinant_is_that_of_the_numeric_jacobian():
    blocks = [drawn_block(6, 4, seed) for seed in range(3)]
    generator = np.random.default_rng(2)
    values, condition = generator.normal(size=6), torch.from_numpy(generator.normal(size=(1, 4)))

    @torch.no_grad()
    def through(vector):
        flowing, total = torch.from_numpy(vector)[None], 0.0
        for block in blocks:
            flowing, added = block(flowing, condition)
            total += float(added[0])
        return flowing[0].numpy(), total

    step = 1e-6
    jacobian = np.stack(
        [(through(values + step * unit)[0] - through(values - step * unit)[0]) / (2 * step) for unit in np.eye(6)],
        axis=1,
    )
    assert through(values)[1] == pytest.approx(np.log(abs(np.linalg.det(jacobian))), rel=1e-6)


def test_a_new_block_only_rotates_where_its_network_says_nothing():
    block = Coupling(8, 4)
    _initialize(block, torch.Generator().manual_seed(0))
    with torch.no_grad():
        block.narrow.weight.zero_()
        block.narrow.bias.zero_()
        values = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
        found, determinant = block(values, torch.zeros(3, 4))
    torch.testing.assert_close(block.rotation @ block.rotation.T, torch.eye(8), atol=1e-6, rtol=0)
    torch.testing.assert_close(found, values @ block.rotation, atol=1e-5, rtol=0)
    torch.testing.assert_close(determinant, torch.zeros(3), atol=1e-5, rtol=0)


def test_likelihood_is_the_change_of_variables():
    flow = Flow(6, 4, 2)
    for number, block in enumerate(flow.blocks):
        block.load_state_dict(drawn_block(6, 4, number).state_dict())
    flow.double()
    generator = np.random.default_rng(3)
    flow.center, flow.deviation = (
        torch.from_numpy(generator.normal(size=6)),
        torch.from_numpy(generator.random(6) + 0.5),
    )
    values, condition = generator.normal(size=(4, 6)), generator.normal(size=(4, 4))
    with torch.no_grad():
        found = flow(torch.from_numpy(values), torch.from_numpy(condition)).numpy()
    for number in range(4):
        vector, total = (values[number] - flow.center.numpy()) / flow.deviation.numpy(), 0.0
        for block in flow.blocks:
            vector, added = by_hand(block.double(), vector, condition[number])
            total += added
        density = np.prod(np.exp(-0.5 * vector**2) / math.sqrt(2 * math.pi))
        assert found[number] == pytest.approx((np.log(density) + total) / 6, rel=1e-6)


@pytest.mark.parametrize(("length", "height", "width"), [(128, 5, 9), (12, 3, 2)])
def test_codes_of_places_are_the_definition(length, height, width):
    expected = np.zeros((height, width, length))
    half = length // 2
    for row in range(height):
        for column in range(width):
            for pair in range(half // 2):
                frequency = 1 / 10_000 ** (2 * pair / half)
                expected[row, column, 2 * pair] = math.sin(column * frequency)
                expected[row, column, 2 * pair + 1] = math.cos(column * frequency)
                expected[row, column, half + 2 * pair] = math.sin(row * frequency)
                expected[row, column, half + 2 * pair + 1] = math.cos(row * frequency)
    np.testing.assert_allclose(position_codes(length, height, width).numpy(), expected.reshape(-1, length), atol=1e-6)


def fitted(backbone, images, **values):
    method = CFlow(backbone, CFlowSettings(**{"steps": 10, "blocks": 2, "places_per_step": 64, **values}))
    method.fit([images], seed=0, progress=SILENT)
    return method


def test_map_adds_up_what_each_level_lacks_of_the_best_good_place(backbone, images):
    method = fitted(backbone, images[:3], levels=(3, 4))
    with torch.inference_mode():
        raw, own = method(images[3:])
        expected = torch.zeros(1, 1, 8, 12)
        for number, (flow, level) in enumerate(zip(method.flows, (3, 4), strict=True)):
            good, new = (
                flow(
                    features.flatten(2).transpose(1, 2).flatten(0, 1),
                    position_codes(128, *features.shape[-2:]).repeat(len(features), 1),
                )
                for features in (backbone(images[:3])[level - 2], backbone(images[3:])[level - 2])
            )
            assert float(method.highest[number]) == pytest.approx(float(good.max()), rel=1e-4)
            shares = 1 - (new - good.max()).clamp(max=0).exp().reshape(1, 1, 16 // 2 ** (level - 2), -1)
            expected += torch.nn.functional.interpolate(shares, size=(8, 12), mode="bilinear", align_corners=False)
    assert own is None
    torch.testing.assert_close(raw, expected[:, 0], rtol=1e-3, atol=1e-4)


def test_training_makes_good_images_likelier(backbone, images):
    class Listener:
        losses: list[float]

        def __init__(self):
            self.losses = []

        def track(self, items, stage, total=None):
            yield from items

        def note(self, **values):
            self.losses.append(values["loss"])

    listener = Listener()
    method = CFlow(backbone, CFlowSettings(steps=60, blocks=2, places_per_step=64))
    method.fit([images], seed=0, progress=listener)
    assert np.mean(listener.losses[-5:]) < np.mean(listener.losses[:5]) - 0.5
