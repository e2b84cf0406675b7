"""The contract of a backbone with other strides than 4, 8 and 16, and its use in the methods."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from hyperspot.backbones import BACKBONES, Backbone, WeightsSource, create, register_backbone, restore
from hyperspot.errors import SettingsError, WeightsError
from hyperspot.methods import CFA, METHODS, CFASettings, CFlow, PatchCore, PatchCoreSettings
from hyperspot.testing import BACKBONE_RULES, BackboneCase
from hyperspot.utils.progress import SILENT


class Coarse(Backbone):
    """Strides 8, 16 and 32, with batch norms, which hold an integer."""

    def __init__(self, weights: WeightsSource | None = None) -> None:
        super().__init__("coarse", (6, 8, 10), (8, 16, 32), mean=(0.5, 0.5, 0.5), std=(0.25,) * 3, weights=weights)
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 9, stride=8, padding=4), nn.BatchNorm2d(6), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.last = nn.Sequential(nn.Conv2d(8, 10, 3, stride=2, padding=1), nn.ReLU())

    def pyramid(self, images: Tensor) -> list[Tensor]:
        first = self.stem(images)
        second = self.middle(first)
        return [first, second, self.last(second)]


def contiguous(backbone: Backbone) -> dict[str, Tensor]:
    return {name: tensor.contiguous() for name, tensor in backbone.state_dict().items()}


@pytest.fixture
def register() -> Iterator[Callable[..., None]]:
    known = set(BACKBONES)
    yield register_backbone
    for name in set(BACKBONES) - known:
        del BACKBONES[name]


@pytest.fixture
def coarse(register: Callable[..., None]) -> Backbone:
    register("coarse", Coarse)
    return create("coarse", "random:1")


@pytest.mark.parametrize("rule", [rule for rule in BACKBONE_RULES if rule != "export"])
def test_it_keeps_the_rules(coarse: Backbone, rule: str) -> None:
    BACKBONE_RULES[rule](BackboneCase(coarse.name))


def test_levels_follow_from_the_strides(coarse: Backbone) -> None:
    assert coarse.levels == (3, 4, 5)
    images = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    third, fifth = coarse.select(images, (5, 3))
    assert (third.shape[2:], fifth.shape[2:]) == ((8, 12), (2, 3))


@pytest.mark.parametrize(
    ("channels", "strides", "levels", "reason"),
    [
        ((1, 2), (4,), None, "lengths differ"),
        ((1, 2), (8, 4), None, "must ascend"),
        ((1, 2), (4, 4), None, "must ascend"),
        ((1,), (4,), (2, 3), "lengths differ"),
    ],
)
def test_a_declaration_that_contradicts_itself_is_refused(
    channels: tuple[int, ...], strides: tuple[int, ...], levels: tuple[int, ...] | None, reason: str
) -> None:
    class Other(Backbone):
        def pyramid(self, images: Tensor) -> list[Tensor]:
            return []

    with pytest.raises(ValueError, match=reason):
        Other("other", channels, strides, levels=levels)


@pytest.mark.parametrize("name", [name for name, owner in METHODS.items() if owner.uses_backbone])
def test_every_method_takes_it(coarse: Backbone, name: str) -> None:
    settings = {
        "cfa": {"steps": 2, "levels": (3, 4)},
        "cflow": {"steps": 2, "blocks": 1},
        "patchcore": {"dimensions": 16},
    }
    method = METHODS[name](coarse, METHODS[name].Settings(**settings.get(name, {})))
    images = torch.randn(4, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    method.fit([images], seed=0, progress=SILENT)
    with torch.inference_mode():
        maps, _ = method.eval()(images)
    assert torch.isfinite(maps).all()
    if name == "spade":
        assert {"gallery3", "gallery4", "gallery5", "pooled"} == set(method.fitted_state())


@pytest.mark.parametrize("method", [CFA, CFlow, PatchCore])
def test_a_level_that_it_lacks_is_named_before_the_training(coarse: Backbone, method: type) -> None:
    with pytest.raises(SettingsError, match=r"'coarse' has no level 2 \(stride 4\); choose levels among 3, 4, 5"):
        method(coarse, method.Settings(levels=(2, 3)))
    with pytest.raises(SettingsError, match=r"'resnet18' has no level 5 \(stride 32\); choose levels among 2, 3, 4"):
        method(create("resnet18", "random:0"), method.Settings(levels=(4, 5)))
    assert CFASettings(levels=(5, 3)).levels == (3, 5)
    with pytest.raises(ValueError, match="less than or equal to 6"):
        PatchCoreSettings(levels=(7,))


def test_weights_in_its_package_are_the_default_and_checked(
    coarse: Backbone, register: Callable[..., None], tmp_path: Path
) -> None:
    path = tmp_path / "coarse.safetensors"
    # A tensor that it does not need is ignored.
    save_file({**contiguous(coarse), "head.weight": torch.zeros(1)}, path)
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    register("packaged", lambda: Coarse(WeightsSource(path=path, sha256=checksum)))
    packaged = create("packaged")
    assert (packaged.name, packaged.weights_source) == ("packaged", path.name)
    assert packaged.weights_sha256 == checksum
    assert all(torch.equal(value, packaged.state_dict()[name]) for name, value in coarse.state_dict().items())
    assert not any(value.requires_grad for value in packaged.parameters())
    register("damaged", lambda: Coarse(WeightsSource(path=path, sha256="0" * 64)))
    with pytest.raises(WeightsError, match=r"coarse\.safetensors is damaged .*install its package again"):
        create("damaged")


@pytest.mark.usefixtures("coarse")
def test_weights_are_found_under_its_name_or_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match=r"save its tensors as coarse\.safetensors in a folder"):
        create("coarse")
    save_file(contiguous(create("coarse", "random:2")), tmp_path / "coarse.safetensors")
    monkeypatch.setenv("HYPERSPOT_WEIGHTS", str(tmp_path))
    assert create("coarse").weights_source == "coarse.safetensors"


def test_integers_stay_integers(coarse: Backbone) -> None:
    state = {name: value.clone() for name, value in coarse.state_dict().items()}
    name = "stem.1.num_batches_tracked"
    again = restore("coarse", state, weights_source="a file", weights_sha256=None)
    assert again.state_dict()[name].dtype == torch.int64
    with pytest.raises(WeightsError, match=rf"{name} holds torch.float32 instead of integers"):
        restore("coarse", {**state, name: torch.zeros(())}, weights_source="a file", weights_sha256=None)


def test_a_builder_must_return_a_backbone(register: Callable[..., None]) -> None:
    register("linear", lambda: nn.Linear(1, 1))
    with pytest.raises(SettingsError, match="the builder of the backbone 'linear' returned Linear"):
        create("linear")
    with pytest.raises(SettingsError, match="the backbone name 'linear' is taken"):
        register("linear", Coarse)
