"""The pictures of tables 1, 6 and 8, by matplotlib: SVG or PNG, the same bytes at each drawing."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from hyperspot.backbones import NONE
from hyperspot.benchmark.render import Cells, Spread, Table
from hyperspot.benchmark.runs import IMAGE, PIXEL
from hyperspot.errors import DataError, SettingsError

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
"""The palette of Okabe and Ito, without its yellow: distinct for color-blind readers."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p", "h")
STYLE: dict[Any, Any] = {
    "svg.hashsalt": "hyperspot",
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "legend.frameon": False,
}
SUFFIXES = (".svg", ".png")


@dataclass(frozen=True)
class Series:
    """Named points (x, y); joined by a line if there are several."""

    name: str
    points: tuple[tuple[float, float], ...]


def plot(table: Table, path: Path) -> None:
    """Write the picture of a table.

    Raises SettingsError if the table has no picture or no figures for it, DataError if the file cannot be written.
    """
    if table.number not in PLOTTED:
        raise SettingsError(f"table {table.number} has no picture; tables with one: {', '.join(map(str, PLOTTED))}")
    series, x_name, y_name = PLOTTED[table.number](table)
    if not series:
        raise SettingsError(f"table {table.number} has no figures for a picture; make its runs first")
    draw(table.title, x_name, y_name, series, path, log_y=table.number == 1)


def draw(title: str, x_name: str, y_name: str, series: Sequence[Series], path: Path, *, log_y: bool = False) -> None:
    """Draw series over a logarithmic x axis, each with its own color and marker, and a legend beside them.

    Args:
        title: Title of the picture.
        x_name: Label of the horizontal axis.
        y_name: Label of the vertical axis.
        series: At least one point in all.
        path: An .svg or .png file.
        log_y: Whether the vertical axis is logarithmic too.

    """
    if path.suffix.lower() not in SUFFIXES:
        raise SettingsError(f"the picture {path} is neither .svg nor .png; choose one of these suffixes")
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.2, 3.6), layout="constrained")
        axes = figure.add_subplot()
        for number, (one, color, marker) in enumerate(zip(series, cycle(COLORS), cycle(MARKERS), strict=False)):
            xs, ys = zip(*sorted(one.points), strict=True)
            # Later markers are smaller, so that none hides an earlier one.
            size = max(7.0, 10 - 0.3 * number)
            line = axes.plot(xs, ys, color=color, marker=marker, ms=size, markeredgecolor="white", label=one.name)
            line[0].set_linestyle("-" if len(xs) > 1 else "none")
        axes.set(xscale="log", xlabel=x_name, ylabel=y_name, **({"yscale": "log"} if log_y else {}))
        for axis in (axes.xaxis, *([axes.yaxis] if log_y else [])):
            axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
        axes.set_title(title, loc="left", fontsize=10)
        figure.legend(loc="outside right upper")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(
                path, dpi=150, metadata={"Creator": None, "Date": None} if path.suffix.lower() == ".svg" else {}
            )
        except OSError as error:
            raise DataError(f"cannot write the picture {path} ({error.strerror}); choose another --plot") from None


def _names(rows: Sequence[Cells]) -> list[str]:
    """Return the name of each row, with its backbone if there are several."""
    several = len({row.get("backbone") for row in rows if row.get("backbone") != NONE}) > 1
    named = [(row, several and row.get("backbone") != NONE) for row in rows]
    return [f"{row['what']}, {row['backbone']}" if both else str(row["what"]) for row, both in named]


def _series(x: str, y: str, names: Sequence[str], rows: Sequence[Cells]) -> list[Series]:
    points: dict[str, list[tuple[float, float]]] = {}
    for name, row in zip(names, rows, strict=True):
        points.setdefault(name, []).append((_number(row[x]), _number(row[y])))
    return [Series(name, tuple(own)) for name, own in points.items()]


def _with(table: Table, *keys: str) -> list[Cells]:
    return [row for row in table.rows if all(row.get(key) is not None for key in keys)]


def _complexity(table: Table) -> tuple[list[Series], str, str]:
    rows = _with(table, "images", "seconds")
    return _series("images", "seconds", _names(rows), rows), "training images", "modeling, s"


def _compression(table: Table) -> tuple[list[Series], str, str]:
    rows = _with(table, "throughput", PIXEL)
    names = [f"{row['backbone']}, CPU" for row in rows]
    return _series("throughput", PIXEL, names, rows), "images / s", "P-AUROC, %"


def _latency(table: Table) -> tuple[list[Series], str, str]:
    rows = _with(table, "latency_ms", IMAGE)
    return _series("latency_ms", IMAGE, _names(rows), rows), "ms per image on the CPU", "I-AUROC, %"


def _number(cell: object) -> float:
    return cell.mean if isinstance(cell, Spread) else float(str(cell))


PLOTTED = {1: _complexity, 6: _compression, 8: _latency}
"""The series and axis labels of each picture."""
