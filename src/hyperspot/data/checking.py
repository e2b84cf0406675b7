"""What is in a folder: one data set or several products, told from their headers or with every picture decoded."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hyperspot.data.datasets import Dataset, list_categories, open_dataset
from hyperspot.data.layouts import LAYOUTS, recognize
from hyperspot.errors import DataError, ImageError
from hyperspot.images.reading import read_image, read_mask
from hyperspot.utils.prefetch import prefetch_map
from hyperspot.utils.progress import SILENT, Progress

Read = tuple[Callable[[Path], object], Path]


def describe_each(
    root: Path | str,
    layout: str = "auto",
    category: str | None = None,
    *,
    check: bool = False,
    progress: Progress = SILENT,
) -> Iterator[dict[str, Any] | DataError]:
    """Yield what `Dataset.describe` tells of a data set, or of each product where a folder holds several.

    Args:
        root: As `open_dataset` takes it, or a folder of several products.
        layout: `auto`, or the name of the layout.
        category: Which product alone.
        check: Whether to decode every photo and mask. The description then tells how many were decoded (`decoded`)
            and has a sentence for each that cannot be (`damaged`), which is no longer among the problems.
        progress: Listens.

    An error is yielded for each of several products that cannot be opened.

    Raises:
        DataError: Where one data set is meant and cannot be opened, as `open_dataset` raises it.

    """
    several = layout in ("auto", *LAYOUTS) and layout != "csv" and category is None and recognize(Path(root)) is None
    names: list[str | None] = [*list_categories(root)] if several else []
    for name in names or [category]:
        try:
            dataset = open_dataset(root, layout, name)
        except DataError as error:
            if not names:
                raise
            yield error
            continue
        described = dataset.describe()
        if check:
            decoded, damaged = _decode_all(dataset, progress)
            problems = [problem for problem in described["problems"] if problem not in damaged]
            described |= {"decoded": decoded, "problems": problems, "damaged": damaged}
        yield described


def _decode_all(dataset: Dataset, progress: Progress) -> tuple[int, list[str]]:
    """Decode every photo and mask; return how many could be, and a sentence on each that could not."""
    photos = {photo.path: None for photo in dataset.photos}
    masks = {mask: None for photo in dataset.photos for mask in photo.masks}
    reads: list[Read] = [*((read_image, path) for path in photos), *((read_mask, path) for path in masks)]
    stage = f"decoding {dataset.name}"
    damaged = [said for said in progress.track(prefetch_map(_error, reads), stage, len(reads)) if said is not None]
    return len(reads) - len(damaged), damaged


def _error(one: Read) -> str | None:
    read, path = one
    try:
        read(path)
    except ImageError as error:
        return str(error)
    return None
