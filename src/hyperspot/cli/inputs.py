"""Finds the images that a person names: files, folders, patterns, and paths on stdin."""

import codecs
import glob
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hyperspot.errors import DataError
from hyperspot.images import find_images

LONGEST_STEM = 200
"""Bytes of a result's stem; file systems allow 255 for a name, with its ending."""


@dataclass(frozen=True)
class Input:
    """An image, and the stem of its results: its path below the folder that was named."""

    path: Path
    stem: str


@dataclass
class Inputs:
    """The images found; `count` is None if they come from stdin."""

    inputs: Iterable[Input]
    count: int | None

    def __iter__(self) -> Iterator[Input]:
        """Yield the images, each with a stem that no other of the run has."""
        taken: set[str] = set()
        for one in self.inputs:
            stem, number = one.stem, 2
            while stem in taken:
                stem, number = f"{one.stem}-{number}", number + 1
            taken.add(stem)
            yield Input(one.path, stem)


def find_inputs(named: Sequence[str], *, recursive: bool = False) -> Inputs:
    """Return the images meant by files, folders, patterns and `-` (paths on stdin), in that order.

    Lines on stdin are read one at a time, as they arrive.

    Raises DataError if a name matches nothing.
    """
    if "-" in named:
        if sys.stdin is None:
            raise DataError("there is no list on stdin; pipe one in, or give images, folders or patterns")
        before, after = list(named[: named.index("-")]), list(named[named.index("-") + 1 :])
        first = list(_find(before, recursive))
        last = list(_find(after, recursive))
        return Inputs(_joined(first, _listed(), last), None)
    found = list(_find(named, recursive))
    if not found:
        raise DataError("no image was named; give images, folders or patterns")
    return Inputs(found, len(found))


def _joined(*parts: Iterable[Input]) -> Iterator[Input]:
    for part in parts:
        yield from part


def _find(named: Iterable[str], recursive: bool) -> Iterator[Input]:
    for name in named:
        path = Path(name)
        if path.is_dir():
            found = find_images(path, recursive=recursive)
            if not found:
                more = "" if recursive else "; --recursive includes sub-folders"
                raise DataError(f"the folder {path} holds no image{more}")
            yield from (_input(image, path) for image in found)
        elif path.exists() or path.is_symlink():
            yield _input(path, path.parent)
        else:
            matched = _matches(name)
            if not matched:
                raise DataError(f"{name} does not exist and matches nothing; give an image, a folder or a pattern")
            base = Path(os.path.commonpath([match.parent for match in matched]))
            yield from (_input(match, base) for match in matched if match.is_file())


def _matches(pattern: str) -> list[Path]:
    matches = [Path(match) for match in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207
    # By the real folder, because ** follows links in circles.
    return list({(match.parent.resolve(), match.name): match for match in reversed(matches)}.values())[::-1]


def _input(path: Path, base: Path) -> Input:
    stem = path.relative_to(base).with_suffix("").as_posix()
    folder, _, name = stem.rpartition("/")
    encoded = os.fsencode(name)
    if len(encoded) > LONGEST_STEM:
        short = os.fsdecode(encoded[: LONGEST_STEM - 9])
        stem = f"{folder}/" * bool(folder) + f"{short}-{hashlib.sha256(encoded).hexdigest()[:8]}"
    return Input(path, stem)


def _listed() -> Iterator[Input]:
    """Yield the paths on stdin, one per line; names need not be UTF-8, and a byte order mark is skipped."""
    first = True
    for line in sys.stdin.buffer:
        name = line.removeprefix(codecs.BOM_UTF8) if first else line
        first = False
        if name.strip():
            path = Path(os.fsdecode(name.rstrip(b"\r\n")))
            yield _input(path, path.parent)
