import copy

import pytest
import torch
from torch import Tensor, nn

from hyperspot.backbones import NONE, create, names, restore
from hyperspot.errors import SettingsError, WeightsError


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return create("resnet18", "random:0").state_dict()


def restored(state: dict[str, Tensor], name: str = "resnet18") -> nn.Module:
    return restore(name, state, weights_source="the stored backbone", weights_sha256=None)


@pytest.mark.parametrize("name", ["resnet18", "vgg19_bn", "efficientnet_b5"])
def test_a_backbone_is_frozen(name: str) -> None:
    backbone = create(name, "random:0")
    parent = nn.Sequential(backbone).train()
    assert not any(module.training for module in backbone.modules())
    assert parent.training
    assert not any(parameter.requires_grad for parameter in backbone.parameters())
    assert not any("running" in key or "tracked" in key for key in backbone.state_dict())
    assert not any(tensor.is_meta for tensor in backbone.state_dict().values())


def test_only_what_the_three_levels_need_is_built(state: dict[str, Tensor]) -> None:
    assert "layer3.1.conv2.bias" in state
    assert "layer3.0.downsample.0.weight" in state
    assert not any(key.startswith(("layer4", "fc")) for key in state)


def test_random_weights_depend_on_their_seed_alone(state: dict[str, Tensor]) -> None:
    torch.manual_seed(99)
    again = create("resnet18", "random:0")
    other = create("resnet18", "random:1")
    assert all(torch.equal(state[key], tensor) for key, tensor in again.state_dict().items())
    assert not torch.equal(state["conv1.weight"], other.state_dict()["conv1.weight"])
    # He: the variance is 2 over what enters.
    assert float(state["layer1.0.conv1.weight"].var()) == pytest.approx(2 / (64 * 9), rel=0.05)
    assert (again.weights_source, again.weights_sha256) == ("random:0", None)


@pytest.mark.parametrize("weights", ["random:", "random:-1", "random:x", "random:1.5", "random:²"])
def test_a_seed_is_a_whole_number(weights: str) -> None:
    with pytest.raises(WeightsError, match="random:0"):
        create("resnet18", weights)


def test_an_unknown_backbone_is_answered_with_the_known_ones() -> None:
    with pytest.raises(SettingsError, match=", ".join(names())):
        create("resnet19", "random:0")


def test_no_backbone_has_no_weights_and_leaves_pixels_alone() -> None:
    none = create(NONE)
    assert none.state_dict() == {}
    assert (none.weights_source, none.weights_sha256) == ("none", None)
    assert (none.mean, none.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert restore(NONE, {}, weights_source="none", weights_sha256=None).name == NONE
    assert NONE not in names()
    with pytest.raises(WeightsError, match="no backbone is used; leave them out"):
        create(NONE, "random:0")
    with pytest.raises(RuntimeError, match="uses_backbone"):
        none(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize("slope", [-0.1, 1.0, float("nan")])
def test_a_slope_outside_its_range_is_refused(slope: float) -> None:
    with pytest.raises(SettingsError, match="output_negative_slope"):
        create("resnet18", "random:0", output_negative_slope=slope)


def test_a_slope_shows_below_zero_and_leaves_the_next_stage_alone() -> None:
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    plain = create("resnet18", "random:0")(image)
    sloped = create("resnet18", "random:0", output_negative_slope=0.01)(image)
    for rectified, leaky in zip(plain, sloped, strict=True):
        assert float(leaky.min()) < 0 <= float(rectified.min())
        assert torch.equal(leaky.clamp(min=0), rectified)


def test_restoring_takes_a_copy(state: dict[str, Tensor]) -> None:
    mine = copy.deepcopy(state)
    backbone = restored(mine)
    mine["conv1.weight"].zero_()
    assert torch.equal(backbone.state_dict()["conv1.weight"], state["conv1.weight"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"layer1.0.conv1.bias": None}, "layer1.0.conv1.bias is missing"),
        ({"layer4.0.conv1.bias": torch.zeros(1)}, "layer4.0.conv1.bias has no place"),
        ({"conv1.bias": torch.zeros(3)}, r"conv1.bias has the shape \(3,\) instead of \(64,\)"),
        ({"conv1.bias": torch.zeros(64, dtype=torch.int64)}, "conv1.bias holds torch.int64"),
        ({"conv1.bias": torch.full((64,), torch.inf)}, "conv1.bias holds numbers that are not finite"),
    ],
)
def test_a_state_that_does_not_fit_is_named(
    state: dict[str, Tensor], change: dict[str, Tensor | None], reason: str
) -> None:
    changed = {key: tensor for key, tensor in {**state, **change}.items() if tensor is not None}
    with pytest.raises(WeightsError, match=f"the stored backbone does not hold the weights of resnet18: {reason}"):
        restored(changed)


def test_a_state_of_another_network_is_refused(state: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError, match="resnet34"):
        restored(state, "resnet34")
