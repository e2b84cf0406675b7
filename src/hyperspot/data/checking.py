"""Describes a data set, or each product of a folder, from headers or with every image decoded."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hyperspot.data.datasets import Dataset, list_categories, open_dataset, unwrapped
from hyperspot.data.layouts import LAYOUTS, recognize
from hyperspot.data.near_duplicates import describe_near_duplicates, find_near_duplicates
from hyperspot.data.problems import relative
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
    """Yield `Dataset.describe` of a data set, or of each product if a folder holds several.

    Near duplicates are added to the problems of a single data set, and of several with `check`.

    Args:
        root: As for `open_dataset`, or a folder of several products.
        layout: The name of the layout; `auto` recognizes it.
        category: Limits the description to one product.
        check: Whether to decode every image and mask. The description then has the number decoded (`decoded`) and a
            sentence for each that is damaged (`damaged`), which is no longer among the problems.
        progress: Shows the progress of decoding.

    A product among several that cannot be opened is yielded as an error.

    Raises:
        DataError: A single data set cannot be opened, as by `open_dataset`.

    """
    root = unwrapped(Path(root)) if layout == "auto" else Path(root)
    several = layout in ("auto", *LAYOUTS) and layout != "csv" and category is None and recognize(root) is None
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
        if check or not names:
            described["problems"] += near_duplicates_of(dataset, progress)
        if check:
            decoded, damaged = _decode_all(dataset, progress)
            problems = [problem for problem in described["problems"] if problem not in damaged]
            described |= {"decoded": decoded, "problems": problems, "damaged": damaged}
        yield described


def near_duplicates_of(dataset: Dataset, progress: Progress = SILENT) -> list[str]:
    """Return sentences on the near duplicates in a data set, across splits too."""
    groups = find_near_duplicates(dataset.samples, progress=progress)
    return describe_near_duplicates(groups, lambda path: relative(path, dataset.root))


def _decode_all(dataset: Dataset, progress: Progress) -> tuple[int, list[str]]:
    """Decode every image and mask; return the number decoded and a sentence for each failure."""
    images = dict.fromkeys(sample.path for sample in dataset.samples)
    masks = dict.fromkeys(mask for sample in dataset.samples for mask in sample.masks)
    reads: list[Read] = [*((read_image, path) for path in images), *((read_mask, path) for path in masks)]
    errors = progress.track(prefetch_map(_error, reads), f"decoding {dataset.name}", len(reads))
    damaged = [error for error in errors if error is not None]
    return len(reads) - len(damaged), damaged


def _error(one: Read) -> str | None:
    read, path = one
    try:
        read(path)
    except ImageError as error:
        return str(error)
    return None
