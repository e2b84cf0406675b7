"""MVTec AD and what is built like it: MPDD, BTAD, MVTec LOCO and MVTec AD 2."""

from collections.abc import Sequence
from pathlib import Path

from hyperspot.data.layouts.base import (
    Found,
    Layout,
    Sample,
    has_folder,
    image_files,
    masks_by_stem,
    orphan_masks,
    orphans_of_no_folder,
)
from hyperspot.images.finding import find_folders, find_images


def _read_mvtec(root: Path) -> Found:
    return _read_splits(root, good="good")


def _read_btad(root: Path) -> Found:
    return _read_splits(root, good="ok")


def _read_loco(root: Path) -> Found:
    return _read_splits(root, good="good", training=("train", "validation"))


def _read_ad_2(root: Path) -> Found:
    found = _read_splits(root, good="good", training=("train", "validation"), tested="test_public")
    problems, private = list(found.problems), []
    for name in ("test_private", "test_private_mixed"):
        if (root / name).is_dir():
            private.append(root / name)
            count = len(find_images(root / name, recursive=True))
            problems.append(f"{name} holds {count} images without labels; they are left out")
    return Found(found.samples, problems, (*found.masks, *private))


def _read_splits(root: Path, good: str, training: Sequence[str] = ("train",), tested: str = "test") -> Found:
    """Read train/GOOD, test/GOOD, test/DEFECT and ground_truth/DEFECT, the last beside the test folder or in it."""
    test = root / tested
    samples = [Sample(path, 0, "train", "good") for name in training for path in image_files(root / name / good)]
    problems: list[str] = []
    truth = root / "ground_truth" if (root / "ground_truth").is_dir() else test / "ground_truth"
    samples += [Sample(path, None, "test", "") for path in image_files(test)]
    folders = find_folders(test) if test.is_dir() else []
    for folder in sorted(folders, key=lambda folder: folder.name != good):
        if folder.name == good:
            samples += [Sample(path, 0, "test", "good") for path in find_images(folder)]
        elif folder != truth:
            masks = masks_by_stem(truth / folder.name)
            paths = find_images(folder)
            samples += [Sample(path, 1, "test", folder.name, masks.get(path.stem, ())) for path in paths]
            problems += orphan_masks(masks, {path.stem for path in paths}, root)
    return Found(samples, problems + orphans_of_no_folder(truth, folders, root), (truth,))


LOCO = Layout(
    has_folder("test/logical_anomalies", "test/structural_anomalies"),
    _read_loco,
    "train/good, validation/good, test/TYPE and ground_truth/TYPE/NAME/000.png",
)
AD_2 = Layout(
    has_folder("test_public/good"),
    _read_ad_2,
    "train/good, validation/good, test_public/good, test_public/bad and test_public/ground_truth/bad",
)
MVTEC = Layout(
    has_folder("train/good", "test/good"),
    _read_mvtec,
    "train/good, test/good, test/DEFECT and ground_truth/DEFECT/NAME_mask.png",
)
MPDD = Layout(lambda root: False, _read_mvtec, "the folders of the layout mvtec")  # noqa: ARG005
BTAD = Layout(has_folder("train/ok", "test/ok"), _read_btad, "train/ok, test/ok, test/ko and ground_truth/ko")
