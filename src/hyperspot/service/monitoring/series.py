"""What the Monitor page shows: scores, p-values, alarms, images and drift of a version, over its inspections."""

from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hyperspot.metrics.intervals import exact_interval
from hyperspot.service.database.tables import Inspection, ModelVersion, MonitorState
from hyperspot.service.monitoring.alarms import describe, list_alarms
from hyperspot.service.monitoring.false_alarms import labeled_good_alarms
from hyperspot.service.monitoring.image_checks import CHECKS, limits_of
from hyperspot.service.monitoring.martingale import CHANCE
from hyperspot.service.products import catalog
from hyperspot.service.review.learning import IMPORTED

BINS = 60
LAST = 6000
"""Inspections that are shown at most: the last ones."""
QUANTILES = {"score_low": 0.1, "score_median": 0.5, "score_high": 0.9}


class _Inspection(NamedTuple):
    number: int
    received_at: datetime
    score: float
    p_value: float | None
    is_anomalous: bool | None
    checks: dict[str, Any]


def series_of(
    session: Session, product_id: str, version: int | None = None, *, bins: int = BINS, last: int = LAST
) -> dict[str, Any]:
    """Return the series of a version, as JSON values.

    Args:
        session: To read with.
        product_id: Of the product.
        version: Number of the version; default: the active one.
        bins: Points of each series at most, each of equally many inspections.
        last: Inspections at most: the newest.

    Returns:
        `product`, `version`, `threshold`, `promised_false_alarm_rate`, `inspections` (all of the version on the line);
        `bins`: dicts of `from` and `until` (ISO times), `first` and `last` (numbers), `count`, `alarms`,
        `false_alarms` (labeled good), `alarm_rate`, `score_low`, `score_median`, `score_high` (quantiles 0.1, 0.5,
        0.9), `p_value_median`, `p_values` (counts in ten equal intervals of 0..1), and the median of each check;
        `limits`: of each check; `false_alarms`: `count`, `good_parts`, `rate`, `low`, `high` (exact 95 % interval) and
        `other_alarms` (defects, and those without a label); `drift`: `points` (number, log10 of the martingale),
        `alarm_at` (log10) and `parts`; `alarms`: those that wait for acknowledgment.

    Raises:
        Problem: 404 without the product or the version, 409 without an active version.
    """
    if version is None:
        shown = catalog.active_version(session, product_id)
    else:
        shown = catalog.get_version(session, product_id, version)
    rows = _rows(session, shown, last)
    wrong = set(labeled_good_alarms(session, shown))
    counts = dict(
        session.execute(
            select(Inspection.is_anomalous, func.count())
            .where(Inspection.version_id == shown.id, Inspection.source != IMPORTED)
            .group_by(Inspection.is_anomalous)
        ).all()
    )
    state = session.get(MonitorState, shown.id)
    return {
        "product": product_id,
        "version": shown.number,
        "threshold": shown.threshold,
        "promised_false_alarm_rate": shown.false_alarm_rate,
        "inspections": sum(counts.values()),
        "bins": [_bin(part, wrong) for part in _parts(rows, bins)],
        "limits": {name: limits_of(name, shown.training_statistics) for name in CHECKS},
        "false_alarms": _false_alarms(len(wrong), counts.get(True, 0), counts.get(False, 0)),
        "drift": {
            "points": [] if state is None else state.state.get("history", []),
            "alarm_at": -float(np.log10(CHANCE)),
            "parts": 0 if state is None or not state.state.get("test") else state.state["test"]["seen"],
        },
        "alarms": [describe(alarm) for alarm in list_alarms(session, product_id)],
    }


def _rows(session: Session, version: ModelVersion, last: int) -> list[_Inspection]:
    query = (
        select(
            Inspection.number,
            Inspection.received_at,
            Inspection.score,
            Inspection.p_value,
            Inspection.is_anomalous,
            Inspection.checks,
        )
        .where(Inspection.version_id == version.id, Inspection.source != IMPORTED)
        .order_by(Inspection.number.desc())
        .limit(last)
    )
    return [_Inspection(*row) for row in session.execute(query)][::-1]


def _parts(rows: list[_Inspection], bins: int) -> list[list[_Inspection]]:
    edges = np.linspace(0, len(rows), min(bins, len(rows)) + 1).round().astype(int)
    return [rows[start:end] for start, end in pairwise(edges.tolist())]


def _bin(rows: Sequence[_Inspection], wrong: set[int]) -> dict[str, Any]:
    scores = np.array([row.score for row in rows])
    p_values = np.array([row.p_value for row in rows if row.p_value is not None])
    alarms = sum(bool(row.is_anomalous) for row in rows)
    checks = {name: [row.checks[name] for row in rows if name in row.checks] for name in CHECKS}
    return {
        "from": rows[0].received_at.isoformat(),
        "until": rows[-1].received_at.isoformat(),
        "first": rows[0].number,
        "last": rows[-1].number,
        "count": len(rows),
        "alarms": alarms,
        "alarm_rate": alarms / len(rows),
        "false_alarms": sum(row.number in wrong for row in rows),
        **{name: float(np.quantile(scores, share)) for name, share in QUANTILES.items()},
        "p_value_median": float(np.median(p_values)) if len(p_values) else None,
        "p_values": np.histogram(p_values, bins=10, range=(0, 1))[0].tolist(),
        **{name: float(np.median(values)) if values else None for name, values in checks.items()},
    }


def _false_alarms(wrong: int, alarms: int, passes: int) -> dict[str, Any]:
    """Return the observed rate: passed parts count as good, alarms without a label as defects."""
    total = wrong + passes
    low, high = exact_interval(wrong, total) or (None, None)
    return {
        "count": wrong,
        "good_parts": total,
        "rate": wrong / total if total else None,
        "low": low,
        "high": high,
        "other_alarms": alarms - wrong,
    }
