"""Finds the images that a person names: files, folders, patterns, and paths on stdin."""

import codecs
import glob
import hashlib
import itertools
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


def find_inputs(named: Sequence[str], *, recursive: bool = False) -> Sequence[Input] | Iterator[Input]:
    """Return the images meant by files, folders, patterns and `-` (paths on stdin), in that order.

    A list, or an iterator that reads stdin one line at a time, as lines arrive. No two images have the same stem.

    Raises DataError if a name matches nothing.
    """
    if "-" in named:
        if sys.stdin is None:
            raise DataError("there is no list on stdin; pipe one in, or give images, folders or patterns")
        split = named.index("-")
        before, after = list(_find(named[:split], recursive)), list(_find(named[split + 1 :], recursive))
        return _distinct(itertools.chain(before, _listed(), after))
    found = list(_distinct(_find(named, recursive)))
    if not found:
        raise DataError("no image was named; give images, folders or patterns")
    return found


def _distinct(inputs: Iterable[Input]) -> Iterator[Input]:
    """Append a number to stems that were used before."""
    taken: set[str] = set()
    for one in inputs:
        stem, number = one.stem, 2
        while stem in taken:
            stem, number = f"{one.stem}-{number}", number + 1
        taken.add(stem)
        yield Input(one.path, stem)


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
