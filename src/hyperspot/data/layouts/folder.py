"""Plain folders of good images, or a folder `good` and one for each defect."""

from pathlib import Path

from hyperspot.data.layouts.base import (
    Found,
    Layout,
    Sample,
    image_files,
    image_stem,
    masks_by_stem,
    orphan_masks,
    orphans_of_no_folder,
)
from hyperspot.images.finding import find_folders, find_images


def _read_folder(root: Path) -> Found:
    """Read plain images, all good; or the folder `good` for training and a folder per defect for the test."""
    if image_files(root / "good"):
        samples = [Sample(path, 0, "train", "good") for path in find_images(root / "good")]
        problems: list[str] = []
        truth = root / "ground_truth"
        folders = find_folders(root)
        for folder in folders:
            if folder.name not in ("good", truth.name):
                masks = masks_by_stem(truth / folder.name)
                paths = find_images(folder)
                samples += [Sample(path, 1, "test", folder.name, masks.get(path.stem, ())) for path in paths]
                problems += orphan_masks(masks, {path.stem for path in paths}, root)
        return Found(samples, problems + orphans_of_no_folder(truth, folders, root), (truth,))
    images = find_images(root)
    stems = {path.stem for path in images}
    named_so = [path for path in images if image_stem(path) != path.stem]
    beside = [path for path in named_so if image_stem(path) in stems]
    orphans = [path for path in named_so if path not in beside]
    problems = [f"{path.name} looks like a mask and is left out" for path in beside]
    if beside:
        problems += orphan_masks({path.stem: (path,) for path in orphans}, (), root)
    elif len(orphans) < len(images):
        # An image of a label may have such a name: if no mask has an image, that is as likely.
        problems += [f"{path.name} is named like a mask without an image, and is taken as an image" for path in orphans]
    left_out = {*beside, *orphans} if beside else set()
    samples = [Sample(path, 0, "train", "good") for path in images if path not in left_out]
    return Found(samples, problems, (root / "ground_truth",))


FOLDER = Layout(
    lambda root: bool(image_files(root) or image_files(root / "good")),
    _read_folder,
    "images of good parts, or the folder good and one folder for each defect",
)
