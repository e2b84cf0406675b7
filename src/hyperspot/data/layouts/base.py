"""Shared by all layouts: samples, masks by name, splits and tables."""

import csv
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from hyperspot.data.shapes import Shape
from hyperspot.errors import DataError, ImageError
from hyperspot.images.finding import find_folders, find_images, natural_key
from hyperspot.images.reading import read_mask

MASK_ENDING = re.compile(r"(_mask|_gt|_label)$", re.IGNORECASE)
LABELS = {
    **dict.fromkeys(("0", "good", "ok", "normal"), 0),
    **dict.fromkeys(("1", "bad", "ko", "ng", "defect", "defective", "anomaly", "anomalous"), 1),
    "": None,
}


@dataclass(frozen=True)
class Sample:
    """One image of a data set, with its label and masks.

    Attributes:
        path: The image file.
        label: 0 is good, 1 is defective, none is unknown.
        split: Whether it is for training or for the test.
        defect: The name of the defect, `good`, or empty if the label is unknown.
        masks: Mask files of its defects; empty for good images and defects without a mask.
        shapes: Polygons, boxes and run lengths of its defects, from annotation files.
        mask_background: RGB color of the mask files outside of the defects.

    Examples:
        >>> from pathlib import Path
        >>> from hyperspot.data import Sample
        >>> sample = Sample(Path("test/scratch/000.png"), label=1, split="test", defect="scratch")
        >>> sample.defect, sample.masks
        ('scratch', ())

    """

    path: Path
    label: Literal[0, 1] | None
    split: Literal["train", "test"]
    defect: str
    masks: tuple[Path, ...] = ()
    shapes: tuple[Shape, ...] = ()
    mask_background: tuple[int, int, int] = (0, 0, 0)

    @property
    def has_mask(self) -> bool:
        """Whether its defects are marked."""
        return bool(self.masks or self.shapes)


class Found(NamedTuple):
    """Samples and problems that a layout reads.

    Attributes:
        samples: The samples in order.
        problems: Faults of the data, a sentence each.
        masks: Folders without samples, for example of masks; they are not reported as unread.

    """

    samples: list[Sample]
    problems: list[str]
    masks: tuple[Path, ...] = ()


class Layout(NamedTuple):
    """How to recognize and read one layout; `expects` describes it in errors."""

    recognizes: Callable[[Path], bool]
    read: Callable[[Path], Found]
    expects: str


def has_folder(*places: str) -> Callable[[Path], bool]:
    """Return a function that tells whether one of the folders exists."""
    return lambda root: any((root / place).is_dir() for place in places)


def image_files(folder: Path) -> list[Path]:
    """Return the images of a folder, none if it does not exist."""
    return find_images(folder) if folder.is_dir() else []


def image_stem(mask: Path) -> str:
    """Return the stem of the image of a mask."""
    return MASK_ENDING.sub("", mask.stem)


def masks_by_stem(folder: Path) -> dict[str, tuple[Path, ...]]:
    """Return the masks of each image: NAME_mask.png, NAME.png, or all files in a folder NAME."""
    masks: dict[str, tuple[Path, ...]] = {}
    if folder.is_dir():
        for path in find_images(folder):
            masks[image_stem(path)] = (*masks.get(image_stem(path), ()), path)
        for inner in find_folders(folder):
            masks[inner.name] = (*masks.get(inner.name, ()), *find_images(inner))
    return masks


def orphan_masks(masks: Mapping[str, tuple[Path, ...]], stems: Iterable[str], root: Path) -> list[str]:
    """Return a problem for each mask without an image."""
    lost = [path for stem, paths in masks.items() if stem not in stems for path in paths]
    return [f"{path.relative_to(root).as_posix()} is a mask without an image; it is left out" for path in lost]


def orphans_of_no_folder(truth: Path, folders: Iterable[Path], root: Path) -> list[str]:
    """Return a problem for each mask of a defect that has no folder of images."""
    known = {folder.name for folder in folders}
    return [
        problem
        for folder in (find_folders(truth) if truth.is_dir() else [])
        if folder.name not in known
        for problem in orphan_masks(masks_by_stem(folder), (), root)
    ]


def labeled_pairs(folder: Path, root: Path, problems: list[str]) -> Iterator[tuple[Path, Path, bool]]:
    """Yield each image with its mask and whether the mask is not empty; an unreadable mask becomes a problem."""
    for path, mask in _pairs(folder, root, problems):
        try:
            marked = bool(read_mask(mask).any())
        except ImageError as error:
            problems.append(f"{error}; until then {path.relative_to(root).as_posix()} has no label and is left out")
        else:
            yield path, mask, marked


def _pairs(folder: Path, root: Path, problems: list[str]) -> Iterator[tuple[Path, Path]]:
    """Yield each image of a folder with the mask beside it; one without the other becomes a problem."""
    files = find_images(folder)
    images = {path.stem: path for path in files if image_stem(path) == path.stem}
    masks = {image_stem(path): path for path in files if image_stem(path) != path.stem}
    for stem, path in images.items():
        if stem in masks:
            yield path, masks[stem]
        else:
            problems.append(f"{path.relative_to(root).as_posix()} has no mask and thus no label; it is left out")
    problems += orphan_masks({stem: (mask,) for stem, mask in masks.items()}, images.keys(), root)


def set_aside(
    good: list[Path], root: Path, one_of: int, part_of: Callable[[Path], Path] = lambda path: path
) -> list[Sample]:
    """Split good images into training and test by the hash of their names, equally on every machine.

    Images of one part, which `part_of` returns as a file or folder below the root, stay together.
    """
    parts = {path: part_of(path).relative_to(root).as_posix() for path in good}
    drawn = sorted(set(parts.values()), key=lambda part: hashlib.sha256(part.encode()).digest())
    aside = set(drawn[: round(len(drawn) / one_of)])
    ordered = sorted(good, key=lambda path: natural_key(path.relative_to(root).as_posix()))
    train = [Sample(path, 0, "train", "good") for path in ordered if parts[path] not in aside]
    return train + [Sample(path, 0, "test", "good") for path in ordered if parts[path] in aside]


def table_rows(table: Path, needed: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the line number and the trimmed values of each row that is not blank."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            delimiter = ";" if header.count(";") > header.count(",") else ","
            columns = [name.strip().lower() for name in next(csv.reader([header], delimiter=delimiter), [])]
            missing = [name for name in needed if name not in columns]
            if missing:
                raise DataError(
                    f"{table} has no column {' and no column '.join(missing)}; its first line must name the columns"
                )
            twice = [name for name in needed if columns.count(name) > 1]
            if twice:
                raise DataError(f"{table} has the column {twice[0]} twice; remove one of them")
            reader = csv.reader(file, delimiter=delimiter)
            for values in reader:
                if any(value.strip() for value in values):
                    padded = [value.strip() for value in values] + [""] * len(columns)
                    yield reader.line_num + 1, dict(zip(columns, padded, strict=False))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} is not a table in UTF-8 ({error}); save it as CSV (UTF-8)") from None


def label_of(text: str, where: object) -> Literal[0, 1] | None:
    """Return the label of a word; raises DataError if it is unknown."""
    if text.lower() not in LABELS:
        raise DataError(f"{where} has the label '{text}'; write good or defect, or leave it empty if it is unknown")
    number = LABELS[text.lower()]
    return None if number is None else 1 if number else 0


def split_of(text: str, where: object) -> Literal["train", "test"]:
    """Return the split of a word; raises DataError if it is unknown."""
    if text.lower() not in ("train", "test"):
        raise DataError(f"{where} has the split '{text}'; write train or test")
    return "train" if text.lower() == "train" else "test"
