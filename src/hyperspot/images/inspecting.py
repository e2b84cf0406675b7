"""What is in a folder: one data set or several products, told from their headers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hyperspot.errors import DataError
from hyperspot.images.datasets import list_categories, open_dataset
from hyperspot.images.layouts import LAYOUTS, recognise


def describe_each(
    root: Path | str,
    layout: str = "auto",
    category: str | None = None,
) -> Iterator[dict[str, Any] | DataError]:
    """Yield what `Dataset.describe` tells of a data set, or of each product where a folder holds several.

    Args:
        root: As `open_dataset` takes it, or a folder of several products.
        layout: `auto`, or the name of the layout.
        category: Which product alone.

    An error is yielded for each of several products that cannot be opened.

    Raises:
        DataError: Where one data set is meant and cannot be opened, as `open_dataset` raises it.

    """
    several = layout in ("auto", *LAYOUTS) and layout != "csv" and category is None and recognise(Path(root)) is None
    names: list[str | None] = [*list_categories(root)] if several else []
    for name in names or [category]:
        try:
            dataset = open_dataset(root, layout, name)
        except DataError as error:
            if not names:
                raise
            yield error
            continue
        yield dataset.describe()
