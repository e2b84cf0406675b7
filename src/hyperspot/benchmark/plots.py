"""The pictures of tables 1, 6 and 8 as self-contained SVG that follows light and dark pages."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from hyperspot.backbones import NONE
from hyperspot.benchmark.selection import IMAGE, PIXEL
from hyperspot.benchmark.table import Cell, Spread, Table
from hyperspot.errors import SettingsError
from hyperspot.report.charts import HEIGHT, LEFT, PLOT_HEIGHT, PLOT_WIDTH, TOP, axes, svg

COLORS = ("#0b6e99", "#d1495b", "#3f7d20", "#8e5ea2", "#c77d0a", "#20808d", "#7a6f5d", "#b03a8c", "#566573")
STYLE = (
    "svg{font:11px system-ui,sans-serif;background:#fff}text{fill:#333}.grid{stroke:#ddd}.name{font-weight:600}"
    "@media(prefers-color-scheme:dark){svg{background:#161b22}text{fill:#ccc}.grid{stroke:#333}}"
)
LEGEND_LINE = 15
LETTER, LINE, DOT = 6.0, 10, 5
"""About how wide and high a name is, and a point with some room, in pixels."""


@dataclass(frozen=True)
class Series:
    """Points of one color; joined where `line` is set."""

    name: str
    points: tuple[tuple[float, float], ...]
    line: bool = False


def plot(table: Table) -> str:
    """Return the picture of a drawn table.

    Raises SettingsError where the table has none, or no row with the figures for it.
    """
    if table.number not in PLOTTED:
        raise SettingsError(f"table {table.number} has no picture; those with one are {', '.join(map(str, PLOTTED))}")
    series, x_name, y_name = PLOTTED[table.number](table)
    series = [one for one in series if one.points]
    if not series:
        raise SettingsError(f"table {table.number} has no figure to draw a picture of; make its runs first")
    return chart(table.title, x_name, y_name, series, log_x=True, log_y=table.number == 1)


def chart(
    title: str, x_name: str, y_name: str, series: Sequence[Series], *, log_x: bool = False, log_y: bool = False
) -> str:
    """Draw points with their names, or lines with a legend below.

    Args:
        title: For who cannot see it.
        x_name: Of the horizontal axis, `y_name` of the vertical one.
        y_name: As above.
        series: At least one point in all.
        log_x: Whether the axis is logarithmic; all values are above 0 then.
        log_y: The same for the vertical axis.

    """
    across = _Axis([x for one in series for x, _ in one.points], log_x)
    up = _Axis([y for one in series for _, y in one.points], log_y)
    parts = [axes(x_name, y_name, across.ticks(), up.ticks())]
    drawn = [
        [(LEFT + PLOT_WIDTH * across.share(x), TOP + PLOT_HEIGHT * (1 - up.share(y))) for x, y in sorted(one.points)]
        for one in series
    ]
    alone = {n: places[0] for n, places in enumerate(drawn) if len(places) == 1 and not series[n].line}
    named = _name_places({n: (series[n].name, place) for n, place in alone.items()})
    legend = 0
    for number, (one, places) in enumerate(zip(series, drawn, strict=True)):
        color = COLORS[number % len(COLORS)]
        if one.line:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>')
        for (x, y), (left, right) in zip(places, sorted(one.points), strict=True):
            said = f"<title>{escape(one.name)}: {left:.4g}, {right:.4g}</title>"
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{color}">{said}</circle>')
        if number in named:
            left, middle = named[number]
            parts.append(f'<text x="{left:.1f}" y="{middle + 4:.1f}">{escape(one.name)}</text>')
            continue
        y = HEIGHT + LEGEND_LINE * legend + 6
        legend += 1
        parts.append(
            f'<circle cx="{LEFT}" cy="{y}" r="4" fill="{color}"/>'
            f'<text x="{LEFT + 10}" y="{y + 4}">{escape(one.name)}</text>'
        )
    return svg(title, parts, height=HEIGHT + LEGEND_LINE * legend + 6, style=STYLE)


def _name_places(points: Mapping[int, tuple[str, tuple[float, float]]]) -> dict[int, tuple[float, float]]:
    """Return where the name of each point begins, and its middle: beside, below or above it, where it hides least."""
    taken = [(x - DOT, y - DOT, x + DOT, y + DOT) for _, (x, y) in points.values()]
    found: dict[int, tuple[float, float]] = {}
    for number, (name, (x, y)) in sorted(points.items(), key=lambda point: point[1][1]):
        width, right = LETTER * len(name), x + DOT + 2
        starts = [(right, y), (x - DOT - 2 - width, y)]
        starts += [(start, y + turn * LINE) for turn in (1, -1, 2, -2) for start in (x - width / 2, right, x - width)]
        boxes = [(start, middle - LINE / 2, start + width, middle + LINE / 2) for start, middle in starts]
        hidden = [
            sum(_overlap(box, other) for other in taken)
            + (box[2] - box[0]) * LINE * (box[0] < LEFT or box[2] > LEFT + PLOT_WIDTH or box[1] < 0)
            for box in boxes
        ]
        best = hidden.index(min(hidden))
        taken.append(boxes[best])
        found[number] = starts[best]
    return found


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> float:
    """Return the area that two boxes (left, top, right, bottom) have in common."""
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


class _Axis:
    """Where values lie between the ends of an axis, and round numbers along it."""

    def __init__(self, values: Sequence[float], log: bool) -> None:
        self.log = log
        low, high = min(values), max(values)
        if log:
            low, high = low / 1.15, high * 1.15
        else:
            room = 0.06 * ((high - low) or abs(high) or 1.0)
            low, high = low - room, high + room
        self.low, self.high = low, high

    def share(self, value: float) -> float:
        """Return 0 at the low end, 1 at the high end."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[tuple[float, str]]:
        """Return the shares of round numbers, and how they read."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
                values = [step * 10.0**power for power in powers for step in steps]
                values = [one for one in values if self.low <= one <= self.high]
                if len(values) >= 3:
                    break
        else:
            raw = (self.high - self.low) / 5
            size = 10.0 ** math.floor(math.log10(raw))
            step = next(one * size for one in (1, 2, 5, 10) if one * size >= raw)
            first = math.ceil(self.low / step)
            values = [step * number for number in range(first, math.floor(self.high / step) + 1)]
        return [(self.share(one), f"{one:.6g}") for one in values]


def _complexity(table: Table) -> tuple[list[Series], str, str]:
    names = dict.fromkeys((str(row["what"]), str(row.get("backbone"))) for row in table.rows if row.get("seconds"))
    several = len({backbone for _, backbone in names}) > 1
    series = []
    for what, backbone in names:
        own = [row for row in table.rows if row["what"] == what and row.get("backbone") == backbone]
        points = tuple((float(str(row["photos"])), _number(row["seconds"])) for row in own)
        series.append(Series(f"{what}, {backbone}" if several else what, points, line=True))
    return series, "training photos", "modeling, s"


def _compression(table: Table) -> tuple[list[Series], str, str]:
    ours = [row for row in table.rows if row.get("throughput") and row.get(PIXEL)]
    series = []
    for backbone in dict.fromkeys(str(row["backbone"]) for row in ours):
        own = [row for row in ours if row["backbone"] == backbone]
        points = tuple((_number(row["throughput"]), _number(row[PIXEL])) for row in own)
        series.append(Series(f"ours, {backbone}, CPU", points, line=True))
    return series, "photos / s", "P-AUROC, %"


def _latency(table: Table) -> tuple[list[Series], str, str]:
    series = []
    for row in table.rows:
        if row.get("latency_ms") and row.get(IMAGE):
            point = (_number(row["latency_ms"]), _number(row[IMAGE]))
            name = str(row["what"]) if row["backbone"] == NONE else f"{row['what']}, {row['backbone']}"
            series.append(Series(name, (point,)))
    return series, "ms per photo on the CPU", "I-AUROC, %"


def _number(cell: Cell) -> float:
    assert isinstance(cell, Spread)
    return cell.mean


PLOTTED = {1: _complexity, 6: _compression, 8: _latency}
"""How each picture follows from its table."""
