"""What makes a file an exported detector: its description in JSON, and a checksum over all its bytes.

The description lies inside the file, as the ONNX metadata property `hyperspot` or as `hyperspot/description` in
the run-time information of OpenVINO IR. It bears the checksum: SHA-256 over the file, with 64 zeros in the
checksum's own place, and over the file of weights where there is one. So a damaged file is told from a good one
without any engine.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from hyperspot.errors import ModelFileError

FORMAT = 1
SUFFIXES = (".onnx", ".xml")
UNSEALED = "hyperspot-sha256:" + "0" * 64
_SEAL = re.compile(rb"hyperspot-sha256:([0-9a-f]{64})")


def is_exported(path: Path) -> bool:
    """Return whether a path has the name of an exported detector and not of a model file."""
    return path.suffix.lower() in SUFFIXES


def weights_file(path: Path) -> Path | None:
    """Return the second file that belongs to an exported one: OpenVINO IR keeps its weights beside it."""
    return path.with_suffix(".bin") if path.suffix.lower() == ".xml" else None


def describe(values: dict[str, Any]) -> str:
    """Return the description of an exported detector, with room for the checksum."""
    return json.dumps({**values, "format": FORMAT, "digest": UNSEALED}, allow_nan=False, ensure_ascii=True)


def seal(content: bytes, weights: bytes = b"") -> bytes:
    """Return the content of a file with its checksum in it."""
    return content.replace(UNSEALED.encode(), b"hyperspot-sha256:" + _digest(content, weights))


def check(path: Path) -> None:
    """Raise ModelFileError where an exported file is missing, foreign or damaged."""
    if not path.is_file():
        raise ModelFileError(f"{path} does not exist; make it with `hyperspot export MODEL -o {path}`")
    content = path.read_bytes()
    found = _SEAL.search(content)
    if found is None:
        raise ModelFileError(
            f"{path} is not an exported hyperspot detector or is damaged; give one made by `hyperspot export`"
        )
    weights = b""
    beside = weights_file(path)
    if beside is not None:
        if not beside.is_file():
            raise ModelFileError(f"{beside} with the weights of {path.name} does not exist; copy it beside that file")
        weights = beside.read_bytes()
    unsealed = content.replace(found.group(), UNSEALED.encode())
    if _digest(unsealed, weights) != found.group(1):
        raise ModelFileError(f"{path} is damaged (its checksum does not match); export it again or copy it anew")


def read_description(path: Path, text: str | None) -> dict[str, Any]:
    """Return what is known of an exported detector; raises ModelFileError where it is foreign or too new."""
    try:
        description = json.loads(text or "")
        version = int(description["format"])
    except (KeyError, TypeError, ValueError):
        raise ModelFileError(
            f"{path} is not an exported hyperspot detector; give one made by `hyperspot export`"
        ) from None
    if version > FORMAT:
        raise ModelFileError(
            f"{path} was exported by a newer hyperspot (format {version}, this one reads up to {FORMAT}); "
            "update with `pip install -U hyperspot`"
        )
    return dict(description)


def _digest(content: bytes, weights: bytes) -> bytes:
    digest = hashlib.sha256(content)
    digest.update(weights)
    return digest.hexdigest().encode()
