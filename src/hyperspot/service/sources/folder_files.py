"""The files of a watched folder: found, read, moved away."""

import contextlib
import hashlib
import logging
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from hyperspot.images.finding import is_image_file
from hyperspot.service.sources.base import SourceError

PROCESSED, FAILED = "processed", "failed"
"""Sub-folders that files are moved to; they are not watched."""
log = logging.getLogger(__name__)


class RefusedFileError(Exception):
    """A file that must not be read."""


@dataclass(frozen=True, order=True)
class FoundFile:
    """A file, at one moment; sorted by age.

    Attributes:
        modified_ns: When it was changed, as the file system says.
        path: Relative to the folder, with `/`.
        size: In bytes.
    """

    modified_ns: int
    path: str
    size: int


@dataclass(frozen=True)
class WatchedFolder:
    """A folder; nothing outside of it is read, written or removed.

    Attributes:
        root: Without symbolic links.
        recursive: Whether sub-folders are watched, too.
    """

    root: Path
    recursive: bool

    @classmethod
    def open(cls, folder: Path, recursive: bool) -> "WatchedFolder":
        """Return a folder; raises SourceError if it is not there."""
        try:
            root = folder.resolve(strict=True)
        except (OSError, RuntimeError) as error:
            raise _gone(folder, error) from None
        if not root.is_dir():
            raise SourceError(f"{folder} is no folder; give the folder that the camera writes to")
        return cls(root, recursive)

    def identity(self) -> tuple[int, int]:
        """Return what changes when the folder is replaced; raises SourceError if it is gone."""
        try:
            status = self.root.stat()
        except OSError as error:
            raise _gone(self.root, error) from None
        return status.st_dev, status.st_ino

    def scan(self) -> list[FoundFile]:
        """Return all image files; raises SourceError if the folder is gone."""
        found, waiting = [], [self.root]
        while waiting:
            folder = waiting.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.is_symlink():
                            continue
                        if entry.is_dir(follow_symlinks=False):
                            if self.recursive and not self._is_ours(Path(entry.path)):
                                waiting.append(Path(entry.path))
                        elif (file := self.look(Path(entry.path))) is not None:
                            found.append(file)
            except OSError as error:
                if folder == self.root:
                    raise _gone(folder, error) from None
        return sorted(found)

    def look(self, path: Path) -> FoundFile | None:
        """Return an image file of the folder; None if it is none, is gone, lies elsewhere, or has no text as name."""
        if not is_image_file(path) or not path.is_relative_to(self.root):
            return None
        if not _is_text(str(path)):
            log.warning("%r is ignored: its name is not in UTF-8; rename it", str(path))
            return None
        relative = path.relative_to(self.root)
        folders = [self.root.joinpath(*relative.parts[:depth]) for depth in range(1, len(relative.parts))]
        if (folders and not self.recursive) or any(self._is_ours(one) or one.is_symlink() for one in folders):
            return None
        try:
            status = path.lstat()
        except OSError:
            return None
        if not stat.S_ISREG(status.st_mode):
            return None
        return FoundFile(status.st_mtime_ns, relative.as_posix(), status.st_size)

    def read(self, file: FoundFile, max_bytes: int) -> bytes | None:
        """Return the content of a file; None if it changed meanwhile.

        Raises:
            RefusedFileError: It is a link, lies elsewhere, or is too large.
            OSError: It cannot be read.
        """
        if file.size > max_bytes:
            raise RefusedFileError(f"the file has more than {max_bytes:,} bytes; write smaller images")
        path = self.root / file.path
        if path.resolve(strict=True) != path:
            raise RefusedFileError("the file is reached through a symbolic link; write the file itself to the folder")
        # A link that replaced the file meanwhile is not followed; a pipe does not block.
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(path, flags), "rb") as stream:
            before = os.fstat(stream.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise RefusedFileError("this is no regular file; write the image itself to the folder")
            content = stream.read(max_bytes + 1)
            after = os.fstat(stream.fileno())
        same = (file.size, file.modified_ns)
        if same != (before.st_size, before.st_mtime_ns) or same != (after.st_size, after.st_mtime_ns):
            return None
        return content if len(content) == file.size else None

    def move(self, file: FoundFile, name: str) -> None:
        """Move a file to one of our sub-folders; never over another file. A file that is gone is left."""
        target = self.root / name / file.path
        if not (self.root / name).resolve().is_relative_to(self.root):
            raise SourceError(f"{self.root / name} leads out of the folder; replace it with a real sub-folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        number = 0
        while os.path.lexists(target):
            number += 1
            original = Path(file.path)
            target = self.root / name / original.with_name(f"{original.stem}-{number}{original.suffix}")
        with contextlib.suppress(FileNotFoundError):
            (self.root / file.path).rename(target)

    def remove(self, file: FoundFile) -> None:
        """Delete a file; one that is gone is left."""
        (self.root / file.path).unlink(missing_ok=True)

    def _is_ours(self, folder: Path) -> bool:
        return folder.name.startswith(".") or (folder.parent == self.root and folder.name in (PROCESSED, FAILED))


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def digest_of(content: bytes) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(content).hexdigest()


def _gone(folder: Path, error: Exception) -> SourceError:
    reason = error.strerror if isinstance(error, OSError) else None
    return SourceError(f"the folder {folder} cannot be read ({reason or error}); check the path and the network share")
