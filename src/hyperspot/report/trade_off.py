"""The trade-off of the report: a chart over the promised false-alarm rate that `trade_off.js` makes interactive."""

from typing import Any

import numpy as np
from markupsafe import Markup

from hyperspot.decision.calibration import decimal_rate
from hyperspot.evaluation import Evaluation, ImageResult
from hyperspot.report.charts import LEFT, PLOT_HEIGHT, PLOT_WIDTH, TOP, axes, svg

LIMIT = 0.3
"""Highest promised rate of the chart, unless the calibration images are few."""
FEWEST_STEPS = 5
OUTCOMES = {
    (True, 1): ("hit", "found"),
    (False, 1): ("missed", "missed"),
    (True, 0): ("alarm", "false alarm"),
    (False, 0): ("pass", "passed"),
}
"""CSS class and text by decision and label."""


def trade_off(evaluation: Evaluation) -> dict[str, Any] | None:
    """Return what the template and the script need; None without calibration or without test images.

    The k-th step of the chart is the rate k / (n + 1) of n calibration images: the threshold changes at these rates
    alone.
    """
    point, calibration = evaluation.operating_point, evaluation.calibration
    if point is None or calibration is None or not evaluation.image_results:
        return None
    n, step = len(calibration.scores), calibration.above + 1
    steps = max(min(n, FEWEST_STEPS), int(LIMIT * (n + 1)), step)
    limit = (steps + 1) / (n + 1)
    scores = {
        label: np.array([one.score for one in evaluation.image_results if one.label == label]) for label in (0, 1)
    }
    # The threshold at step k is the k-th highest calibration score.
    thresholds = calibration.scores[::-1][:steps]
    shares = {
        label: [float((values > threshold).mean()) for threshold in thresholds]
        for label, values in scores.items()
        if len(values)
    }
    return {
        "svg": Markup(_chart(shares, n, limit, point.false_alarm_rate, step)),  # noqa: S704
        "steps": steps,
        "step": step,
        "images": n,
        "rate": percent(point.false_alarm_rate),
        "threshold": f"{point.threshold:.5g}",
        "found": _share(point.detected, point.defective),
        "alarms": _share(point.false_alarms, point.good),
        "option": str(decimal_rate(point.false_alarm_rate, n)),
        "rows": [
            (
                one == point,
                (
                    percent(one.false_alarm_rate),
                    f"{one.threshold:.5g}",
                    f"{one.detected} of {one.defective}",
                    percent(one.detection_rate),
                    f"{one.false_alarms} of {one.good}",
                    percent(one.observed_false_alarm_rate),
                    interval(one.observed_false_alarm_interval),
                ),
            )
            for one in evaluation.operating_points
        ],
        "data": {
            "promised": point.false_alarm_rate,
            "limit": limit,
            "plot": {"left": LEFT, "top": TOP, "width": PLOT_WIDTH, "height": PLOT_HEIGHT},
            "calibration": calibration.scores.tolist(),
            "outcomes": [[OUTCOMES[decision, label] for decision in (False, True)] for label in (0, 1)],
            "images": [
                {"name": image_name(one), "label": one.label, "score": one.score} for one in evaluation.image_results
            ],
        },
    }


def image_name(result: ImageResult) -> str:
    """Return folder and name of the image file."""
    return f"{result.path.parent.name}/{result.path.name}"


def interval(ends: tuple[float, float] | None) -> str:
    """Return an interval of a rate as text.

    Examples:
        >>> interval((0.0071, 0.195)), interval(None)
        ('0.7 to 19.5 %', '–')

    """
    return "–" if ends is None else f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f} %"


def _chart(shares: dict[int, list[float]], n: int, limit: float, rate: float, step: int) -> str:
    """Draw the share of images above the threshold, by label, over the promised rate, and a marker at a rate."""
    apart = 0.05 if limit <= 0.4 else 0.2
    parts = [
        axes(
            "promised false-alarm rate",
            "share of images",
            [(k * apart / limit, f"{100 * k * apart:.0f} %") for k in range(int(limit / apart) + 1)],
            [(k / 5, f"{20 * k} %") for k in range(6)],
        ),
        f'<rect class="unsupported" x="{LEFT}" y="{TOP}" width="{_x(1 / (n + 1), limit) - LEFT:.1f}" '
        f'height="{PLOT_HEIGHT}"><title>needs more calibration images</title></rect>',
        f'<line class="promise-line" x1="{LEFT}" y1="{_y(0.0)}" x2="{_x(limit, limit):.1f}" y2="{_y(limit):.1f}"/>',
    ]
    marker = [f'<line x1="{_x(rate, limit):.1f}" x2="{_x(rate, limit):.1f}" y1="{TOP}" y2="{TOP + PLOT_HEIGHT}"/>']
    for label, line, dot in ((0, "alarm-line", "alarms"), (1, "found-line", "found")):
        if label in shares:
            corners = [
                f"{_x(end / (n + 1), limit):.1f},{_y(share):.1f}"
                for k, share in enumerate(shares[label], start=1)
                for end in (k, k + 1)
            ]
            parts.append(f'<polyline class="{line}" points="{" ".join(corners)}"/>')
            marker.append(
                f'<circle class="{dot}" cx="{_x(rate, limit):.1f}" cy="{_y(shares[label][step - 1]):.1f}" r="5"/>'
            )
    return svg("Detection rate and observed false-alarm rate over the promised false-alarm rate", [
        *parts, f'<g id="marker">{"".join(marker)}</g>',
    ])  # fmt: skip


def _x(rate: float, limit: float) -> float:
    return LEFT + PLOT_WIDTH * min(rate / limit, 1.0)


def _y(share: float) -> float:
    return TOP + PLOT_HEIGHT * (1 - share)


def _share(part: int, whole: int) -> str:
    return f"{percent(part / whole)} ({part} of {whole})" if whole else "–"


def percent(value: float | None) -> str:
    """Return a rate as a percentage, or a dash if it is undefined."""
    return "–" if value is None else f"{100 * value:.1f} %"
