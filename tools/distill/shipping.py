"""From a run's state to the file in the package: folded, half precision, and with a record of how it was made."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from hyperspot.backbones import Backbone
from hyperspot.utils.atomic_files import replacing
from tools.distill.students import folded, plain
from tools.distill.training import CURVE, STATE, Recipe

RECIPE = Recipe("residual", steps=16000, decay=5000, optimizer="muon", rate=4e-3)
"""What the shipped file was made by."""
TARGET = Path(__file__).parents[2] / "src" / "hyperspot" / "backbones" / "compact.safetensors"


LICENSE = (
    "Apache-2.0, as hyperspot; learned from the outputs of torchvision's ResNet-18 (BSD-3-Clause, trained on ImageNet) "
    "on photos whose own terms are told in docs/backbones/compact.md"
)


def student_of(run: Path) -> Backbone:
    """Return the student of a run, frozen, with the weights as they would be shipped."""
    name, state, _ = _weights(run)
    return plain(name).fill(state, run.name, None)


def ship(run: Path, target: Path = TARGET) -> str:
    """Write the weights of a finished run with what is known of it, and return the SHA-256 of the file.

    Raises ValueError where the run has not come to its end.
    """
    name, state, metadata = _weights(run)
    if int(metadata["step"]) != json.loads(metadata["recipe"])["steps"]:
        raise ValueError(f"{run} ended at step {metadata['step']}; train it to its end first")
    views = json.loads(metadata["views"])
    record = {
        "recipe": metadata["recipe"],
        "views": metadata["views"],
        "step": metadata["step"],
        "photos_sha256": views["photos_sha256"],
        "teacher_sha256": views["teacher_sha256"],
        "validation": (run / CURVE).read_text(encoding="utf-8").splitlines()[-1],
        "license": LICENSE,
    }
    with replacing(target) as partial:
        save_file(state, partial, record)
    sha256 = hashlib.sha256(target.read_bytes()).hexdigest()
    print(f"{target}: {name}, {target.stat().st_size / 1e6:.2f} MB, SHA-256 {sha256}")
    return sha256


def _weights(run: Path) -> tuple[str, dict[str, torch.Tensor], dict[str, str]]:
    with safe_open(run / STATE, framework="pt") as opened:
        metadata = opened.metadata()
        names = [name for name in opened.keys() if name.startswith("network.")]  # noqa: SIM118 - no mapping
        state = {name.removeprefix("network."): opened.get_tensor(name) for name in names}
    name = json.loads(metadata["recipe"])["student"]
    return name, {key: value.half().contiguous() for key, value in folded(name, state).items()}, metadata
