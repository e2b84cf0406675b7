"""Checks the samples of a data set: what cannot be used is left out, and every fault becomes a sentence."""

from dataclasses import replace
from pathlib import Path

from hyperspot.data.duplicates import describe_duplicates, find_duplicates
from hyperspot.data.layouts import Found, Sample
from hyperspot.errors import DataError, ImageError
from hyperspot.images.finding import MOST_FOLDERS as MOST_SEARCHED
from hyperspot.images.finding import find_unused
from hyperspot.images.reading import read_size

MOST_FOLDERS = 5
"""How many folders of unused images are named."""


def check(found: Found, root: Path, layout: str) -> Found:
    """Leave out empty files, broken links, repeated entries and missing masks, and describe all other faults.

    The gravest problems, images in both splits, come first. Raises DataError if one file is both good and defective.
    """
    problems = list(found.problems)
    voiding: list[str] = []
    samples: list[Sample] = []
    seen: dict[Path, dict[str, Sample]] = {}
    for sample in found.samples:
        name = relative(sample.path, root)
        if not sample.path.exists():
            problems.append(f"{name} is a broken link; it is left out")
            continue
        if sample.path.stat().st_size == 0:
            problems.append(f"{name} is empty (0 bytes); it is left out")
            continue
        mentions = seen.setdefault(sample.path.resolve(), {})
        if any(other.label != sample.label for other in mentions.values()):
            raise DataError(f"{name} is listed with two labels; keep the right one")
        if sample.split in mentions:
            # Counted twice it could be trained on and held out at once, which voids the promised rate.
            first = relative(mentions[sample.split].path, root)
            same = "is listed twice" if first == name else f"is the same file as {first}"
            problems.append(f"{name} {same}; it is used once")
            continue
        if mentions:
            voiding.append(f"{name} is both a training and a test image; figures from it are worthless")
        mentions[sample.split] = sample
        masks = tuple(mask for mask in sample.masks if not _broken(mask, sample, root, problems))
        samples.append(sample if masks == sample.masks else replace(sample, masks=masks))
    if any(sample.has_mask for sample in samples):
        bare = [sample for sample in samples if sample.split == "test" and sample.label == 1 and not sample.has_mask]
        problems += [f"{relative(sample.path, root)} is defective and has no mask" for sample in bare]
    unique = [next(iter(mentions.values())) for mentions in seen.values() if mentions]
    voiding += describe_duplicates(find_duplicates(unique), lambda path: relative(path, root))
    return Found(samples, [*voiding, *problems, *unused_images(found, root, layout)])


def unused_images(found: Found, root: Path, layout: str = "") -> list[str]:
    """Return sentences on the image files below a folder that are not read, for their place or their format."""
    if not root.is_dir():
        return []
    unused = find_unused(root, {sample.path.parent for sample in found.samples}, found.masks)
    problems = []
    if unused.folders:
        counts = sorted(unused.folders.items(), key=lambda item: -item[1])
        named = [f"{relative(folder, root)} ({count})" for folder, count in counts[:MOST_FOLDERS]]
        if len(counts) > MOST_FOLDERS:
            named.append(f"{len(counts) - MOST_FOLDERS} more")
        where = f"in folders that {f'the layout {layout} does' if layout else 'layouts do'} not read"
        total = sum(unused.folders.values())
        verb = "image lies" if total == 1 else "images lie"
        problems.append(f"{total} {verb} {where}: {', '.join(named)}; move or remove what they hold")
    if unused.is_cut:
        problems.append(f"only the first {MOST_SEARCHED} folders without samples were searched for unread images")
    for suffix, paths in sorted(unused.formats.items()):
        verb = "file is" if len(paths) == 1 else "files are"
        examples = relative(paths[0], root) + ", ..." * (len(paths) > 1)
        problems.append(f"{len(paths)} {suffix} {verb} not read ({examples}); convert to PNG")
    return problems


def mask_mismatch(name: str, size: tuple[int, ...], expected: tuple[int, int]) -> str:
    """Return the sentence on a mask whose height and width are not those of its image."""
    return (
        f"the mask {name} has {size[1]} x {size[0]} pixels, its image {expected[1]} x {expected[0]}; "
        "scale the mask to the size of the image"
    )


def relative(path: Path, root: Path) -> str:
    """Return a path relative to a data set (to the folder of a table), with forward slashes on every system."""
    base = root.parent if root.is_file() else root
    if root.is_file() and not path.is_relative_to(base) and path.is_relative_to(base.parent):
        # The folder of a table or an annotation file may lie beside that of the images.
        return f"../{path.relative_to(base.parent).as_posix()}"
    return (path.relative_to(base) if path.is_relative_to(base) else path).as_posix()


def _broken(mask: Path, sample: Sample, root: Path, problems: list[str]) -> bool:
    """Return whether a mask is unusable; one of another size stays and is an error when it is used."""
    name = relative(mask, root)
    if not mask.is_file():
        problems.append(f"{name} is missing")
        return True
    if mask.stat().st_size == 0:
        problems.append(f"{name} is empty (0 bytes); it is left out")
        return True
    try:
        size, expected = read_size(mask), read_size(sample.path)
    except ImageError as error:
        problems.append(str(error))
        return False
    if size != expected:
        problems.append(mask_mismatch(name, size, expected))
    return False
