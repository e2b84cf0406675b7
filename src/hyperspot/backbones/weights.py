"""Where a backbone's weights are, and how they are read. No file is ever run: safetensors only."""

import hashlib
import os
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from hyperspot.backbones.base import Backbone
from hyperspot.backbones.folding import fold_all
from hyperspot.errors import WeightsError

RANDOM = "random:"
FOLDER_VARIABLE = "HYPERSPOT_WEIGHTS"
CACHE_VARIABLE = "HYPERSPOT_CACHE"
UNSAFE = {".pth", ".pt", ".bin", ".ckpt", ".pkl", ".tar"}


def find(name: str, weights: Path | str | None) -> Path | None:
    """Return the file of a backbone's weights on this machine, or None where there is none.

    Args:
        name: The backbone.
        weights: A file; or a folder that holds a file named after the backbone; or None, for the folder that
            HYPERSPOT_WEIGHTS names and then the cache.

    Raises:
        WeightsError: Where what was named does not exist or is of an unsafe format, or either of two files
            could be meant.

    """
    if weights is not None:
        return _named(name, Path(weights).expanduser())
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder:
        named = Path(folder).expanduser()
        if not named.is_dir():
            raise WeightsError(
                f"{FOLDER_VARIABLE} names {folder}, which is not a folder; set it to the folder of weights"
            )
        found = _within(name, named)
        if found:
            return found
    return _within(name, cache_folder())


def holds(name: str, path: Path) -> bool:
    """Whether `path` names weights of a backbone: it is no folder, or one with a file named after the backbone.

    Raises WeightsError where that file is of an unsafe format, or either of two could be meant.
    """
    return not path.expanduser().is_dir() or _within(name, path.expanduser()) is not None


def load(backbone: Backbone, path: Path, *, sha256: str | None = None) -> Backbone:
    """Fill a backbone from a safetensors file with torchvision's names, batch norms folded or not.

    Tensors that the backbone does not need (later stages, classifier) are not read.

    Args:
        backbone: What to fill.
        path: The file.
        sha256: What its SHA-256 has to be, where that is known.

    Raises:
        WeightsError: Where the file cannot be read, is damaged, or holds other weights.

    """
    try:
        with path.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if sha256 is not None and sha256 != found:
            raise WeightsError(
                f"{path} is not what was shipped (SHA-256 {found[:12]}... instead of {sha256[:12]}...); install "
                "hyperspot again, or name other weights"
            )
        with safe_open(path, framework="pt") as tensors:
            names = set(tensors.keys())
            state = fold_all(backbone, names, tensors.get_tensor, str(path))
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read ({error.strerror or error}); check that it exists and may be read"
        ) from None
    except SafetensorError as error:
        raise WeightsError(f"{path} is not a whole safetensors file ({error}); delete it and get it again") from None
    backbone.fill(state, str(path), found)
    # The folder is this machine's own affair, and the name travels in model files.
    backbone.weights_source = path.name
    return backbone


def randomize(backbone: Backbone, weights: str) -> Backbone:
    """Fill a backbone with He-initialized weights (He et al., 2015), the same on every machine.

    What is added up (see `Backbone.residual_branches`) has less variance, so that features grow little from block to block
    although there are no batch norms.

    Args:
        backbone: What to fill.
        weights: "random:SEED", the seed a whole number from 0.

    Raises:
        WeightsError: Where the seed is not such a number.

    """
    seed = weights.removeprefix(RANDOM)
    if not (seed.isascii() and seed.isdigit()):
        raise WeightsError(f'weights "{weights}" have no seed; write a whole number, for example "random:0"')
    # NumPy keeps its streams the same across versions and processors; torch promises neither.
    generator = np.random.default_rng(int(seed))
    ends = backbone.residual_branches()
    state: dict[str, Tensor] = {}
    for name, shape in backbone.shapes().items():
        if name.endswith(".bias"):
            state[name] = torch.zeros(shape)
            continue
        deviation = np.sqrt(2.0 / np.prod(shape[1:]) / ends.get(name.removesuffix(".weight"), 1))
        drawn = generator.standard_normal(shape, dtype=np.float32) * np.float32(deviation)
        state[name] = torch.from_numpy(drawn)
    return backbone.fill(state, weights, None)


def cache_folder() -> Path:
    """Return where downloaded weights are kept: HYPERSPOT_CACHE, or the platform's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "hyperspot"


def _named(name: str, path: Path) -> Path:
    if path.is_dir():
        found = _within(name, path)
        if found is None:
            raise WeightsError(f"{path} holds no weights of {name}; put {name}.safetensors there or name another file")
        return found
    if not path.is_file():
        raise WeightsError(f"{path} does not exist; name a safetensors file of the weights of {name}")
    if path.suffix.lower() in UNSAFE:
        raise _unsafe(name, path)
    return path


def _within(name: str, folder: Path) -> Path | None:
    exact = folder / f"{name}.safetensors"
    if exact.is_file():
        return exact
    ours = sorted(path for path in folder.glob(f"{name}[-.]*") if path.is_file())
    fitting = [path for path in ours if path.suffix == ".safetensors"]
    if len(fitting) > 1:
        raise WeightsError(
            f"{folder} holds {fitting[0].name} and {fitting[1].name}, and either could be the weights of "
            f"{name}; rename the one that is meant to {exact.name} or name it"
        )
    if fitting:
        return fitting[0]
    unsafe = [path for path in ours if path.suffix.lower() in UNSAFE]
    if unsafe:
        raise _unsafe(name, unsafe[0])
    return None


def _unsafe(name: str, path: Path) -> WeightsError:
    return WeightsError(
        f"{path} is a pickle, which can run code when it is opened; where you trust it, read it elsewhere with "
        f'torch\'s weights-only loader, write it with `safetensors.torch.save_file(state, "{name}.safetensors")` '
        "and use that file"
    )
