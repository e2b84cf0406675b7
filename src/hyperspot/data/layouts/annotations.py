"""Shared by the layouts of annotation tools (COCO, YOLO, labelme): from annotated images to samples.

All defective images become test images, those of a training split too: nothing is ever trained on them. Without a
split, a part of the good images is set aside for the test.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperspot.data.layouts.base import Found, Sample, set_aside
from hyperspot.data.shapes import Shape
from hyperspot.errors import DataError, ImageError
from hyperspot.images.finding import find_folders, find_images
from hyperspot.images.reading import read_size

ONE_OF = 5
"""Without a split, one of so many good images becomes a test image."""
TRAINING, VALIDATION, TESTING = ("train", "training"), ("val", "valid", "validation"), ("test", "testing")
"""Names of splits."""
GOOD = frozenset({"good", "ok", "normal"})
"""Names of classes that mark no defect; `0` is none of them, because tools number their classes."""


@dataclass(frozen=True)
class Annotated:
    """An image with its annotations.

    Attributes:
        path: The image file.
        split: As the data set names it; empty without a split.
        shapes: The name of the class and the shape of each annotation.
        flags: Names of classes that hold for the whole image.

    """

    path: Path
    split: str
    shapes: tuple[tuple[str, Shape], ...]
    flags: tuple[str, ...] = ()

    def sample(self, split: str) -> Sample:
        """Return the sample; classes named `good`, `ok` or `normal` mark no defect.

        With another flag and no defect, the label is unknown: a flag may name a defect or anything else.
        """
        named = [(name or "defect", shape) for name, shape in self.shapes]
        defects = [(name, shape) for name, shape in named if name.lower() not in GOOD]
        if not defects:
            if any(flag.lower() not in GOOD for flag in self.flags):
                return Sample(self.path, None, "test", "")
            return Sample(self.path, 0, "test" if split == "test" else "train", "good")
        names = "+".join(sorted({name for name, _ in defects}))
        return Sample(self.path, 1, "test", names, shapes=tuple(shape for _, shape in defects))


def found_in(annotated: Sequence[Annotated], root: Path, problems: Sequence[str]) -> Found:
    """Return the samples of annotated images.

    Validation images are test images if there is no test split, and training images otherwise.
    """
    has_test = any(split_of_name(one.split) == "test" for one in annotated)
    samples = []
    for one in annotated:
        split = split_of_name(one.split)
        samples.append(one.sample("test" if split == "test" or (split == "validation" and not has_test) else "train"))
    if any(one.split for one in annotated):
        return Found(sorted(samples, key=lambda sample: sample.split == "test"), list(problems))
    good = [sample.path for sample in samples if sample.label == 0]
    aside = [f"there is no split: one of {ONE_OF} good images was set aside for the test"] if good else []
    others = [sample for sample in samples if sample.label != 0]
    return Found([*set_aside(good, root, ONE_OF), *others], [*problems, *aside])


def split_of_name(name: str) -> str:
    """Return `train`, `validation` or `test` of the name of a split, or nothing; it may end with a year."""
    for split, names in (("train", TRAINING), ("validation", VALIDATION), ("test", TESTING)):
        if name.lower().rstrip("0123456789") in names:
            return split
    return ""


def split_folders(root: Path) -> list[Path]:
    """Return the folders of a folder that are named like splits."""
    return [folder for folder in find_folders(root) if split_of_name(folder.name)]


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; raises DataError if it is none."""
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise DataError(f"{path} is no JSON file in UTF-8 ({error}); export it again") from None


def holds_keys(path: Path, keys: Iterable[str]) -> bool:
    """Return whether a file names all keys of a JSON document, without parsing it."""
    try:
        text = path.read_bytes()
    except OSError:
        return False
    return all(f'"{key}"'.encode() in text for key in keys)


def size_problems(name: str, image: Path, height: int | None, width: int | None) -> list[str]:
    """Return a problem if an image has another size than its annotations are for; unreadable ones are named later."""
    try:
        actual = read_size(image)
    except ImageError:
        return []
    if (height or actual[0], width or actual[1]) == actual:
        return []
    differs = f"{width} x {height} pixels, {image.name} has {actual[1]} x {actual[0]}"
    return [f"{name} is for an image of {differs}; annotate it again"]


def named_split(stem: str, is_alone: bool) -> str:
    """Return the word in the name of an annotation file that is the name of a split, or nothing.

    The last such word counts. In the name of the only file it must be the last word at all: the others may describe the
    product, as in `test_rig`.
    """
    words = stem.replace("-", "_").replace(".", "_").split("_")
    return next((word for word in (words[-1:] if is_alone else reversed(words)) if split_of_name(word)), "")


def locate(name: str, folders: Sequence[Path], by_name: Mapping[str, Path]) -> Path | None:
    """Return the image that an annotation file names: relative to one of the folders, or the only one so named."""
    # Windows tools write backslashes.
    relative = name.replace("\\", "/")
    for folder in folders:
        if (folder / relative).is_file():
            return folder / relative
    return by_name.get(relative.rpartition("/")[2])


def images_by_name(images: Iterable[Path], root: Path, split: str = "") -> dict[str, Path]:
    """Return the images below a folder by their names, without names that occur more than once.

    If a split is given, those in folders of other splits are left out: they are other images of the same name.
    """
    found: dict[str, list[Path]] = {}
    for path in images:
        splits = {split_of_name(part) for part in path.relative_to(root).parts[:-1]} - {""}
        if not split or not splits or split_of_name(split) in splits:
            found.setdefault(path.name, []).append(path)
    return {name: paths[0] for name, paths in found.items() if len(paths) == 1}


def unlisted(annotated: Iterable[Path], root: Path, listed_by: str) -> list[str]:
    """Return a problem if folders of listed images hold others."""
    listed = {path.resolve() for path in annotated}
    folders = {path.parent for path in listed}
    others = [path for path in find_images(root, recursive=True) if path.resolve() not in listed]
    beside = [path for path in others if path.resolve().parent in folders]
    if not beside:
        return []
    verb = "image is" if len(beside) == 1 else "images are"
    example = beside[0].relative_to(root).as_posix()
    return [f"{len(beside)} {verb} not listed in {listed_by} ({example}{', ...' * (len(beside) > 1)}) and left out"]
