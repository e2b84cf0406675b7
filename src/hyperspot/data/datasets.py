"""A data set as the rest sees it: labeled photos with masks, whatever their layout on the disk."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from hyperspot.data.layouts import LAYOUTS, Found, Sample, recognize, visa_objects
from hyperspot.errors import DataError, ImageError
from hyperspot.images.reading import find_folders, natural_key, read_mask, read_size


@dataclass(frozen=True)
class Dataset:
    """Photos of one product.

    Attributes:
        root: The folder, or the CSV table, that was opened.
        layout: Its name.
        name: Of the product.
        photos: All of them, in order.
        problems: What is wrong with the data but does not hinder, each as a sentence.

    """

    root: Path
    layout: str
    name: str
    photos: tuple[Sample, ...]
    problems: tuple[str, ...]

    @property
    def train(self) -> list[Sample]:
        """Return the good training photos."""
        return [photo for photo in self.photos if photo.split == "train" and photo.label == 0]

    @property
    def test(self) -> list[Sample]:
        """Return the test photos whose label is known."""
        return [photo for photo in self.photos if photo.split == "test" and photo.label is not None]

    def fingerprint(self) -> str:
        """Return the SHA-256 over name, file size, split, label and masks of every photo, the same on any machine.

        The content is not read, so a changed pixel is only noticed where it changes the size of the file.
        """
        digest = hashlib.sha256()
        for photo in sorted(self.photos, key=lambda photo: _relative(photo.path, self.root)):
            files = [f"{_relative(path, self.root)}:{path.stat().st_size}" for path in (photo.path, *photo.masks)]
            digest.update(repr((photo.split, photo.label, photo.defect, files)).encode())
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return what fits in JSON: what was recognized, how many photos of what kind, and the problems."""
        test = self.test
        sizes, unreadable = self._sizes()
        return {
            "name": self.name,
            "layout": self.layout,
            "train_good": len(self.train),
            "test_good": sum(photo.label == 0 for photo in test),
            "test_defective": sum(photo.label == 1 for photo in test),
            "defects": dict(Counter(photo.defect for photo in test if photo.label == 1)),
            "with_mask": sum(bool(photo.masks) for photo in test),
            "unused": len(self.photos) - len(self.train) - len(test),
            "sizes": sizes,
            "fingerprint": self.fingerprint(),
            "problems": [*self.problems, *unreadable],
        }

    def _sizes(self) -> tuple[str, list[str]]:
        """Return width x height of the photos (the one they share, or the smallest and the largest), and errors."""
        sizes, unreadable = set(), []
        for photo in self.photos:
            try:
                sizes.add(read_size(photo.path))
            except ImageError as error:
                if str(error) not in self.problems:
                    unreadable.append(str(error))
        ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
        ends = [f"{width} x {height}" for height, width in (ordered[:1] + ordered[-1:] if ordered else [])]
        return ends[0] if len(ordered) == 1 else " to ".join(ends), unreadable


def open_dataset(root: Path | str, layout: str = "auto", category: str | None = None) -> Dataset:
    """Recognize and list a data set; no photo is decoded, but masks where they alone tell the label.

    Args:
        root: A folder in a known layout, a plain folder of good photos, or a CSV table.
        layout: `auto`, or the name of the layout.
        category: Which product, where the folder holds several.

    Raises:
        DataError: Where there is no such folder, layout or category, or no photo.

    """
    root = Path(root)
    if layout != "auto" and layout not in LAYOUTS:
        raise DataError(f"there is no layout '{layout}'; choose one of auto, {', '.join(LAYOUTS)}")
    if not root.exists():
        raise DataError(f"{root} does not exist; give a folder of photos or a CSV table")
    if root.is_file() and root.suffix.lower() != ".csv":
        raise DataError(f"{root} is a file; give the folder it is in, or a CSV table")
    if root.is_dir() and layout == "csv":
        raise DataError(f"{root} is a folder; give the CSV table itself")
    try:
        if category is not None:
            root = _category(root, category)
        recognized = recognize(root)
        if recognized is None and (several := list_categories(root)):
            raise DataError(f"{root} holds several products; choose a category: {', '.join(several)}")
        name = layout if layout != "auto" else recognized
        if name is None:
            raise DataError(
                f"{root} holds no photo in a known layout; put photos of good parts into it, or into "
                "train/good with the photos to be tested in test/good and test/DEFECT"
            )
        if name != "csv" and not root.is_dir():
            raise DataError(f"{root} is a file; give the folder it is in, or a CSV table")
        photos, problems = _checked(LAYOUTS[name].read(root), root)
    except OSError as error:
        raise DataError(f"{root} cannot be read ({error.strerror}); check the permissions") from None
    if not photos:
        first = f"; {problems[0]}" if problems else ""
        raise DataError(f"{root} holds no photo in the layout {name}, which is {LAYOUTS[name].expects}{first}")
    product = root.stem if root.is_file() else root.resolve().name
    return Dataset(root, name, product, tuple(photos), tuple(problems))


def list_categories(root: Path | str) -> list[str]:
    """Return the names of the products whose data sets lie in a folder; none where it is a data set itself."""
    root = Path(root)
    if not root.is_dir() or recognize(root) not in (None, "folder"):
        return []
    listed = visa_objects(root)
    if listed:
        return sorted((name for name in listed if (root / name).is_dir()), key=natural_key)
    return [folder.name for folder in find_folders(root) if _is_category(folder)]


def load_mask(photo: Sample, height: int, width: int) -> Bool[np.ndarray, "{height} {width}"] | None:
    """Return where the defects of a photo are: nowhere for a good one, none where nobody outlined them.

    Args:
        photo: One of a data set.
        height: Of the photo, in pixels.
        width: Of the photo, in pixels.

    Raises:
        ImageError: Where a mask cannot be read or has not the size of the photo.

    """
    if photo.label != 0 and not photo.masks:
        return None
    union = np.zeros((height, width), dtype=bool)
    for path in photo.masks if photo.label != 0 else ():
        mask = read_mask(path)
        if mask.shape != union.shape:
            raise ImageError(_mismatch(str(path), mask.shape, (height, width)))
        union |= mask
    return union


def _category(root: Path, category: str) -> Path:
    known = list_categories(root)
    if category in known:
        return root / category
    if not known:
        raise DataError(f"{root} does not hold several products; leave the category '{category}' out")
    raise DataError(f"{root} has no category '{category}'; choose one of {', '.join(known)}")


def _is_category(folder: Path) -> bool:
    layout = recognize(folder)
    return layout is not None and (layout != "folder" or (folder / "good").is_dir())


def _checked(found: Found, root: Path) -> Found:
    """Leave out empty files, broken links, second mentions and missing masks, and say what else is wrong.

    Raises DataError where one photo is both good and defective.
    """
    problems = list(found.problems)
    photos: list[Sample] = []
    seen: dict[Path, dict[str, Sample]] = {}
    for photo in found.photos:
        name = _relative(photo.path, root)
        if not photo.path.exists():
            problems.append(f"{name} is a link that leads nowhere; it is left out")
            continue
        if photo.path.stat().st_size == 0:
            problems.append(f"{name} is empty (0 bytes); it is left out")
            continue
        mentions = seen.setdefault(photo.path.resolve(), {})
        if any(other.label != photo.label for other in mentions.values()):
            raise DataError(f"{name} is listed as good and as something else; keep the right one of the two")
        if photo.split in mentions:
            # Counted twice it could be learned from and held out at once, and no promise would hold.
            first = _relative(mentions[photo.split].path, root)
            same = "is listed twice" if first == name else f"is the same file as {first}"
            problems.append(f"{name} {same}; it is taken once")
            continue
        if mentions:
            problems.append(f"{name} is both a training and a test photo; figures from it are worthless")
        mentions[photo.split] = photo
        masks = tuple(mask for mask in photo.masks if not _broken(mask, photo, root, problems))
        photos.append(
            photo if masks == photo.masks else Sample(photo.path, photo.label, photo.split, photo.defect, masks)
        )
    if any(photo.masks for photo in photos):
        bare = [photo for photo in photos if photo.split == "test" and photo.label == 1 and not photo.masks]
        problems += [f"{_relative(photo.path, root)} is defective and has no mask" for photo in bare]
    return Found(photos, problems)


def _broken(mask: Path, photo: Sample, root: Path, problems: list[str]) -> bool:
    """Return whether a mask cannot be used at all; one of another size stays, to be refused when it is used."""
    name = _relative(mask, root)
    if not mask.is_file():
        problems.append(f"{name} is missing")
        return True
    if mask.stat().st_size == 0:
        problems.append(f"{name} is empty (0 bytes); it is left out")
        return True
    try:
        size, expected = read_size(mask), read_size(photo.path)
    except ImageError as error:
        problems.append(str(error))
        return False
    if size != expected:
        problems.append(_mismatch(name, size, expected))
    return False


def _mismatch(name: str, size: tuple[int, ...], expected: tuple[int, int]) -> str:
    return (
        f"the mask {name} has {size[1]} x {size[0]} pixels, its photo {expected[1]} x {expected[0]}; "
        "scale the mask to the size of the photo"
    )


def _relative(path: Path, root: Path) -> str:
    base = root.parent if root.is_file() else root
    return (path.relative_to(base) if path.is_relative_to(base) else path).as_posix()
