"""Finds image files in folders, in natural order, and those that are not read."""

import contextlib
import re
from collections import deque
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from hyperspot.errors import DataError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp"})
UNREAD_SUFFIXES = frozenset(
    {".heic", ".heif", ".avif", ".gif", ".jp2", ".j2k", ".jxl", ".pbm", ".pgm", ".ppm", ".pnm", ".tga", ".exr", ".hdr"}
    | {".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".rw2", ".orf"}
    | {".heics", ".avifs", ".apng", ".jpf", ".jpx", ".mpo", ".pcx", ".sgi", ".ras", ".ico", ".svg"}
)
"""Image formats that are named where they are found, because they are not read."""
MOST_FOLDERS = 1000
JUNK_FOLDERS = frozenset({"__macosx", "$recycle.bin"})


def is_image_file(path: Path | str) -> bool:
    """Return whether a path is named like an image that is read: a known suffix, not hidden, not temporary."""
    return _has_suffix(Path(path), SUFFIXES)


def find_images(folder: Path | str, recursive: bool = False) -> list[Path]:
    """Return the image files of a folder in natural order (2.png before 10.png), without hidden ones.

    Args:
        folder: Where to look.
        recursive: Whether to look into deeper folders, too.

    Raises:
        DataError: The folder does not exist.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("10.png", "2.png", ".hidden.png", "notes.txt"):
        ...         Path(folder, name).touch()
        ...     [path.name for path in find_images(folder)]
        ['2.png', '10.png']

    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give the folder that holds the images")
    found = [entry for place in _folders(folder, recursive) for entry in place.iterdir() if _is_image(entry)]
    return sorted(found, key=lambda path: [natural_key(part) for part in path.relative_to(folder).parts])


class Unused(NamedTuple):
    """Image files below a folder that are not read.

    Attributes:
        folders: Images of readable formats in each folder that is not read.
        formats: Files of each image format that is not read, by suffix.
        is_cut: Whether there are more folders than were searched.

    """

    folders: dict[Path, int]
    formats: dict[str, list[Path]]
    is_cut: bool = False


def find_unused(root: Path, read: Collection[Path], skipped: Collection[Path] = ()) -> Unused:
    """Return the image files below a folder that are not read.

    Args:
        root: The folder; beside those read, at most `MOST_FOLDERS` in it are searched, so that a home folder takes no
            minutes.
        read: Folders whose images are read, without deeper ones.
        skipped: Folders left out with all that is in them.

    """
    unused, searched = Unused({}, {}), 0
    for place in _folders(root, recursive=True, without=skipped):
        searched += place not in read
        if searched > MOST_FOLDERS:
            return unused._replace(is_cut=True)
        with contextlib.suppress(OSError):  # an unreadable folder that nobody asked for
            entries = sorted(place.iterdir())
            images = sum(_is_image(entry) for entry in entries)
            if images and place not in read:
                unused.folders[place] = images
            for entry in entries:
                if _has_suffix(entry, UNREAD_SUFFIXES) and entry.is_file():
                    unused.formats.setdefault(entry.suffix.lower(), []).append(entry)
    return unused


def find_folders(folder: Path) -> list[Path]:
    """Return the folders in a folder in natural order, without hidden ones."""
    inner = [entry for entry in folder.iterdir() if not entry.name.startswith(".") and entry.is_dir()]
    return sorted(
        (entry for entry in inner if entry.name.lower() not in JUNK_FOLDERS),
        key=lambda entry: natural_key(entry.name),
    )


def natural_key(name: str) -> tuple[list[str | int], str]:
    """Return a sort key for natural order: 2 before 10, then case."""
    parts = re.split(r"(\d+)", name.casefold())
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def _has_suffix(path: Path, suffixes: frozenset[str]) -> bool:
    return path.suffix.lower() in suffixes and not path.name.startswith((".", "~"))


def _is_image(entry: Path) -> bool:
    # A broken link is listed, so that it is reported.
    return is_image_file(entry) and (entry.is_file() or (entry.is_symlink() and not entry.exists()))


def _folders(folder: Path, recursive: bool, without: Collection[Path] = ()) -> Iterator[Path]:
    """Yield a folder and, if recursive, all below it, each once however many links lead to it."""
    seen, waiting = set(), deque([folder])
    while waiting:
        place = waiting.popleft()
        real = place.resolve()
        if real not in seen and place not in without:
            seen.add(real)
            yield place
            with contextlib.suppress(PermissionError) if place != folder else contextlib.nullcontext():
                waiting.extend(find_folders(place) if recursive else [])
