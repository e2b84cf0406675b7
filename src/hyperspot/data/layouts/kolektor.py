"""KolektorSDD and KolektorSDD2: masks beside the images hold the labels."""

import re
from pathlib import Path

from hyperspot.data.layouts.base import Found, Layout, Sample, image_files, labeled_pairs, set_aside, split_of
from hyperspot.images.finding import find_folders

ITEM = re.compile(r"kos\d+$", re.IGNORECASE)
ONE_OF = 4
"""There is no official split: one of so many good images becomes a test image."""


def _read_kolektorsdd(root: Path) -> Found:
    """Read kosNN/PartN.jpg with PartN_label.bmp; there is no official split for training on good images."""
    good: list[Path] = []
    bad: list[Sample] = []
    problems: list[str] = []
    for folder in find_folders(root):
        if ITEM.match(folder.name):
            for path, mask, marked in labeled_pairs(folder, root, problems):
                if marked:
                    bad.append(Sample(path, 1, "test", "defect", (mask,)))
                else:
                    good.append(path)
    return Found(set_aside(good, root, ONE_OF) + bad, problems)


def _read_kolektorsdd2(root: Path) -> Found:
    samples: list[Sample] = []
    problems: list[str] = []
    for split in ("train", "test"):
        folder = root / split
        for path, mask, marked in labeled_pairs(folder, root, problems) if folder.is_dir() else ():
            if marked:
                samples.append(Sample(path, 1, split_of(split, path), "defect", (mask,)))
            else:
                samples.append(Sample(path, 0, split_of(split, path), "good"))
    return Found(samples, problems)


def _is_kolektorsdd2(root: Path) -> bool:
    return any(path.stem.lower().endswith("_gt") for split in ("train", "test") for path in image_files(root / split))


SDD = Layout(
    lambda root: root.is_dir() and any(ITEM.match(folder.name) for folder in find_folders(root)),
    _read_kolektorsdd,
    "kosNN/PartN.jpg with PartN_label.bmp beside it",
)
SDD2 = Layout(_is_kolektorsdd2, _read_kolektorsdd2, "train/NAME.png with NAME_GT.png, test likewise")
