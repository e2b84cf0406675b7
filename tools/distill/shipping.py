"""From a run's state to the file in the package: folded, half precision, and with a record of how it was made."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from hyperspot.backbones import Backbone
from hyperspot.files import replacing
from tools.distill.photos import Photos
from tools.distill.students import folded, plain
from tools.distill.training import STATE, Recipe

RECIPE = Recipe("residual", steps=20000, decay=5000)
"""What the shipped file was made by."""
TARGET = Path(__file__).parents[2] / "src" / "hyperspot" / "backbones" / "compact.safetensors"


def student_of(run: Path) -> Backbone:
    """Return the student of a run, frozen, with the weights as they would be shipped."""
    name, state, _ = _weights(run)
    return plain(name).fill(state, run.name, None)


def ship(run: Path, photos: Photos, target: Path = TARGET) -> str:
    """Write the weights of a run and return the SHA-256 of the file."""
    name, state, metadata = _weights(run)
    record = {
        "format": "hyperspot backbone 1",
        "student": name,
        "recipe": metadata["recipe"],
        "step": metadata["step"],
        "photos_sha256": photos.sha256,
    }
    with replacing(target) as partial:
        save_file(state, partial, record)
    sha256 = hashlib.sha256(target.read_bytes()).hexdigest()
    print(f"{target}: {target.stat().st_size / 1e6:.2f} MB, SHA-256 {sha256}")
    return sha256


def _weights(run: Path) -> tuple[str, dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(run / STATE, framework="pt") as opened:
        metadata = opened.metadata()
        names = [name for name in opened.keys() if name.startswith("network.")]  # noqa: SIM118 - no mapping
        state = {name.removeprefix("network."): opened.get_tensor(name) for name in names}
    name = json.loads(metadata["recipe"])["student"]
    return name, {key: value.half().contiguous() for key, value in folded(name, state).items()}, metadata
