"""Data sets of labeled images with masks, in whatever layout they lie on the disk."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from hyperspot.data.layouts import FILES, LAYOUTS, Found, Sample, is_data_file, recognize, visa_objects
from hyperspot.data.problems import check, mask_mismatch, relative, unused_images
from hyperspot.errors import DataError, ImageError
from hyperspot.images.finding import find_folders, natural_key
from hyperspot.images.reading import read_image, read_mask, read_size

MOST_WRAPPERS = 4
"""Folders that may lie around a data set."""


@dataclass(frozen=True)
class Dataset:
    """The samples of one product.

    Attributes:
        root: The folder or CSV table that was opened.
        layout: The name of its layout.
        name: The name of the product.
        samples: All samples, in order.
        problems: Faults of the data that do not prevent its use, a sentence each, the gravest first.

    Examples:
        >>> from pathlib import Path
        >>> from hyperspot import Dataset, Sample, open_dataset
        >>> good = Sample(Path("nut/train/good/0.png"), label=0, split="train", defect="good")
        >>> bent = Sample(Path("nut/test/bent/0.png"), label=1, split="test", defect="bent")
        >>> data = Dataset(Path("nut"), "mvtec", "nut", (good, bent), ())
        >>> len(data.train), [sample.defect for sample in data.test]
        (1, ['bent'])

        >>> import tempfile
        >>> from hyperspot import make_product_set
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     data = open_dataset(make_product_set(folder, train=4, good=2, defective=2, size=64))
        ...     data.describe()["test_defective"], len(data.fingerprint())
        (2, 64)

    """

    root: Path
    layout: str
    name: str
    samples: tuple[Sample, ...]
    problems: tuple[str, ...]

    @property
    def train(self) -> list[Sample]:
        """The good training samples."""
        return [sample for sample in self.samples if sample.split == "train" and sample.label == 0]

    @property
    def test(self) -> list[Sample]:
        """The test samples with a known label."""
        return [sample for sample in self.samples if sample.split == "test" and sample.label is not None]

    def fingerprint(self) -> str:
        """Return the SHA-256 over name, file size, split, label and masks of every sample, equal on any machine.

        File contents are not read: a changed pixel changes the fingerprint only if the size of the file changes.
        """
        digest = hashlib.sha256()
        for sample in sorted(self.samples, key=lambda sample: relative(sample.path, self.root)):
            files = [f"{relative(path, self.root)}:{path.stat().st_size}" for path in (sample.path, *sample.masks)]
            described = (sample.split, sample.label, sample.defect, files)
            digest.update(repr((*described, sample.shapes) if sample.shapes else described).encode())
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Return the layout, the counts of images, their sizes and the problems, ready for JSON."""
        test = self.test
        sizes, unreadable = self._sizes()
        return {
            "name": self.name,
            "layout": self.layout,
            "train_good": len(self.train),
            "test_good": sum(sample.label == 0 for sample in test),
            "test_defective": sum(sample.label == 1 for sample in test),
            "defects": dict(Counter(sample.defect for sample in test if sample.label == 1)),
            "with_mask": sum(sample.has_mask for sample in test),
            "unused": len(self.samples) - len(self.train) - len(test),
            "sizes": sizes,
            "fingerprint": self.fingerprint(),
            "problems": [*self.problems, *unreadable],
        }

    def _sizes(self) -> tuple[str, list[str]]:
        """Return width x height of the images (the common one, or the smallest and the largest), and errors."""
        sizes, unreadable = set(), []
        for sample in self.samples:
            try:
                sizes.add(read_size(sample.path))
            except ImageError as error:
                if str(error) not in self.problems:
                    unreadable.append(str(error))
        ordered = sorted(sizes, key=lambda size: (size[0] * size[1], size))
        ends = [f"{width} x {height}" for height, width in (ordered[:1] + ordered[-1:] if ordered else [])]
        return ends[0] if len(ordered) == 1 else " to ".join(ends), unreadable


def open_dataset(root: Path | str, layout: str = "auto", category: str | None = None) -> Dataset:
    """Recognize a data set and list its samples, without decoding images (except masks that hold the labels).

    Byte-identical images, images in folders or formats that are not read, and other faults are listed in
    `Dataset.problems`.

    Args:
        root: A folder in a known layout, a plain folder of good images, or a file that lists images: a CSV table, a
            COCO document or a Lookout for Vision manifest. Folders that hold one folder alone, as unpacked archives do,
            are passed.
        layout: The name of the layout; `auto` recognizes it.
        category: The product, if the folder holds several.

    Raises:
        DataError: The folder, layout or category does not exist, or holds no image.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from hyperspot import open_dataset
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for number in range(3):
        ...         Image.new("L", (64, 48), 90 + number).save(Path(folder, f"{number}.png"))
        ...     data = open_dataset(folder)
        >>> data.layout, len(data.train), data.problems
        ('folder', 3, ())

    """
    root = Path(root)
    if layout != "auto" and layout not in LAYOUTS:
        raise DataError(f"there is no layout '{layout}'; choose one of auto, {', '.join(LAYOUTS)}")
    if not root.exists():
        raise DataError(f"{root} does not exist; give a folder of images or a CSV table")
    if root.is_file() and not is_data_file(root):
        raise DataError(f"{root} is a file; give the folder it is in, or a CSV table")
    if root.is_dir() and layout == "csv":
        raise DataError(f"{root} is a folder; give the CSV table itself")
    try:
        if layout == "auto":
            root = unwrapped(root)
        if category is not None:
            root = _category(root, category)
        elif layout == "auto" and recognize(root) is None and len(only := list_categories(root)) == 1:
            root = root / only[0]
        recognized = recognize(root)
        if recognized is None and (several := list_categories(root)):
            raise DataError(f"{root} holds several products; choose a category: {', '.join(several)}")
        name = layout if layout != "auto" else recognized
        if name is None:
            unused = "".join(f"; {problem}" for problem in unused_images(Found([], []), root))
            raise DataError(
                f"{root} holds no image in a known layout; put images of good parts into it, or into train/good "
                f"with test images in test/good and test/DEFECT{unused}"
            )
        if not root.is_dir() and name not in FILES:
            raise DataError(f"{root} is a file; give the folder it is in, or a CSV table")
        samples, problems, _ = check(LAYOUTS[name].read(root), root, name)
    except OSError as error:
        raise DataError(f"{root} cannot be read ({error.strerror}); check the permissions") from None
    if not samples:
        first = f"; {problems[0]}" if problems else ""
        raise DataError(f"{root} holds no image in the layout {name}, which is {LAYOUTS[name].expects}{first}")
    product = root.stem if root.is_file() else root.resolve().name
    return Dataset(root, name, product, tuple(samples), tuple(problems))


def list_categories(root: Path | str) -> list[str]:
    """Return the names of the products in a folder; empty if it is one data set itself."""
    root = Path(root)
    if not root.is_dir() or recognize(root) not in (None, "folder"):
        return []
    listed = visa_objects(root)
    if listed:
        return sorted((name for name in listed if (root / name).is_dir()), key=natural_key)
    return [folder.name for folder in find_folders(root) if _is_category(folder)]


def load_mask(sample: Sample, height: int, width: int) -> Bool[np.ndarray, "{height} {width}"] | None:
    """Return the mask of a sample: empty for a good one, none for a defective one without masks and shapes.

    Args:
        sample: One of a data set.
        height: Of the image, in pixels.
        width: Of the image, in pixels.

    Raises:
        ImageError: A mask cannot be read or has another size than the image.

    """
    if sample.label != 0 and not sample.has_mask:
        return None
    union = np.zeros((height, width), dtype=bool)
    for path in sample.masks if sample.label != 0 else ():
        black = sample.mask_background == (0, 0, 0)
        mask = (
            read_mask(path) if black else (read_image(path) != np.array(sample.mask_background, np.uint8)).any(axis=2)
        )
        if mask.shape != union.shape:
            raise ImageError(mask_mismatch(str(path), mask.shape, (height, width)))
        union |= mask
    for shape in sample.shapes:
        try:
            shape.draw(union)
        except ValueError as error:
            raise ImageError(f"the mask of {sample.path} does not fit: {error}; annotate it again") from None
    return union


def unwrapped(root: Path) -> Path:
    """Return the data set, or the folder of several, that a chain of folders with one folder each leads to.

    Without one, the folder itself is returned, and so it is if the chain leads to plain images: they may be defective.
    """
    inner = root
    for _ in range(MOST_WRAPPERS):
        if not inner.is_dir() or recognize(inner) is not None or list_categories(inner):
            break
        folders = find_folders(inner)
        if len(folders) != 1:
            return root
        inner = folders[0]
    return inner if inner == root or _is_category(inner) or list_categories(inner) else root


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
