"""Models of timm as backbones, randomly initialized: nothing is downloaded from the real hub."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save, save_file

from hyperspot.backbones import create
from hyperspot.backbones.timm_models import choose_levels, import_timm
from hyperspot.errors import MissingPackageError, SettingsError, WeightsError
from hyperspot.testing import BACKBONE_RULES, BackboneCase, missing_for_export
from tests.backbones.test_hub import Hub, content, hub  # noqa: F401 - fixtures

timm = import_timm("timm")


def images() -> torch.Tensor:
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def published(model: str) -> dict[str, torch.Tensor]:
    """Return the tensors of a whole model, classifier included, as timm publishes them."""
    torch.manual_seed(3)
    network = timm.create_model(model, pretrained=False)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return network.state_dict()


@pytest.fixture(scope="module")
def case() -> BackboneCase:
    return BackboneCase("timm/mobilenetv3_small_050")


@pytest.mark.parametrize("rule", BACKBONE_RULES)
def test_it_keeps_the_rules(case: BackboneCase, rule: str) -> None:
    if rule == "export" and missing_for_export():
        pytest.skip(f"not installed: {', '.join(missing_for_export())}")
    BACKBONE_RULES[rule](case)


@pytest.mark.parametrize(
    ("model", "channels", "strides"),
    [
        ("resnet10t", (64, 128, 256), (4, 8, 16)),
        ("convnext_atto", (40, 80, 160), (4, 8, 16)),
        # Any input size although timm fixes one; channels last; all of one stride.
        ("swin_tiny_patch4_window7_224", (96, 192, 384), (4, 8, 16)),
        ("vit_tiny_patch16_224", (192, 192, 192), (16, 16, 16)),
    ],
)
def test_channels_strides_and_normalization_are_those_of_timm(
    model: str, channels: tuple[int, ...], strides: tuple[int, ...]
) -> None:
    backbone = create(f"timm/{model}", "random:0")
    config = timm.get_pretrained_cfg(model)
    assert (backbone.channels, backbone.strides, backbone.levels) == (channels, strides, (2, 3, 4))
    assert (backbone.mean, backbone.std) == (config.mean, config.std)
    assert backbone.default_weights.repository == config.hf_hub_id
    shapes = [tuple(level.shape) for level in backbone(images())]
    expected = [(2, wide, 64 // stride, 96 // stride) for wide, stride in zip(channels, strides, strict=True)]
    assert shapes == expected


@pytest.mark.parametrize(
    ("strides", "positions", "levels"),
    [
        ([1, 2, 4, 8, 16, 32], [2, 3, 4], [2, 3, 4]),
        ([4, 8, 16, 16, 32], [0, 1, 3], [2, 3, 4]),
        ([8, 16, 32], [0, 1, 2], [2, 3, 4]),
        ([16, 32], [0, 1], [3, 4]),
        ([14], [0], [4]),
    ],
)
def test_the_levels_are_the_nearest_strides(strides: list[int], positions: list[int], levels: list[int]) -> None:
    assert choose_levels(strides) == (positions, levels)


@pytest.mark.parametrize("model", ["resnet10t", "convnext_atto"])
def test_a_published_file_gives_the_features_of_timm(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second renames its stages, and both have a classifier that is not needed."""
    state = published(model)
    path = tmp_path / f"timm-{model}.safetensors"
    save_file(state, path)
    monkeypatch.setenv("HYPERSPOT_WEIGHTS", str(tmp_path))
    backbone = create(f"timm/{model}")
    assert backbone.weights_source == path.name
    assert backbone.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    whole = timm.create_model(model, pretrained=False).eval()
    whole.load_state_dict(state)
    with torch.no_grad():
        expected = whole.forward_intermediates(images(), intermediates_only=True)
        found = backbone(images())
    expected = {level.shape[-1]: level for level in expected}
    for level in found:
        torch.testing.assert_close(level, expected[level.shape[-1]], rtol=1e-4, atol=1e-5)


def test_its_own_tensors_are_read_back(tmp_path: Path) -> None:
    first = create("timm/convnext_atto", "random:4")
    save_file({name: tensor.contiguous() for name, tensor in first.state_dict().items()}, tmp_path / "w.safetensors")
    second = create("timm/convnext_atto", tmp_path / "w.safetensors")
    assert all(map(torch.equal, first(images()), second(images())))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"layer2.0.conv1.weight": None}, r"network\.layer2\.0\.conv1\.weight is missing"),
        ({"layer2.0.conv1.weight": torch.zeros(1)}, "size mismatch for layer2"),
        ({"layer1.0.bn1.bias": torch.full((64,), torch.nan)}, r"network\.layer1\.0\.bn1\.bias holds numbers that"),
    ],
)
def test_a_file_that_lacks_a_tensor_is_refused(
    change: dict[str, torch.Tensor | None], reason: str, tmp_path: Path
) -> None:
    """Where timm itself would leave random weights."""
    state = {name: tensor for name, tensor in {**published("resnet10t"), **change}.items() if tensor is not None}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=rf"w\.safetensors does not hold the weights of timm/resnet10t: .*{reason}"):
        create("timm/resnet10t", tmp_path / "w.safetensors")


def test_without_a_file_it_is_downloaded_and_checked(hub: Hub, cache: Path) -> None:  # noqa: F811
    hub.content = save(published("resnet18"))
    hub.etag = hashlib.sha256(hub.content).hexdigest()
    name = "timm/resnet18.tv_in1k"
    backbone = create(name)
    assert backbone.weights_sha256 == hub.etag
    assert [path.name for path in cache.iterdir()] == [backbone.weights_source]
    asked = len(hub.asked)
    again = create(name)
    assert len(hub.asked) == asked
    assert all(map(torch.equal, backbone(images()), again(images())))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("timm/no_such_model", "timm has no model 'no_such_model'"),
        ("timm/hf-hub:timm/resnet10t", "timm has no model 'hf-hub:timm/resnet10t'"),
    ],
)
def test_what_cannot_be_a_backbone_is_refused(name: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        create(name, "random:0")


def test_a_model_without_feature_maps_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **options: object) -> None:
        raise RuntimeError("features_only not implemented" if options["features_only"] else "")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(SettingsError, match=r"not implemented\); choose a model that supports features_only"):
        create("timm/resnet10t", "random:0")


def test_a_model_of_one_input_size_says_so() -> None:
    backbone = create("timm/levit_128s", "random:0")
    with pytest.raises(SettingsError, match="takes images of 224 x 224 pixels only; set the short side to 224"):
        backbone(images())
    assert [level.shape[-1] for level in backbone(torch.zeros(1, 3, 224, 224))] == [14, 7, 4]


def test_it_has_no_leaky_output() -> None:
    with pytest.raises(SettingsError, match="'timm/resnet10t' has no leaky output activation"):
        create("timm/resnet10t", "random:0", output_negative_slope=0.01)


def test_without_timm_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingPackageError, match=r"the backbone 'timm/resnet10t' needs timm, .*\[timm\]"):
        create("timm/resnet10t", "random:0")


def test_a_torchvision_of_another_torch_build_is_enough(tmp_path: Path) -> None:
    """As PyPI's, which is built with CUDA, beside a CPU build of torch: none of its operators can be loaded."""
    (tmp_path / "torchvision.py").write_text(
        "import torch\n"
        "for name in ('nms', 'qnms'):\n"
        "    if not hasattr(torch.ops.torchvision, name):\n"
        "        raise RuntimeError(f'operator torchvision::{name} does not exist')\n"
    )
    (tmp_path / "timm.py").write_text("__version__ = 'a stand-in'\n")
    paths = [str(tmp_path), str(Path(__file__).parents[2] / "src")]
    code = (
        f"import sys; sys.path[:0] = {paths}\n"
        "from hyperspot.backbones.timm_models import import_timm\n"
        "assert import_timm('timm/x').__version__ == 'a stand-in'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
