"""A table as data, and how it looks: in the terminal, in Markdown, as JSON lines. Footnotes are numbered on the way."""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.table import Table as Drawn

MISSING = "–"
WORDS = frozenset({"what", "backbone", "category", "group", "metric", "view", "losses", "gamma", "modeling", "bank"})
"""Keys of the columns that are set to the left."""


@dataclass(frozen=True)
class Spread:
    """A figure of ours: mean and sample deviation over some runs; no deviation where there is but one."""

    mean: float
    deviation: float | None
    count: int

    @classmethod
    def of(cls, values: Iterable[float | None], scale: float = 1.0) -> "Spread | None":
        """Return the spread of the known values; none where none is known."""
        known = [scale * float(value) for value in values if value is not None]
        if not known:
            return None
        return cls(statistics.mean(known), statistics.stdev(known) if len(known) > 1 else None, len(known))


@dataclass(frozen=True)
class Given:
    """A published figure and the footnotes on it."""

    value: float | str
    notes: tuple[str, ...] = ()


Cell = Spread | Given | str | int | float | None


@dataclass(frozen=True)
class Column:
    """One column: its key in JSON, its title, and how many decimals its figures have."""

    key: str
    title: str
    decimals: int = 2


@dataclass(frozen=True)
class Table:
    """One table of the benchmark.

    Attributes:
        number: As asked for by `--table`.
        title: Above it.
        columns: From left to right.
        rows: Cells by the key of their column; a column that a row lacks is shown as a dash.
        notes: What concerns the whole table.

    """

    number: int
    title: str
    columns: tuple[Column, ...]
    rows: tuple[dict[str, Cell], ...]
    notes: tuple[str, ...] = ()
    _numbers: dict[str, int] = field(default_factory=dict, repr=False, compare=False)

    def texts(self) -> list[list[str]]:
        """Return the cells as text, row by row."""
        return [[self._text(row.get(column.key), column.decimals) for column in self.columns] for row in self.rows]

    def footnotes(self) -> list[str]:
        """Return the numbered footnotes of the cells, and after them the notes on the whole."""
        self.texts()
        numbered = sorted(self._numbers.items(), key=lambda one: one[1])
        return [f"[{number}] {text}" for text, number in numbered] + list(self.notes)

    def markdown(self) -> str:
        """Return the table in Markdown."""
        rows = [[column.title for column in self.columns], ["---"] * len(self.columns), *self.texts()]
        lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
        lines[1] = "|" + "---|" * len(self.columns)
        notes = "".join(f"\n- {note}" for note in self.footnotes())
        return f"### {self.heading}\n\n" + "\n".join(lines) + "\n" + (f"{notes}\n" if notes else "")

    def json_rows(self) -> Iterator[dict[str, Any]]:
        """Yield one object for each row; figures keep all their decimals."""
        for row in self.rows:
            cells = {column.key: _plain(row.get(column.key)) for column in self.columns}
            yield {"table": self.number, "title": self.title, **cells, "notes": list(self.notes)}

    def drawn(self) -> Drawn:
        """Return the table for the terminal."""
        drawn = Drawn(title=self.heading, title_justify="left", title_style="bold", header_style="cyan", box=None)
        for column in self.columns:
            words = column.key in WORDS
            title = column.title.replace(", ", ",\n")
            drawn.add_column(title, justify="left" if words else "right", overflow="fold", min_width=6)
        for row in self.texts():
            drawn.add_row(*(cell.replace("[", "\\[") for cell in row))
        return drawn

    @property
    def heading(self) -> str:
        """The number and the title."""
        return f"Table {self.number}. {self.title}"

    def _text(self, cell: Cell, decimals: int) -> str:
        if cell is None:
            return MISSING
        if isinstance(cell, Spread):
            mean = f"{cell.mean:.{decimals}f}"
            return mean if cell.deviation is None else f"{mean} ± {cell.deviation:.{decimals}f}"
        if isinstance(cell, Given):
            text = cell.value if isinstance(cell.value, str) else f"{cell.value:.{max(1, decimals - 1)}f}"
            marks = [self._numbers.setdefault(note, len(self._numbers) + 1) for note in cell.notes]
            return text + (f" [{','.join(map(str, sorted(set(marks))))}]" if marks else "")
        if isinstance(cell, float):
            # Adding zero takes the sign off a figure that rounds to nothing.
            return f"{round(cell, decimals) + 0.0:.{decimals}f}"
        return str(cell)


def spread_of_means(groups: Sequence[dict[int, float]], scale: float = 1.0) -> Spread | None:
    """Return mean and deviation, over seeds, of the mean over categories.

    Args:
        groups: For each category, its value by seed.
        scale: What the values are multiplied by.

    Only seeds that every category has count, so that no deviation comes from a different choice of categories.
    Where there is no such seed, the mean of the categories' means is returned without a deviation.

    """
    if not groups or any(not group for group in groups):
        return None
    common = set.intersection(*(set(group) for group in groups))
    if common:
        return Spread.of([statistics.mean(group[seed] for group in groups) for seed in sorted(common)], scale)
    return Spread.of([statistics.mean(statistics.mean(group.values()) for group in groups)], scale)


def _plain(cell: Cell) -> Any:
    if isinstance(cell, Spread):
        return {"mean": cell.mean, "deviation": cell.deviation, "count": cell.count}
    if isinstance(cell, Given):
        return {"published": cell.value, "notes": list(cell.notes)}
    return cell
