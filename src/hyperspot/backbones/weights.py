"""Finds and reads the weights of a backbone: safetensors files only, which cannot run code."""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import platformdirs
import torch
from safetensors import SafetensorError

from hyperspot.backbones.base import Backbone
from hyperspot.errors import WeightsError

RANDOM = "random:"
FOLDER_VARIABLE = "HYPERSPOT_WEIGHTS"
CACHE_VARIABLE = "HYPERSPOT_CACHE"
UNSAFE = {".pth", ".pt", ".bin", ".ckpt", ".pkl", ".tar"}


def file_stem(name: str) -> str:
    """Return the name of a backbone as the start of a file name: `timm/resnet10t` gives `timm-resnet10t`."""
    return name.replace("/", "-")


def find(name: str, weights: Path | str | None) -> Path | None:
    """Return the file of a backbone's weights on this machine, or None if there is none.

    Args:
        name: The backbone.
        weights: A file, or a folder with a file named after the backbone. Default: the folder in HYPERSPOT_WEIGHTS,
            then the cache.

    Raises:
        WeightsError: If `weights` does not exist or has an unsafe format, or if two files match.

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
    """Return whether a path is a file, or a folder with a file named after the backbone.

    Raises WeightsError if that file has an unsafe format, or if two files match.
    """
    return not path.expanduser().is_dir() or _within(name, path.expanduser()) is not None


def load(backbone: Backbone, path: Path, *, sha256: str | None = None) -> Backbone:
    """Fill a backbone from a safetensors file. Tensors that it does not need are not read.

    Args:
        backbone: To fill; modified in place and returned.
        path: The file.
        sha256: Expected SHA-256 of the file. Default: not checked.

    Raises:
        WeightsError: If the file cannot be read, is damaged, or holds other weights.

    """
    try:
        with path.open("rb") as opened:
            found = hashlib.file_digest(opened, "sha256").hexdigest()
        if sha256 is not None and sha256 != found:
            raise WeightsError(
                f"{path} is damaged (SHA-256 {found[:12]}... instead of {sha256[:12]}...); install its package again "
                "or name other weights"
            )
        state = backbone.read_state(path)
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read ({error.strerror or error}); check the path and the file permissions"
        ) from None
    except SafetensorError as error:
        raise WeightsError(f"{path} is not a whole safetensors file ({error}); delete it and get it again") from None
    backbone.fill(state, str(path), found)
    # The name alone: it travels in model files, and the folder means nothing elsewhere.
    backbone.weights_source = path.name
    return backbone


def seed_of(weights: str) -> int:
    """Return the seed in `random:SEED`; raises WeightsError if it is not a whole number from 0."""
    seed = weights.removeprefix(RANDOM)
    if not (seed.isascii() and seed.isdigit()):
        raise WeightsError(f'weights "{weights}" have no seed; write a whole number, for example "random:0"')
    return int(seed)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's generator on the CPU, and restore its state afterwards."""
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)


def randomize(backbone: Backbone, weights: str) -> Backbone:
    """Fill a backbone with random weights, `random:SEED`; raises WeightsError if the seed is not a whole number."""
    return backbone.fill(backbone.random_state(seed_of(weights)), weights, None)


def cache_folder() -> Path:
    """Return the folder of downloaded weights: HYPERSPOT_CACHE, or the platform's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    return platformdirs.user_cache_path("hyperspot", appauthor=False, opinion=False)


def _named(name: str, path: Path) -> Path:
    if path.is_dir():
        found = _within(name, path)
        if found is None:
            raise WeightsError(
                f"{path} holds no weights of {name}; put {file_stem(name)}.safetensors there or name another file"
            )
        return found
    if not path.is_file():
        raise WeightsError(f"{path} does not exist; name a safetensors file of the weights of {name}")
    if path.suffix.lower() in UNSAFE:
        raise _unsafe(name, path)
    return path


def _within(name: str, folder: Path) -> Path | None:
    stem = file_stem(name)
    exact = folder / f"{stem}.safetensors"
    if exact.is_file():
        return exact
    ours = sorted(path for path in folder.glob(f"{stem}[-.]*") if path.is_file())
    fitting = [path for path in ours if path.suffix == ".safetensors"]
    if len(fitting) > 1:
        raise WeightsError(
            f"{folder} holds {fitting[0].name} and {fitting[1].name}, and both match {name}; rename one to "
            f"{exact.name} or name the file"
        )
    if fitting:
        return fitting[0]
    unsafe = [path for path in ours if path.suffix.lower() in UNSAFE]
    if unsafe:
        raise _unsafe(name, unsafe[0])
    return None


def _unsafe(name: str, path: Path) -> WeightsError:
    return WeightsError(
        f"{path} is a pickle, which can run code when it is opened; if you trust it, convert it with "
        f'`safetensors.torch.save_file(torch.load(path, weights_only=True), "{file_stem(name)}.safetensors")` '
        "and use that file"
    )
