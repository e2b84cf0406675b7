import hashlib
from pathlib import Path

import platformdirs
import pytest
import torch
from platformdirs.unix import Unix
from safetensors.torch import save_file
from torch import Tensor

from hyperspot.backbones import create
from hyperspot.backbones.weights import cache_folder
from hyperspot.errors import WeightsError


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    backbone = create("resnet18", "random:0")
    return {name: tensor.contiguous() for name, tensor in backbone.state_dict().items()}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    named = tmp_path / "air-gapped"
    named.mkdir()
    monkeypatch.setenv("HYPERSPOT_WEIGHTS", str(named))
    return named


def test_a_folded_file_is_read_as_it_is(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_file(state, path)
    backbone = create("resnet18", str(path))
    assert all(torch.equal(tensor, state[name]) for name, tensor in backbone.state_dict().items())
    assert backbone.weights_source == "mine.safetensors"
    assert backbone.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_half_precision_is_widened(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file({name: tensor.half() for name, tensor in state.items()}, tmp_path / "w.safetensors")
    tensors = create("resnet18", tmp_path / "w.safetensors").state_dict()
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}


def test_the_named_folder_comes_before_the_cache(state: dict[str, Tensor], folder: Path, cache: Path) -> None:
    save_file(state, cache / "resnet18.safetensors")
    assert create("resnet18").weights_source == "resnet18.safetensors"
    save_file(state, folder / "resnet18-of-the-plant.safetensors")
    save_file(state, folder / "resnet18_other.safetensors")
    assert create("resnet18").weights_source == "resnet18-of-the-plant.safetensors"
    save_file(state, folder / "resnet18.safetensors")
    assert create("resnet18").weights_source == "resnet18.safetensors"
    assert create("resnet18", folder).weights_source == "resnet18.safetensors"


def test_two_files_that_could_be_meant_are_both_named(state: dict[str, Tensor], folder: Path) -> None:
    save_file(state, folder / "resnet18-a.safetensors")
    save_file(state, folder / "resnet18.b.safetensors")
    with pytest.raises(WeightsError, match=r"resnet18-a\.safetensors and resnet18\.b\.safetensors"):
        create("resnet18")


def test_missing_weights_name_their_repository(folder: Path) -> None:
    with pytest.raises(WeightsError) as raised:
        create("wide_resnet50_2")
    for part in ("timm/wide_resnet50_2.tv_in1k", "wide_resnet50_2.safetensors", "HYPERSPOT_WEIGHTS"):
        assert part in str(raised.value)


def test_missing_weights_without_a_repository_name_the_file() -> None:
    with pytest.raises(WeightsError, match=r"efficientnet_b5\.safetensors .* HYPERSPOT_WEIGHTS"):
        create("efficientnet_b5")


@pytest.mark.parametrize("suffix", [".pth", ".PT", ".bin", ".pth.tar"])
def test_pickles_are_refused_unopened(suffix: str, folder: Path) -> None:
    path = folder / f"resnet18-f37072fd{suffix}"
    path.write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    for weights in (path, None, folder):
        with pytest.raises(WeightsError, match=f"{path.name} is a pickle.*can run code.*save_file"):
            create("resnet18", weights)


def test_what_was_named_must_be_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match=r"nowhere\.safetensors does not exist"):
        create("resnet18", tmp_path / "nowhere.safetensors")
    with pytest.raises(WeightsError, match=r"holds no weights of resnet18; put resnet18\.safetensors"):
        create("resnet18", tmp_path)
    monkeypatch.setenv("HYPERSPOT_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(WeightsError, match=r"HYPERSPOT_WEIGHTS names .*nowhere, which is not a folder"):
        create("resnet18")


@pytest.mark.parametrize("kept", [0, 4, 1000, -1])
def test_a_truncated_file_is_refused(kept: int, state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file(state, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(WeightsError, match=r"w\.safetensors is not a whole safetensors file"):
        create("resnet18", path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"conv1.bias": None}, "conv1.bias is missing"),
        ({"conv1.weight": torch.zeros(64, 3, 3, 3)}, "conv1.weight has the shape"),
        (
            {"layer2.0.conv1.bias": torch.full((128,), torch.nan)},
            "layer2.0.conv1.bias holds numbers that are not finite",
        ),
        ({"bn1.running_mean": torch.zeros(64)}, "bn1.weight is missing"),
    ],
)
def test_a_file_of_other_weights_is_refused(
    change: dict[str, Tensor | None], reason: str, state: dict[str, Tensor], tmp_path: Path
) -> None:
    changed = {name: tensor for name, tensor in {**state, **change}.items() if tensor is not None}
    save_file(changed, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=rf"w\.safetensors does not hold .* resnet18: {reason}"):
        create("resnet18", tmp_path / "w.safetensors")


def test_a_negative_variance_is_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    norm = {"weight": 1.0, "bias": 0.0, "running_mean": 0.0, "running_var": -1.0}
    unfolded = {f"bn1.{part}": torch.full((64,), value) for part, value in norm.items()}
    save_file({**state, **unfolded}, tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match=r"conv1\.weight holds numbers that are not finite"):
        create("resnet18", tmp_path / "w.safetensors")


def test_the_cache_is_the_named_folder_or_that_of_the_platform(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache_folder() == cache
    monkeypatch.delenv("HYPERSPOT_CACHE")
    monkeypatch.setattr(platformdirs, "PlatformDirs", Unix)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "hyperspot"
