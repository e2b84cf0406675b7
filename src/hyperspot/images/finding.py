"""Finds image files in folders, in natural order, and counts those that are not read."""

import re
from collections import Counter
from pathlib import Path

from hyperspot.errors import DataError

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".tif", ".tiff", ".webp"})
UNREAD_SUFFIXES = frozenset(
    {".heic", ".heif", ".avif", ".gif", ".jp2", ".j2k", ".jxl", ".pbm", ".pgm", ".ppm", ".pnm", ".tga", ".exr", ".hdr"}
    | {".psd", ".dng", ".cr2", ".cr3", ".nef", ".arw"}
)
"""Image formats that are named where they are found, because they are not read."""
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


def count_deeper_images(folder: Path, known: set[Path]) -> Counter[str]:
    """Return the number of image files in each deeper folder, relative to `folder`, without those in `known`."""
    deeper: Counter[str] = Counter()
    for place in _folders(folder, recursive=True, without=known)[1:]:
        count = sum(_is_image(entry) for entry in place.iterdir())
        if count:
            deeper[place.relative_to(folder).as_posix()] = count
    return deeper


def count_unread_formats(folder: Path) -> Counter[str]:
    """Return how many files of a folder have each suffix of an image format that is not read."""
    unread = [entry.suffix.lower() for entry in folder.iterdir() if _has_suffix(entry, UNREAD_SUFFIXES)]
    return Counter(unread)


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


def _folders(folder: Path, recursive: bool, without: set[Path] | frozenset[Path] = frozenset()) -> list[Path]:
    """Return a folder and, if recursive, all below it, each once however many links lead to it."""
    places, seen, waiting = [], set(), [folder]
    while waiting:
        place = waiting.pop(0)
        real = place.resolve()
        if real not in seen and (place == folder or place not in without):
            seen.add(real)
            places.append(place)
            waiting += find_folders(place) if recursive else []
    return places
