"""Charts as inline SVG; colors come from the style sheet, so that they follow the color scheme."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from markupsafe import Markup

WIDTH, HEIGHT = 640.0, 276.0
LEFT, RIGHT, TOP, BOTTOM, ROW = 56.0, 16.0, 12.0, 40.0, 14.0
Point = tuple[float, float]


@dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
        low, high: Its ends; `low` is above 0 on a logarithmic axis.
        ticks: Values with their labels.
        label: Its name.
        scale: `linear`, `log`, or `root`, which spreads small shares and keeps 0.

    Examples:
        >>> from hyperspot.service.pages.charts import Axis
        >>> axis = Axis(0.0, 1.0, (), scale="root")
        >>> axis.share(0.25), axis.share(9.0)
        (0.5, 1.0)

    """

    low: float
    high: float
    ticks: Sequence[tuple[float, str]]
    label: str = ""
    scale: Literal["linear", "log", "root"] = "linear"

    def share(self, value: float) -> float:
        """Return where a value lies between the ends, in [0, 1]."""
        changes: dict[str, Callable[[float], float]] = {"linear": float, "log": math.log, "root": math.sqrt}
        change = changes[self.scale]
        low, high = change(self.low), change(self.high)
        value = min(max(value, self.low), self.high)
        return (change(value) - low) / (high - low) if high > low else 0.0


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        title: For those who do not see it.
        x, y: Axes.
        lines: Points and CSS class of each line; None as a point breaks a line.
        dots: Place, CSS class and text of each dot.
        limits: Value on the y axis and text of horizontal lines.
        marks: Value on the x axis and text of vertical lines.
    """

    title: str
    x: Axis
    y: Axis
    lines: Sequence[tuple[Sequence[Point | None], str]] = ()
    dots: Sequence[tuple[Point, str, str]] = ()
    limits: Sequence[tuple[float, str]] = field(default=())
    marks: Sequence[tuple[float, str]] = field(default=())

    def svg(self) -> Markup:
        """Return the SVG element.

        Examples:
            >>> from hyperspot.service.pages.charts import Axis, Chart
            >>> axis = Axis(0.0, 1.0, [(0.0, "0"), (1.0, "<1>")])
            >>> drawn = Chart("Rate", axis, axis, lines=[([(0.0, 0.0), (1.0, 1.0)], "curve")]).svg()
            >>> "M56.0 236.0L624.0 12.0" in drawn, "&lt;1&gt;" in drawn
            (True, True)

        """
        parts = [self._axes(), *(self._line(points, kind) for points, kind in self.lines)]
        for value, text in self.limits:
            y = self._y(value)
            parts.append(_path([(LEFT, y), (WIDTH - RIGHT, y)], "limit") + _text(WIDTH - RIGHT, y - 5, text, "end"))
        for value, text in self.marks:
            x = self._x(value)
            anchor = "start" if x < WIDTH / 2 else "end"
            parts.append(_path([(x, self._top), (x, HEIGHT - BOTTOM)], "limit") + _text(x, self._top - 6, text, anchor))
        for (x, y), kind, text in self.dots:
            dot = Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="3"><title>{}</title></circle>')
            parts.append(dot.format(kind, self._x(x), self._y(y), text))
        frame = Markup('<svg class="chart" viewBox="0 0 {:.0f} {:.0f}" role="img" aria-label="{}">{}</svg>')
        return frame.format(WIDTH, HEIGHT, self.title, Markup("").join(parts))

    @property
    def _top(self) -> float:
        """Of the lines; above it is room for the name of the y axis and, below that, for texts of limits."""
        return TOP + ROW * bool(self.y.label) + ROW * any(text for _, text in (*self.limits, *self.marks))

    def _x(self, value: float) -> float:
        return LEFT + self.x.share(value) * (WIDTH - LEFT - RIGHT)

    def _y(self, value: float) -> float:
        return HEIGHT - BOTTOM - self.y.share(value) * (HEIGHT - self._top - BOTTOM)

    def _axes(self) -> Markup:
        parts = []
        for value, text in self.y.ticks:
            y = self._y(value)
            parts += [_path([(LEFT, y), (WIDTH - RIGHT, y)], "grid"), _text(LEFT - 6, y + 4, text, "end")]
        for value, text in self.x.ticks:
            anchor = "end" if value >= self.x.high else "middle"
            parts.append(_text(self._x(value), HEIGHT - BOTTOM + 16, text, anchor))
        corner = (LEFT, HEIGHT - BOTTOM)
        parts.append(_path([(LEFT, self._top), corner, (WIDTH - RIGHT, HEIGHT - BOTTOM)], "axis"))
        parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, self.x.label, "middle"))
        parts.append(_text(LEFT, 15.0, self.y.label, "start") if self.y.label else Markup(""))
        return Markup("").join(parts)

    def _line(self, points: Sequence[Point | None], kind: str) -> Markup:
        runs: list[list[Point]] = [[]]
        for point in points:
            if point is None:
                runs.append([])
            else:
                runs[-1].append((self._x(point[0]), self._y(point[1])))
        return Markup("").join(_path(run, kind) for run in runs if run)


def _path(points: Sequence[Point], kind: str) -> Markup:
    drawn = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return Markup('<path class="{}" d="M{}"/>').format(kind, drawn)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)


def number_axis(values: Sequence[float], write: Callable[[float], str], label: str = "", zero: bool = False) -> Axis:
    """Return a linear axis that holds all values, with round ticks.

    Examples:
        >>> from hyperspot.service.pages.charts import number_axis
        >>> [text for _, text in number_axis([0.1, 0.93], lambda value: f"{value:.2f}").ticks]
        ['0.00', '0.20', '0.40', '0.60', '0.80', '1.00']

    """
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    low = min(low, 0.0) if zero else low
    span = high - low or abs(high) or 1.0
    rough = span / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first, last = math.floor(low / step), math.ceil(high / step)
    last = max(last, first + 1)
    ticks = [(number * step, write(number * step)) for number in range(first, last + 1)]
    return Axis(ticks[0][0], ticks[-1][0], ticks, label)


def log_axis(low: float, label: str = "", high: float = 1.0) -> Axis:
    """Return a logarithmic axis with a tick for each power of ten.

    Examples:
        >>> from hyperspot.service.pages.charts import log_axis
        >>> [text for _, text in log_axis(0.002).ticks]
        ['0.001', '0.01', '0.1', '1']

    """
    first, last = math.floor(math.log10(low)), max(math.ceil(math.log10(high)), math.floor(math.log10(low)) + 1)
    step = max(1, (last - first) // 6)
    ticks = [(10.0**power, f"{10.0**power:g}") for power in range(first, last + 1, step)]
    return Axis(10.0**first, 10.0**last, ticks, label, "log")


def time_axis(times: Sequence[datetime], label: str = "") -> Axis:
    """Return an axis of seconds since 1970 with times of day, or dates, as ticks."""
    low, high = (min(times), max(times)) if times else (datetime.now().astimezone(),) * 2
    low, high = low.astimezone(), high.astimezone()
    if high - low < timedelta(seconds=10):
        low, high = low - timedelta(seconds=5), high + timedelta(seconds=5)
    span = high - low
    shown = "%Y-%m-%d" if span > timedelta(days=4) else "%m-%d %H:%M" if span > timedelta(hours=20) else "%H:%M:%S"
    ticks = [low + span * number / 4 for number in range(5)]
    return Axis(low.timestamp(), high.timestamp(), [(one.timestamp(), one.strftime(shown)) for one in ticks], label)
