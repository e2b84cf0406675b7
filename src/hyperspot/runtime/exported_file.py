"""The exported file: its metadata in JSON, and a checksum over all its bytes.

The metadata lies inside the file: the ONNX metadata property `hyperspot`, or `hyperspot` under `framework` in the
run-time information of OpenVINO IR. It holds the checksum: SHA-256 over the file, with 64 zeros in the checksum's
place, then over the length and the content of the weights file if there is one. A damaged file is found without an
engine. The checksum has no key and does not stop tampering.
"""

import hashlib
import html
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hyperspot.errors import ModelFileError
from hyperspot.utils.atomic_files import replacing

FORMAT = 3
SUFFIXES = (".onnx", ".xml")
PROPERTY = "hyperspot"
"""Name of the metadata property."""
PLACEHOLDER = "hyperspot-sha256:" + "0" * 64
_CHECKSUM = re.compile(rb"hyperspot-sha256:([0-9a-f]{64})")
METADATA_PROPS = 14
"""Field number of `metadata_props` in an ONNX `ModelProto`."""
LENGTH_DELIMITED, VARINT = 2, 0
"""Protocol Buffers wire types."""


def is_exported(path: Path) -> bool:
    """Return whether a path has the suffix of an exported file."""
    return path.suffix.lower() in SUFFIXES


def weights_file(path: Path) -> Path | None:
    """Return the weights file of OpenVINO IR; None for ONNX."""
    return path.with_suffix(".bin") if path.suffix.lower() == ".xml" else None


def metadata_text(values: dict[str, Any]) -> str:
    """Return the metadata as JSON, with a placeholder for the checksum."""
    return json.dumps({**values, "format": FORMAT, "checksum": PLACEHOLDER}, allow_nan=False, ensure_ascii=True)


def with_checksum(content: bytes, weights: bytes | None = None) -> bytes:
    """Return the content of a file with its checksum in place of the placeholder."""
    return content.replace(PLACEHOLDER.encode(), b"hyperspot-sha256:" + _checksum(content, weights))


def check(path: Path) -> None:
    """Raise ModelFileError if an exported file is missing, foreign or damaged."""
    if not path.is_file():
        raise ModelFileError(f"{path} does not exist; make it with `hyperspot export MODEL -o {path}`")
    content = path.read_bytes()
    found = _CHECKSUM.search(content)
    if found is None:
        raise ModelFileError(
            f"{path} is not an exported hyperspot detector or is damaged; give one made by `hyperspot export`"
        )
    weights = None
    beside = weights_file(path)
    if beside is not None:
        if not beside.is_file():
            raise ModelFileError(f"{beside} with the weights of {path.name} does not exist; copy it beside that file")
        weights = beside.read_bytes()
    if _checksum(content.replace(found.group(), PLACEHOLDER.encode()), weights) != found.group(1):
        raise ModelFileError(f"{path} is damaged (its checksum does not match); export it again or copy it anew")


def view_files(path: Path, views: int) -> list[Path]:
    """Return the files of the views of a tiling: the exported file itself, and that of the whole image beside it."""
    return [path, path.with_name(f"{path.stem}.whole{path.suffix}")][:views]


def require_replaceable(path: Path) -> None:
    """Raise ModelFileError if the place of the view of the whole image holds a file that no export wrote."""
    beside = view_files(path, 2)[1]
    if beside.is_file():
        try:
            check(beside)
        except ModelFileError:
            raise ModelFileError(
                f"{beside} is no view of the whole image and would be replaced by one; move it or choose another name"
            ) from None


def remove_stale(path: Path, views: int) -> None:
    """Remove the view of the whole image that an earlier export with more views left beside a file."""
    for stale in view_files(path, 2)[views:]:
        stale.unlink(missing_ok=True)
        if (weights := weights_file(stale)) is not None:
            weights.unlink(missing_ok=True)


def read_description(path: Path, text: str | None) -> dict[str, Any]:
    """Return the metadata of an exported file; raises ModelFileError if it is foreign, too old or too new."""
    try:
        description = json.loads(text or "")
        version = int(description["format"])
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        raise ModelFileError(
            f"{path} is not an exported hyperspot detector; give one made by `hyperspot export`"
        ) from None
    if version > FORMAT:
        raise ModelFileError(
            f"{path} was exported by a newer hyperspot (format {version}, this one reads {FORMAT}); update hyperspot"
        )
    if version < FORMAT:
        raise ModelFileError(
            f"{path} was exported by an older hyperspot (format {version}, this one reads {FORMAT}); export it again"
        )
    return dict(description)


def rewrite(source: Path, target: Path, description: dict[str, Any]) -> None:
    """Copy an exported file with other metadata; raises ModelFileError if the target cannot be written."""
    kept = {name: value for name, value in description.items() if name not in ("format", "checksum")}
    text = metadata_text(kept)
    content = source.read_bytes()
    beside = weights_file(source)
    try:
        if beside is None:
            written = with_checksum(_with_onnx_property(content, text))
        else:
            weights = beside.read_bytes()
            written = with_checksum(_with_ir_property(content, text), weights)
            if target != source:
                with replacing(target.with_suffix(".bin")) as partial:
                    partial.write_bytes(weights)
        with replacing(target) as partial:
            partial.write_bytes(written)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise ModelFileError(f"{target} cannot be written: {reason}; choose another folder") from None


def _checksum(content: bytes, weights: bytes | None) -> bytes:
    digest = hashlib.sha256(content)
    if weights is not None:
        digest.update(len(weights).to_bytes(8, "little"))
        digest.update(weights)
    return digest.hexdigest().encode()


def _with_ir_property(content: bytes, text: str) -> bytes:
    """Return OpenVINO IR with another value of the metadata property."""
    pattern = re.compile(rb'(<%s value=")[^"]*(")' % PROPERTY.encode())
    escaped = html.escape(text).encode()
    changed, count = pattern.subn(lambda match: match.group(1) + escaped + match.group(2), content)
    if count != 1:
        raise ModelFileError("the metadata of the exported file was not found; export it again")
    return changed


def _with_onnx_property(content: bytes, text: str) -> bytes:
    """Return an ONNX file with another value of the metadata property: the onnx package is not needed at the line."""
    parts = []
    for number, start, body, stop in _fields(content):
        if number == METADATA_PROPS and content[body:stop].startswith(_field(1, PROPERTY.encode())):
            parts.append(_field(METADATA_PROPS, _field(1, PROPERTY.encode()) + _field(2, text.encode())))
        else:
            parts.append(content[start:stop])
    return b"".join(parts)


def _fields(content: bytes) -> Iterator[tuple[int, int, int, int]]:
    """Yield field number, start, start of the body and stop of each top-level field of a Protocol Buffers message."""
    position = 0
    while position < len(content):
        start = position
        key, position = _varint(content, position)
        if key & 7 == LENGTH_DELIMITED:
            length, position = _varint(content, position)
            stop = position + length
        elif key & 7 == VARINT:
            _, stop = _varint(content, position)
        else:
            raise ModelFileError("the exported file holds a field that ONNX does not have; export it again")
        yield key >> 3, start, position, stop
        position = stop


def _varint(content: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def _field(number: int, body: bytes) -> bytes:
    return _encoded(number << 3 | LENGTH_DELIMITED) + _encoded(len(body)) + body


def _encoded(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
