"""A table as data, and its three renderings: terminal, Markdown and JSON."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table as Drawn

MISSING = "–"
GAP = 2
"""Blanks between the columns of the terminal."""


@dataclass(frozen=True)
class Spread:
    """A measured figure: mean and sample deviation over `count` runs; a single run has no deviation."""

    mean: float
    deviation: float | None
    count: int


@dataclass(frozen=True)
class Given:
    """A published figure and its footnotes."""

    value: float | str
    notes: tuple[str, ...] = ()


Cell = Spread | Given | str | int | float | None
Cells = dict[str, Cell]


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        key: Key of its cells, and JSON name.
        title: Title.
        short: Title on narrow terminals; default: the title.
        decimals: Decimals of its figures.
        words: Whether its cells are words: set to the left, wrapped between words.
        optional: Whether it is left out if no row has a figure.

    """

    key: str
    title: str
    short: str = ""
    decimals: int = 2
    words: bool = False
    optional: bool = False


@dataclass(frozen=True)
class Table:
    """One table of the benchmark.

    Attributes:
        number: Its `--table` number.
        title: Its title.
        columns: From left to right, most important first: narrow terminals drop them from the right.
        rows: Cells by column key; a missing cell is shown as a dash.
        notes: Notes on the whole table.

    """

    number: int
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Cells, ...]
    notes: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """Number and title."""
        return f"Table {self.number}. {self.title}"

    @property
    def visible(self) -> tuple[Column, ...]:
        """The columns without optional ones that no row has."""
        return tuple(one for one in self.columns if not one.optional or any(row.get(one.key) for row in self.rows))

    def texts(self, columns: Sequence[Column] | None = None) -> tuple[list[list[str]], list[str]]:
        """Return the cells as text, row by row, and the numbered footnotes of the cells."""
        numbers: dict[str, int] = {}
        wanted = self.visible if columns is None else columns
        rows = [[_text(row.get(one.key), one.decimals, numbers) for one in wanted] for row in self.rows]
        return rows, [f"[{number}] {note}" for note, number in numbers.items()]

    def markdown(self, level: int = 3) -> str:
        """Return the table in Markdown, under a heading of some level; 0 leaves the heading out."""
        rows, footnotes = self.texts()
        lines = [[one.title for one in self.visible], *rows]
        drawn = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines]
        drawn.insert(1, "|" + "---|" * len(self.visible))
        notes = [f"- {note}" for note in (*footnotes, *self.notes)]
        heading = [f"{'#' * level} {self.heading}", ""] if level else []
        return "\n".join([*heading, *drawn, *([""] if notes else []), *notes]) + "\n"

    def json_rows(self) -> Iterator[dict[str, Any]]:
        """Yield one object per row; figures keep all their decimals."""
        for row in self.rows:
            cells = {column.key: _plain(row.get(column.key)) for column in self.columns}
            yield {"table": self.number, "title": self.title, **cells, "notes": list(self.notes)}

    def terminal(self, width: int) -> tuple[Drawn, list[str]]:
        """Return the table for a terminal of some width, and its footnotes and notes.

        No word is split: titles are abbreviated if they do not fit, then columns are dropped from the right and listed
        in a note.
        """
        titles = [one.title for one in self.visible]
        rows, _ = self.texts()
        if _least(self.visible, titles, rows) > width:
            titles = [one.short or one.title for one in self.visible]
        count = len(self.visible)
        while count > 1 and _least(self.visible[:count], titles, rows) > width:
            count -= 1
        columns = self.visible[:count]
        rows, footnotes = self.texts(columns)
        drawn = Drawn(title=self.heading, title_justify="left", title_style="bold", header_style="cyan", box=None)
        drawn.padding = (0, GAP, 0, 0)
        drawn.pad_edge = False
        widths = _widths(columns, titles, rows, width)
        for column, title, wide in zip(columns, titles, widths, strict=False):
            drawn.add_column(title, justify="left" if column.words else "right", width=wide, overflow="fold")
        for row in rows:
            drawn.add_row(*(cell.replace("[", "\\[") for cell in row))
        dropped = "; ".join(one.title for one in self.visible[count:])
        hidden = [f"Columns that do not fit: {dropped} (--markdown and --json have them)."] if dropped else []
        return drawn, [*hidden, *footnotes, *self.notes]


def _widths(columns: Sequence[Column], titles: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[int]:
    """Return the width of each column: the longest word, and as much more as there is room."""
    widths, room = [], width - _least(columns, titles, rows)
    for number, column in enumerate(columns):
        least = _longest_word(column, titles[number], [row[number] for row in rows])
        most = max([len(titles[number]), *(len(row[number]) for row in rows)])
        more = max(0, min(most - least, room))
        widths.append(least + more)
        room -= more
    return widths


def _least(columns: Sequence[Column], titles: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    cells = [[row[number] for row in rows] for number in range(len(columns))]
    longest = sum(map(_longest_word, columns, titles, cells))
    return longest + GAP * (len(columns) - 1)


def _longest_word(column: Column, title: str, cells: Sequence[str]) -> int:
    words = [word for cell in cells for word in cell.split()] if column.words else cells
    return max(map(len, [*title.split(), *words]), default=1)


def _text(cell: Cell, decimals: int, numbers: dict[str, int]) -> str:
    if cell is None:
        return MISSING
    if isinstance(cell, Spread):
        mean = f"{cell.mean:.{decimals}f}"
        return mean if cell.deviation is None else f"{mean} ± {cell.deviation:.{decimals}f}"
    if isinstance(cell, Given):
        text = cell.value if isinstance(cell.value, str) else f"{cell.value:.{max(1, decimals - 1)}f}"
        marks = {numbers.setdefault(note, len(numbers) + 1) for note in cell.notes}
        return text + (f" [{','.join(map(str, sorted(marks)))}]" if marks else "")
    if isinstance(cell, float):
        # Adding zero removes the sign of a rounded zero.
        return f"{round(cell, decimals) + 0.0:.{decimals}f}"
    return str(cell)


def _plain(cell: Cell) -> Any:
    if isinstance(cell, Spread):
        return {"mean": cell.mean, "deviation": cell.deviation, "count": cell.count}
    if isinstance(cell, Given):
        return {"published": cell.value, "notes": list(cell.notes)}
    return cell
