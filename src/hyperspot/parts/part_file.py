"""The file of a part inspector: a ZIP archive, stored without compression, of model files and `manifest.json`.

The manifest holds `format`, `views` (file, images and decision rule of each), `calibration`, `record`, the SHA-256 of
each file, and `manifest_sha256` of itself. The checksums find damage; they have no key and do not stop tampering.
"""

import hashlib
import json
import shutil
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hyperspot.errors import ModelFileError
from hyperspot.utils.atomic_files import check_writable, replacing

FORMAT = 1
SUFFIX = ".hyperspot"
MANIFEST = "manifest.json"
LARGEST_MANIFEST = 2**26
"""Bytes; the scores of a million images take less."""
DAMAGE = (LookupError, TypeError, ValueError, OverflowError, RuntimeError, EOFError, zlib.error, zipfile.BadZipFile)
"""Raised where the headers or the directory of an archive are damaged."""
SECTIONS = ("views", "calibration", "record", "sha256")


class Unpacked:
    """A temporary folder that exists as long as this object."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="hyperspot-"))
        self._removal = weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)


def require_writable(path: Path) -> None:
    """Raise ModelFileError if `write` could not write the file; called before training."""
    if path.suffix.lower() != SUFFIX:
        raise ModelFileError(f"{path} does not end in {SUFFIX}; choose another name")
    if not path.parent.is_dir():
        raise ModelFileError(f"the folder {path.parent} does not exist; make it or choose another place")
    try:
        check_writable(path)
    except OSError as error:
        raise _unwritable(path, error) from None


def write(path: Path, manifest: dict[str, Any], files: Iterable[Path]) -> None:
    """Write model files and their manifest atomically; raises ModelFileError if the file cannot be written."""
    files = list(files)
    described = {**manifest, "format": FORMAT, "sha256": {file.name: _sha256(file) for file in files}}
    text = json.dumps({**described, "manifest_sha256": _manifest_sha256(described)}, allow_nan=False)
    try:
        with replacing(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr(MANIFEST, text)
            for file in files:
                archive.write(file, file.name)
    except OSError as error:
        raise _unwritable(path, error) from None


def read(path: Path) -> tuple[dict[str, Any], Unpacked]:
    """Return the manifest, and the model files in a temporary folder.

    Raises ModelFileError if the file is missing, damaged, foreign or made by a newer version.
    """
    manifest = read_manifest(path)
    unpacked = Unpacked()
    try:
        with zipfile.ZipFile(path) as archive:
            _require_stored(archive, path)
            for name, checksum in manifest["sha256"].items():
                file = unpacked.folder / name
                # Only plain names of this folder: an archive may hold any path.
                if Path(name).name != name:
                    raise _damaged(path)
                with archive.open(name) as packed, file.open("wb") as copied:
                    shutil.copyfileobj(packed, copied)
                if _sha256(file) != checksum:
                    raise _damaged(path)
    except DAMAGE:
        raise _damaged(path) from None
    except OSError as error:
        raise ModelFileError(f"{path} cannot be unpacked: {(error.strerror or str(error)).lower()}") from None
    return manifest, unpacked


def read_manifest(path: Path) -> dict[str, Any]:
    """Return the manifest alone; raises ModelFileError as `read` does."""
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise ModelFileError(f"{path} {what}; give a file made by `hyperspot part train DATA -o FILE{SUFFIX}`")
    try:
        with zipfile.ZipFile(path) as archive:
            _require_stored(archive, path)
            if archive.getinfo(MANIFEST).file_size > LARGEST_MANIFEST:
                raise zipfile.BadZipFile(MANIFEST)
            manifest = json.loads(archive.read(MANIFEST))
        version = int(manifest["format"])
    except DAMAGE:
        raise ModelFileError(
            f"{path} is not the model file of a part or is damaged; give one made by `hyperspot part train`"
        ) from None
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
    if version != FORMAT:
        age = "a newer" if version > FORMAT else "an older"
        mend = "update hyperspot" if version > FORMAT else "train it again"
        raise ModelFileError(f"{path} was made by {age} hyperspot (format {version}, this one reads {FORMAT}); {mend}")
    if manifest.pop("manifest_sha256", None) != _manifest_sha256(manifest):
        raise _damaged(path)
    if any(not isinstance(manifest.get(name), dict) for name in SECTIONS):
        raise ModelFileError(f"{path} does not hold a whole part inspector; train it again")
    return dict(manifest)


def _require_stored(archive: zipfile.ZipFile, path: Path) -> None:
    """Raise BadZipFile if an archive would unpack to more than its own size: `write` never compresses."""
    entries = archive.infolist()
    compressed = any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
    if compressed or sum(max(entry.file_size, entry.compress_size) for entry in entries) > path.stat().st_size:
        raise zipfile.BadZipFile(path)


def _manifest_sha256(manifest: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(manifest).encode()).hexdigest()


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _damaged(path: Path) -> ModelFileError:
    return ModelFileError(f"{path} is damaged (its checksum does not match); train it again or copy it anew")


def _unwritable(path: Path, error: OSError) -> ModelFileError:
    return ModelFileError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}; choose another place")
