"""The model file: one safetensors file with JSON metadata. It holds numbers and text, never code.

The metadata has one entry, `hyperspot`, a JSON object with at least `format` (the version of this layout) and
`digest` (SHA-256 over the tensors), so that a foreign, newer or damaged file is told from a good one.
"""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hyperspot.errors import ModelFileError

FORMAT = 1


def write(path: Path, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
    """Write a model file so that at any moment either the old or the new one is whole.

    Raises ModelFileError where the folder does not exist or cannot be written to.
    """
    kept = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    described = json.dumps({**metadata, "format": FORMAT, "digest": _digest(kept)}, allow_nan=False)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".partial")
        os.close(handle)
    except OSError as error:
        raise ModelFileError(f"{path} cannot be written: {_reason(error)}; choose another folder") from None
    partial = Path(name)
    try:
        save_file(kept, partial, metadata={"hyperspot": described})
        partial.chmod(0o644)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        raise ModelFileError(f"{path} cannot be written: {_reason(error)}; choose another folder") from None
    finally:
        partial.unlink(missing_ok=True)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the metadata of a model file.

    Raises ModelFileError where it is missing, damaged, foreign or made by a newer version.
    """
    if not path.is_file():
        raise ModelFileError(f"{path} does not exist; make it with `hyperspot train DATA -o {path}`")
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = _metadata(path, opened.metadata() or {})
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ModelFileError(
            f"{path} is not a model file or is damaged ({_reason(error)}); train it again or copy it anew"
        ) from None
    if metadata.get("digest") != _digest(tensors):
        raise ModelFileError(f"{path} is damaged (its checksum does not match); train it again or copy it anew")
    return tensors, metadata


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the metadata alone, without reading the tensors; raises ModelFileError as `read` does."""
    if not path.is_file():
        raise ModelFileError(f"{path} does not exist; make it with `hyperspot train DATA -o {path}`")
    try:
        with safe_open(path, framework="pt") as opened:
            return _metadata(path, opened.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ModelFileError(
            f"{path} is not a model file or is damaged ({_reason(error)}); train it again or copy it anew"
        ) from None


def _metadata(path: Path, found: dict[str, str]) -> dict[str, Any]:
    try:
        metadata = json.loads(found["hyperspot"])
        version = int(metadata["format"])
    except (KeyError, TypeError, ValueError):
        raise ModelFileError(
            f"{path} is a safetensors file but not a hyperspot model; give one made by `hyperspot train`"
        ) from None
    if version > FORMAT:
        raise ModelFileError(
            f"{path} was made by a newer hyperspot (format {version}, this one reads up to {FORMAT}); "
            "update with `pip install -U hyperspot`"
        )
    return dict(metadata)


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        # An empty tensor may have no stride that bytes could be read by.
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return str(error).splitlines()[0].rstrip(".")[:120]
