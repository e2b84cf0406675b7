"""The model file: one safetensors file with JSON metadata. It holds numbers and text, never code.

The metadata has one entry, `hyperspot`: a JSON object with `format` (the version of this layout), `tensors_sha256`
(checksum of the tensors), `metadata_sha256` (checksum of the rest of the object) and the SECTIONS below. The checksums
find damage; they have no key and do not stop tampering.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hyperspot.errors import ModelFileError
from hyperspot.utils.atomic_files import check_writable, replacing

FORMAT = 5
SUFFIX = ".safetensors"
PART_SUFFIX = ".hyperspot"
"""Of the files of `hyperspot.parts`."""
SECTIONS = ("settings", "input_size", "decision_rule", "record")
"""Objects in the metadata of every model file."""


def write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write a model file atomically.

    Raises ModelFileError if the folder does not exist or cannot be written to.
    """
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    described = {**metadata, "format": FORMAT, "tensors_sha256": _tensors_sha256(kept)}
    text = json.dumps({**described, "metadata_sha256": _metadata_sha256(described)}, allow_nan=False)
    try:
        with replacing(path) as partial:
            save_file(kept, partial, metadata={"hyperspot": text})
    except (OSError, SafetensorError) as error:
        raise _unwritable(path, error) from None


def require_writable(path: Path, *, replace: bool = True) -> None:
    """Raise ModelFileError if `write` could not write the file; called before training.

    Args:
        path: Of the model file.
        replace: Whether an existing file may be replaced.

    """
    if path.suffix.lower() != SUFFIX:
        raise ModelFileError(
            f"{path} does not end in {SUFFIX}; choose another name, and make other formats with `hyperspot export`"
        )
    if not path.parent.is_dir():
        raise ModelFileError(f"the folder {path.parent} does not exist; make it or choose another place")
    if path.exists() and not replace:
        raise ModelFileError(f"{path} already exists; name the model file with --output")
    try:
        check_writable(path)
    except OSError as error:
        raise _unwritable(path, error) from None


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the metadata of a model file.

    Raises ModelFileError if it is missing, damaged, foreign or made by a newer version.
    """
    _check_file(path)
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = _metadata(path, opened.metadata() or {})
            # Copied to aligned memory: with the file's 8-byte alignment matrix products round in another order, and
            # the scores of a loaded detector would differ in the last digits.
            tensors = {name: opened.get_tensor(name).clone() for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from None
    if metadata["tensors_sha256"] != _tensors_sha256(tensors):
        raise _damaged(path)
    return tensors, metadata


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata alone, without reading the tensors; raises ModelFileError as `read` does."""
    _check_file(path)
    try:
        with safe_open(path, framework="pt") as opened:
            return _metadata(path, opened.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise _unreadable(path, error) from None


def _check_file(path: Path) -> None:
    if not path.exists():
        raise ModelFileError(f"{path} does not exist; make it with `hyperspot train DATA -o {path}`")
    if path.suffix.lower() == PART_SUFFIX:
        raise ModelFileError(f"{path} holds the models of the views of a part; open it with `hyperspot part`")
    if not path.is_file():
        what = "a folder" if path.is_dir() else "not a plain file"
        raise ModelFileError(f"{path} is {what}; give a model file made by `hyperspot train`")


def _metadata(path: Path, found: dict[str, str]) -> dict[str, Any]:
    try:
        metadata = json.loads(found["hyperspot"])
        version = int(metadata["format"])
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        raise ModelFileError(
            f"{path} is a safetensors file but not a hyperspot model; give one made by `hyperspot train`"
        ) from None
    if version > FORMAT:
        raise ModelFileError(
            f"{path} was made by a newer hyperspot (format {version}, this one reads {FORMAT}); update hyperspot"
        )
    if version < FORMAT:
        raise ModelFileError(
            f"{path} was made by an older hyperspot (format {version}, this one reads {FORMAT}); train it again"
        )
    if metadata.pop("metadata_sha256", None) != _metadata_sha256(metadata):
        raise _damaged(path)
    if any(not isinstance(metadata.get(name), dict) for name in SECTIONS):
        raise ModelFileError(f"{path} does not hold a whole detector; train it again")
    return dict(metadata)


def _metadata_sha256(metadata: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(metadata).encode()).hexdigest()


def _tensors_sha256(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        # The bytes of an empty tensor cannot be viewed.
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _damaged(path: Path) -> ModelFileError:
    return ModelFileError(f"{path} is damaged (its checksum does not match); train it again or copy it anew")


def _unreadable(path: Path, error: Exception) -> ModelFileError:
    return ModelFileError(
        f"{path} is not a model file or is damaged ({_reason(error)}); train it again or copy it anew"
    )


def _unwritable(path: Path, error: Exception) -> ModelFileError:
    return ModelFileError(f"{path} cannot be written: {_reason(error)}; choose another place")


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error).splitlines()[0].rstrip(".")[:120]
