"""Files that are written whole or not at all."""

import contextlib
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

WINDOWS_RETRIES = (0.01, 0.05, 0.2, 0.5)
"""Seconds between attempts to replace a file that another process has open."""


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of an empty temporary file that replaces `path` if the block succeeds.

    At any moment either the old or the new file is whole; if the block raises, the temporary file is removed. The file
    permissions follow the umask. Raises OSError if the folder is missing or not writable, or `path` is a folder, a
    device or another special file.
    """
    _refuse_special(path)
    # Part of the name only: it may be as long as names can be, in bytes, of which a character takes up to four.
    partial = path.with_name(f".{path.name[:40]}.{secrets.token_hex(8)}.partial")
    # Created with its final permissions: changing them later is refused on network shares and FUSE mounts.
    partial.touch(exist_ok=False)
    try:
        yield partial
        sync(partial)
        _replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _replace(partial: Path, path: Path) -> None:
    """Move a file to its place; on Windows also while a reader or a virus scanner holds the old one for a moment."""
    for wait in WINDOWS_RETRIES if sys.platform == "win32" else ():
        try:
            partial.replace(path)
        except PermissionError:
            time.sleep(wait)
        else:
            return
    partial.replace(path)


def sync(path: Path) -> None:
    """Flush a written file to the disk; raises OSError if that fails."""
    # Windows refuses to flush a file opened for reading only.
    with path.open("r+b") as written:
        os.fsync(written.fileno())


def check_writable(path: Path) -> None:
    """Raise OSError if `replacing` could not write the file, before long work is done in vain."""
    _refuse_special(path)
    with tempfile.TemporaryFile(dir=path.parent):
        pass


def _refuse_special(path: Path) -> None:
    # Otherwise a regular file would silently replace a device like /dev/null.
    if path.exists() and not path.is_file():
        raise OSError(0, "it is a folder" if path.is_dir() else "it is not a regular file", str(path))
