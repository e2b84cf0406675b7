"""The weights in the package: there without a network, whole, and what they should be."""

import hashlib
import json
import shutil
import socket
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from hyperspot.backbones import DEFAULT, compact, create
from hyperspot.backbones.compact import SHIPPED
from hyperspot.detector.settings import Settings
from hyperspot.errors import WeightsError

LARGEST = 12_000_000


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.usefixtures("offline")
def test_the_default_has_its_weights_without_a_network() -> None:
    assert Settings().backbone == DEFAULT == "compact"
    backbone = create(DEFAULT)
    assert backbone.weights_source == "compact.safetensors"
    assert backbone.weights_sha256 == SHIPPED.sha256
    assert backbone.channels == (64, 128, 256)


def test_the_file_is_small_half_precision_and_says_how_it_was_made() -> None:
    assert SHIPPED.path.stat().st_size < LARGEST
    assert hashlib.sha256(SHIPPED.path.read_bytes()).hexdigest() == SHIPPED.sha256
    with safe_open(SHIPPED.path, framework="pt") as opened:
        assert {opened.get_tensor(name).dtype for name in opened.keys()} == {torch.float16}  # noqa: SIM118
        metadata = opened.metadata()
    assert {"recipe", "step", "photos_sha256", "teacher_sha256", "validation", "licence"} <= metadata.keys()
    recipe = json.loads(metadata["recipe"])
    assert int(metadata["step"]) == recipe["steps"]


def test_a_damaged_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged = tmp_path / "compact.safetensors"
    content = bytearray(SHIPPED.path.read_bytes())
    content[-100] ^= 1
    damaged.write_bytes(content)
    monkeypatch.setattr(compact, "SHIPPED", replace(SHIPPED, path=damaged))
    with pytest.raises(WeightsError, match=r"compact\.safetensors is damaged .*install its package again"):
        create("compact")


def test_weights_that_are_named_are_taken_instead(tmp_path: Path) -> None:
    state = {name: tensor.contiguous() for name, tensor in create("compact", "random:7").state_dict().items()}
    save_file(state, tmp_path / "mine.safetensors")
    assert create("compact", tmp_path / "mine.safetensors").weights_source == "mine.safetensors"
    # A folder of other networks' weights has none for it; one that has them is asked for a reason.
    assert create("compact", tmp_path).weights_sha256 == SHIPPED.sha256
    save_file(state, tmp_path / "compact-of-the-plant.safetensors")
    assert create("compact", tmp_path).weights_source == "compact-of-the-plant.safetensors"


@pytest.mark.real
def test_its_levels_are_close_to_those_of_resnet18(real_weights: Path, real_data: Path) -> None:
    from tools.distill.cache import normalized
    from tools.distill.photos import list_photos, read
    from tools.distill.views import central

    if not (real_data / "natural").is_dir():
        pytest.skip("the real data have no natural images")
    found = list_photos(real_data / "natural")
    with safe_open(SHIPPED.path, framework="pt") as opened:
        assert opened.metadata()["photos_sha256"] == found.sha256
    crops = torch.stack([torch.from_numpy(central(read(found.root / path), 224)) for path in found.held_out[:16]])
    student, teacher = create("compact"), create("resnet18", real_weights)
    images = normalized(crops.permute(0, 3, 1, 2), student)
    for level, wanted in zip(student(images), teacher(images), strict=True):
        error = (level - wanted).square().mean((0, 2, 3)).sum()
        assert error < 0.5 * wanted.var((0, 2, 3)).sum()


def test_the_wheel_brings_it(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed here")
    root, copy = Path(__file__).parents[2], tmp_path / "copy"
    # In a copy: building compiles the search anew, which the other tests may be using.
    shutil.copytree(root / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore"):
        shutil.copy(root / name, copy)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=copy, capture_output=True, check=True)
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        content = wheel.read("hyperspot/backbones/compact.safetensors")
    assert hashlib.sha256(content).hexdigest() == SHIPPED.sha256
