"""Files that are written whole or not at all."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a file beside `path` to write to, which takes its place when the block ends well.

    At any moment the old or the new file is whole; where the block raises, nothing of the new one is left. Raises
    OSError where the folder is missing or cannot be written to, or `path` is a folder, a device or the like.
    """
    _refuse_special(path)
    # A part of the name: all of it may be as long as names can be, in bytes, of which a character takes up to four.
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=".partial")
    os.close(handle)
    partial = Path(name)
    try:
        yield partial
        partial.chmod(0o644)
        with partial.open("rb") as written:
            os.fsync(written.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Raise OSError where `replacing` could not write the file, so that long work is not done in vain."""
    _refuse_special(path)
    with tempfile.TemporaryFile(dir=path.parent):
        pass


def _refuse_special(path: Path) -> None:
    # A move would silently put a file in the place of a device such as /dev/null.
    if path.exists() and not path.is_file():
        raise OSError(0, "it is a folder" if path.is_dir() else "it is not a plain file", str(path))
