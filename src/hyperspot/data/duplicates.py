"""Finds byte-identical images, which void test figures and the promised false-alarm rate."""

import hashlib
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

from hyperspot.data.layouts import Sample

MOST_GROUPS, MOST_NAMES = 5, 3
"""How many groups of duplicates are named, and how many images of each."""
PROBE = 2**14
"""Bytes from the middle of a file that are compared first: uncompressed images of one camera all have one size."""


def find_duplicates(samples: Iterable[Sample]) -> list[list[Sample]]:
    """Return groups of samples whose image files are byte-identical; unreadable files are ignored.

    Only files of equal size and equal middle are read as a whole.
    """
    groups = [list(samples)]
    for key in (_size, _middle, _checksum):
        groups = [same for group in groups for same in _grouped(group, key)]
    return groups


def describe_duplicates(groups: Sequence[Sequence[Sample]], name: Callable[[Path], str]) -> list[str]:
    """Return a sentence for each of the first groups, the gravest first, and one that counts the others.

    Args:
        groups: As `find_duplicates` returns them.
        name: What to call the image of a path.

    """
    graded = sorted((_gravity(group), number) for number, group in enumerate(groups))
    sentences = []
    for (_, consequence), number in graded[:MOST_GROUPS]:
        named = name_images(groups[number], lambda sample: (sample.split, sample.label), name)
        sentences.append(f"{named} hold the same bytes; {consequence}")
    if len(graded) > MOST_GROUPS:
        left = len(graded) - MOST_GROUPS
        sentences.append(f"{left} more group{'s' * (left > 1)} of images hold the same bytes; remove the copies")
    return sentences


def name_images(group: Sequence[Sample], kind: Callable[[Sample], Hashable], name: Callable[[Path], str]) -> str:
    """Return the names of the first images of a group; one image of each kind comes first, so that it is named."""
    firsts = {kind(sample): sample for sample in reversed(group)}
    ordered = list(dict.fromkeys([*reversed(firsts.values()), *group]))
    names = [name(sample.path) for sample in ordered[:MOST_NAMES]]
    if len(ordered) > MOST_NAMES:
        names.append(f"{len(ordered) - MOST_NAMES} more")
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _gravity(group: Sequence[Sample]) -> tuple[int, str]:
    if len({sample.label for sample in group}) > 1:
        return 0, "they are labeled good and not good, keep the right one"
    splits = {sample.split for sample in group}
    if len(splits) > 1:
        return 1, "they are training and test images at once, figures from them are worthless; keep one"
    if splits == {"train"}:
        return 2, "the promised false-alarm rate does not hold; keep one"
    return 3, "the test counts them more than once; keep one"


def _grouped(samples: Iterable[Sample], key: Callable[[Path], Hashable]) -> list[list[Sample]]:
    groups: dict[Hashable, list[Sample]] = {}
    for sample in samples:
        try:
            groups.setdefault(key(sample.path), []).append(sample)
        except OSError:
            continue  # reported when the image is read
    return [group for group in groups.values() if len(group) > 1]


def _size(path: Path) -> int:
    return path.stat().st_size


def _middle(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size // 2 - PROBE // 2))
        return hashlib.sha256(file.read(PROBE)).digest()


def _checksum(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
