"""RD-MVTec AD on disk: one frozen version of a data set, for the duration of a run."""

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
    """Yield the data set with its training and test images rotated and cropped; unchanged if `version` is None.

    The draw follows from the version, the name of the product and the image's path below the data set, so it is equal
    on every machine. An anomalous image keeps its label even if its defect was cropped away, as in the papers.

    Raises ImageError if an image or mask cannot be read.
    """
    if version is None:
        yield dataset
        return
    with tempfile.TemporaryDirectory(prefix="hyperspot-rd-") as folder:
        root = Path(folder) / dataset.name
        numbered = [(f"{number:05}", sample) for number, sample in enumerate([*dataset.train, *dataset.test])]
        for _ in prefetch_map(lambda one: _write(root, one[0], one[1], dataset, version), numbered):
            pass
        yield open_dataset(root, "mvtec")


def _write(root: Path, stem: str, sample: Sample, dataset: Dataset, version: int) -> None:
    image = read_image(sample.path)
    mask = load_mask(sample, *image.shape[:2]) if sample.has_mask else None
    base = dataset.root.parent if dataset.root.is_file() else dataset.root
    below = sample.path.relative_to(base) if sample.path.is_relative_to(base) else Path(sample.path.name)
    turned, turned_mask = rd(image, mask, key=f"{dataset.name}/{below.as_posix()}", version=version)
    kind = "good" if sample.label == 0 else sample.defect or "defective"
    _save(root / sample.split / kind / f"{stem}.png", turned)
    if turned_mask is not None:
        _save(root / "ground_truth" / kind / f"{stem}_mask.png", turned_mask.astype(np.uint8) * 255)


def _save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=1)
