"""RD-MVTec AD on the disk: one frozen version of a data set, written for the length of a run."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from hyperspot.data import Dataset, Sample, load_mask, open_dataset
from hyperspot.data.rd_mvtec import rd
from hyperspot.images import read_image
from hyperspot.utils.prefetch import prefetch_map


@contextmanager
def randomized(dataset: Dataset, version: int | None) -> Iterator[Dataset]:
    """Give the photos turned and cropped as the version has them, training and test photos alike.

    The draw follows from the version, the name of the product and the photo's path below the data set, so that it is
    the same on every machine. A defective photo stays one even where its defect was cropped away, as in the papers.
    Without a version the data set is given as it is.

    Raises ImageError where a photo or mask cannot be read.
    """
    if version is None:
        yield dataset
        return
    with tempfile.TemporaryDirectory(prefix="hyperspot-rd-") as folder:
        root = Path(folder) / dataset.name
        numbered = [(f"{number:05}", photo) for number, photo in enumerate([*dataset.train, *dataset.test])]
        for _ in prefetch_map(lambda one: _write(root, one[0], one[1], dataset, version), numbered):
            pass
        yield open_dataset(root, "mvtec")


def _write(root: Path, stem: str, photo: Sample, dataset: Dataset, version: int) -> None:
    image = read_image(photo.path)
    mask = load_mask(photo, *image.shape[:2]) if photo.masks else None
    base = dataset.root.parent if dataset.root.is_file() else dataset.root
    below = photo.path.relative_to(base) if photo.path.is_relative_to(base) else Path(photo.path.name)
    turned, turned_mask = rd(image, mask, key=f"{dataset.name}/{below.as_posix()}", version=version)
    kind = "good" if photo.label == 0 else photo.defect or "defective"
    _save(root / photo.split / kind / f"{stem}.png", turned)
    if turned_mask is not None:
        _save(root / "ground_truth" / kind / f"{stem}_mask.png", turned_mask.astype(np.uint8) * 255)


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=1)
