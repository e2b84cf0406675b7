"""Published figures of papers and their released code, with their known errors."""

import functools
import importlib.resources
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field

PerCent = dict[str, dict[str, float]]
"""Metric, then category or group (`textures`, `objects`, `all`), in per cent."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Entry(_Frozen):
    """One published row.

    Attributes:
        method: Name of the method in the registry; `cfa++`, `cfa_resize` and `dfr` are not in it.
        label: Name for people.
        backbone: Backbone of the published figures; `none` for a network trained from scratch.
        source: A key of `Published.sources`; None if the table has one source for all rows.
        figures: In per cent.
        notes: Keys of `Published.footnotes` on the whole row.
        category_notes: The same for one category.
        printed: Means that the source prints itself.
        printed_differs: Footnotes on printed means that do not follow from the values beneath them.
        modeling: Complexity of modeling as in Table 1 of the CFA paper, and `bank` that of the memory.
        losses: Losses of a row of an ablation.
        gamma: Compression of the row, of vectors and of channels alike.
        images_per_second: Published throughput.

    """

    method: str
    label: str
    backbone: str | None = None
    source: str | None = None
    figures: PerCent = Field(default_factory=dict)
    notes: tuple[str, ...] = ()
    category_notes: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    printed: PerCent = Field(default_factory=dict)
    printed_differs: dict[str, dict[str, str]] = Field(default_factory=dict)
    modeling: str | None = None
    bank: str | None = None
    losses: str | None = None
    gamma: int | None = None
    images_per_second: float | None = None

    def mean(self, metric: str, names: Iterable[str]) -> float | None:
        """Return the mean over some categories in per cent; None if one of them was not published."""
        values = [self.figures.get(metric, {}).get(name) for name in names]
        found = [value for value in values if value is not None]
        return sum(found) / len(found) if found and len(found) == len(values) else None


class PrintedTable(_Frozen):
    """One table of the CFA paper."""

    source: str
    rows: tuple[Entry, ...]


class Published(_Frozen):
    """All published figures.

    `categories` holds figures by category, from the source nearest to the method's authors; `tables` the tables of the
    CFA paper as printed, errors included; `means` further means over all categories.
    """

    about: str
    textures: tuple[str, ...]
    objects: tuple[str, ...]
    sources: dict[str, str]
    footnotes: dict[str, str]
    categories: tuple[Entry, ...]
    tables: dict[str, PrintedTable]
    means: tuple[Entry, ...]

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """The categories of MVTec AD by group."""
        return {"textures": self.textures, "objects": self.objects, "all": self.textures + self.objects}

    def by_category(self, method: str) -> Entry | None:
        """Return the figures of a method by category, None if there are none."""
        return next((entry for entry in self.categories if entry.method == method), None)

    def rows(self, table: int, method: str | None = None) -> tuple[Entry, ...]:
        """Return the rows of a table of the CFA paper, optionally of one method."""
        return tuple(row for row in self.tables[str(table)].rows if method in (None, row.method))

    def texts(self, keys: Iterable[str]) -> tuple[str, ...]:
        """Return the footnotes of some keys."""
        return tuple(self.footnotes[key] for key in keys)


@functools.cache
def published() -> Published:
    """Return the figures that come with the package."""
    file = importlib.resources.files("hyperspot.benchmark") / "published.json"
    return Published.model_validate_json(file.read_text(encoding="utf-8"))
