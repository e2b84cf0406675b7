"""Charts of the report as SVG text: a histogram of scores and curves of rates. The page has their style."""

import math
from collections.abc import Sequence
from html import escape

import numpy as np

WIDTH, HEIGHT = 460, 280
LEFT, RIGHT, TOP, BOTTOM = 52, 24, 14, 40
PLOT_WIDTH, PLOT_HEIGHT = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
BARS = 32
"""Bars of a histogram; one more with a threshold."""

Points = tuple[Sequence[float], Sequence[float]]


def score_histogram(groups: Sequence[tuple[str, str, Sequence[float]]], threshold: float | None) -> str:
    """Return a histogram of the scores of several groups as SVG.

    Args:
        groups: Name, CSS class and scores of each group.
        threshold: A dashed line, on the edge of a bar; None draws none.

    Examples:
        >>> chart = score_histogram([("good", "good", [0.1, 0.2]), ("defective", "bad", [0.9])], threshold=0.5)
        >>> chart.startswith("<svg"), "<title>good: 1</title>" in chart
        (True, True)

    """
    everything = np.concatenate([np.asarray(scores, dtype=float) for _, _, scores in groups])
    marks = everything if threshold is None else np.append(everything, threshold)
    low, high = float(marks.min()), float(marks.max())
    span = (high - low) or 1.0
    low, high = low - 0.03 * span, high + 0.03 * span
    width, bars = (high - low) / BARS, BARS
    if threshold is not None:
        # An edge on the threshold, so that no bar extends to both sides of it.
        low = threshold - math.ceil((threshold - low) / width) * width
        bars = math.ceil((high - low) / width)
        high = low + bars * width
    edges = low + width * np.arange(bars + 1)
    counts = [np.histogram(scores, edges)[0] for _, _, scores in groups]
    top = -(-int(max(count.max() for count in counts)) // 4) * 4 or 4
    step = PLOT_WIDTH / bars
    parts = [_frame("score", "images", (low, high), (0.0, float(top)))]
    for (name, css, _), count in zip(groups, counts, strict=True):
        drawn = "".join(
            f'<rect x="{LEFT + number * step + 0.5:.1f}" y="{TOP + PLOT_HEIGHT * (1 - value / top):.1f}" '
            f'width="{step - 1:.1f}" height="{PLOT_HEIGHT * value / top:.1f}">'
            f"<title>{escape(name)}: {value}</title></rect>"
            for number, value in enumerate(count)
            if value
        )
        parts.append(f'<g class="bar {css}">{drawn}</g>')
    if threshold is not None:
        x = LEFT + PLOT_WIDTH * (threshold - low) / (high - low)
        side, shift = ("end", -6) if x > WIDTH / 2 else ("start", 6)
        parts.append(
            f'<line class="threshold" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{TOP + PLOT_HEIGHT}" '
            f'data-low="{low}" data-high="{high}"/>'
            f'<text class="threshold-name" x="{x + shift:.1f}" y="{TOP + 12}" text-anchor="{side}">threshold</text>'
        )
    return svg("Histogram of scores", parts)


def rate_curve(title: str, x_name: str, y_name: str, points: Points, x_limit: float = 1.0) -> str:
    """Return one curve of rates as SVG; the x-axis ends at `x_limit`.

    Examples:
        >>> chart = rate_curve("ROC", "false-alarm rate", "detection rate", ([0.0, 0.0, 1.0], [0.0, 0.8, 1.0]))
        >>> chart.startswith("<svg"), "false-alarm rate" in chart
        (True, True)

    """
    x = np.asarray(points[0], dtype=float)
    y = np.asarray(points[1], dtype=float)
    kept = x <= x_limit
    if not kept.all():
        y = np.append(y[kept], np.interp(x_limit, x, y))
        x = np.append(x[kept], x_limit)
    path = " ".join(
        f"{LEFT + PLOT_WIDTH * horizontal / x_limit:.1f},{TOP + PLOT_HEIGHT * (1 - vertical):.1f}"
        for horizontal, vertical in zip(x, y, strict=True)
    )
    floor = TOP + PLOT_HEIGHT
    area = f"{LEFT},{floor} {path} {LEFT + PLOT_WIDTH},{floor}"
    parts = [
        _frame(x_name, y_name, (0.0, x_limit), (0.0, 1.0)),
        f'<polygon class="area" points="{area}"/><polyline class="curve" points="{path}"/>',
    ]
    return svg(title, parts)


def axes(x_name: str, y_name: str, x_ticks: Sequence[tuple[float, str]], y_ticks: Sequence[tuple[float, str]]) -> str:
    """Draw the grid and the names of both axes; a tick is its share of the axis, 0 to 1, and how it reads."""
    lines = []
    for share, reads in y_ticks:
        y = TOP + PLOT_HEIGHT * (1 - share)
        lines.append(
            f'<line class="grid" x1="{LEFT}" x2="{LEFT + PLOT_WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{escape(reads)}</text>'
        )
    for share, reads in x_ticks:
        x = LEFT + PLOT_WIDTH * share
        lines.append(f'<text x="{x:.1f}" y="{TOP + PLOT_HEIGHT + 16}" text-anchor="middle">{escape(reads)}</text>')
    middle = TOP + PLOT_HEIGHT / 2
    lines.append(
        f'<text class="name" x="{LEFT + PLOT_WIDTH / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_name)}</text>'
        f'<text class="name" x="12" y="{middle}" text-anchor="middle" '
        f'transform="rotate(-90 12 {middle})">{escape(y_name)}</text>'
    )
    return "".join(lines)


def svg(title: str, parts: Sequence[str], *, height: int = HEIGHT, style: str = "") -> str:
    """Join parts into one picture; with a style it can stand alone as a file, without one the page has it."""
    alone = f' xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}"' if style else ""
    return (
        f'<svg{alone} class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        + (f"<style>{style}</style>" if style else "")
        + "".join(parts)
        + "</svg>"
    )


def _frame(x_name: str, y_name: str, x_range: tuple[float, float], y_range: tuple[float, float]) -> str:
    shares = (0.0, 0.25, 0.5, 0.75, 1.0)
    ticks = [[(share, f"{low + share * (high - low):.3g}") for share in shares] for low, high in (x_range, y_range)]
    return axes(x_name, y_name, *ticks)
