"""Images by content, and the anomaly maps of inspections, as files under the station's folder."""

import contextlib
import hashlib
import io
import os
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from hyperspot.service.inference.outcome import Outcome
from hyperspot.utils.atomic_files import replacing

SUFFIXES = {
    b"\x89PNG\r\n\x1a\n": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"BM": ".bmp",
    b"II*\x00": ".tif",
    b"MM\x00*": ".tif",
    b"II+\x00": ".tif",
    b"MM\x00+": ".tif",
}
"""Of file names, by the first bytes."""


@dataclass(frozen=True)
class ImageKey:
    """Names an image by its content."""

    sha256: str
    suffix: str


def key_of(content: bytes) -> ImageKey | None:
    """Return the key of an encoded image; None if it has none of the formats that hyperspot reads.

    Examples:
        >>> from hyperspot.service.records.image_store import key_of
        >>> key_of(b"BM and so on").suffix, key_of(b"<html>")
        ('.bmp', None)

    """
    suffix = next((suffix for magic, suffix in SUFFIXES.items() if content.startswith(magic)), None)
    if suffix is None and content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        suffix = ".webp"
    return None if suffix is None else ImageKey(hashlib.sha256(content).hexdigest(), suffix)


class ImageStore:
    """Files of images (`images/AB/SHA256.SUFFIX`) and of anomaly maps (`results/AB/ID.npz`).

    A file is on the disk, not only in the cache of the system, when a method returns.
    """

    def __init__(self, folder: Path) -> None:
        self._images, self._results = folder / "images", folder / "results"
        self._used: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def using(self, key: ImageKey) -> Iterator[None]:
        """Keep `remove` from an image that is about to be recorded."""
        with self._lock:
            self._used[key.sha256] += 1
        try:
            yield
        finally:
            with self._lock:
                self._used[key.sha256] -= 1
                if not self._used[key.sha256]:
                    del self._used[key.sha256]

    def put(self, key: ImageKey, content: bytes) -> bool:
        """Store an image under its key; return whether it is new."""
        path = self.path(key)
        if path.exists():
            return False
        _write(path, content)
        return True

    def path(self, key: ImageKey) -> Path:
        """Return where an image is or would be."""
        return self._images / key.sha256[:2] / f"{key.sha256}{key.suffix}"

    def read(self, key: ImageKey) -> bytes | None:
        """Return an image; None if it is not kept."""
        return _read(self.path(key))

    def remove(self, key: ImageKey) -> bool:
        """Remove an image, if it is there; return False if it is in use."""
        with self._lock:
            if key.sha256 in self._used:
                return False
            self.path(key).unlink(missing_ok=True)
            return True

    def put_result(self, inspection_id: str, content: bytes) -> None:
        """Store the anomaly map and the mask of an inspection, as `result_content` returns them."""
        _write(self._result(inspection_id), content)

    def read_result(self, inspection_id: str) -> dict[str, Shaped[np.ndarray, "..."]] | None:
        """Return `map` and, unless it is empty, `mask` in bits; None if they are not kept."""
        content = _read(self._result(inspection_id))
        if content is None:
            return None
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return dict(arrays)

    def remove_result(self, inspection_id: str) -> None:
        """Remove what `put_result` stored, if it is there."""
        self._result(inspection_id).unlink(missing_ok=True)

    def files(self) -> Iterator[Path]:
        """Yield all files of images."""
        yield from self._images.glob("*/[!.]*")

    def result_files(self) -> Iterator[Path]:
        """Yield all files of anomaly maps."""
        yield from self._results.glob("*/[!.]*")

    def _result(self, inspection_id: str) -> Path:
        return self._results / inspection_id[:2] / f"{inspection_id}.npz"


def result_content(outcome: Outcome) -> bytes:
    """Return the anomaly map and, unless it is empty, the mask as a file of NumPy."""
    content = io.BytesIO()
    if outcome.mask is None:
        np.savez(content, map=outcome.input_map)
    else:
        np.savez(content, map=outcome.input_map, mask=outcome.mask)
    return content.getvalue()


def _write(path: Path, content: bytes) -> None:
    with contextlib.suppress(FileExistsError):
        path.parent.mkdir(parents=True)
        _sync_folder(path.parent.parent)
    with replacing(path) as partial:
        partial.write_bytes(content)
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Flush the names of new files; Windows does so by itself."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
