"""Two versions on the same labeled images."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from hyperspot.metrics.intervals import exact_interval

MOST_DIFFERENCES = 500
ERROR = 0.05
"""Chance of calling one of two equal versions better."""


@dataclass(frozen=True)
class Decision:
    """What a version says about an image."""

    score: float
    p_value: float | None
    is_anomalous: bool


@dataclass(frozen=True)
class Compared:
    """One labeled inspection with both decisions.

    Attributes:
        inspection_id: Of the inspection.
        number: Of the inspection.
        is_defect: What the reviewers say.
        active, candidate: What the versions say.
    """

    inspection_id: str
    number: int
    is_defect: bool
    active: Decision
    candidate: Decision


def mcnemar(first_alone: int, second_alone: int) -> float:
    """Return the p-value of McNemar's exact test (Psychometrika 12, 1947): the chance of so unequal counts.

    Args:
        first_alone: Images that the first version alone decides rightly.
        second_alone: Images that the second version alone decides rightly.

    Examples:
        >>> from hyperspot.service.review.comparison import mcnemar
        >>> mcnemar(0, 6), mcnemar(3, 3)
        (0.03125, 1.0)

    """
    total = first_alone + second_alone
    tail = sum(math.comb(total, count) for count in range(min(first_alone, second_alone) + 1))
    return min(1.0, float(2 * tail / 2**total))


def compare(rows: Sequence[Compared]) -> dict[str, Any]:
    """Return which version finds more defects and which raises fewer false alarms, as JSON values.

    Returns:
        `images`; for `defects` and `good`: `total`, the number of right decisions of `active` and `candidate` with
        their rates and exact 95 % intervals, those right by one version alone, `p_value` of McNemar's test and `better`
        (`active`, `candidate` or None where chance explains it); `sentence`; and `differences`, the inspections that
        are decided differently, missed defects first.

    Examples:
        >>> from hyperspot.service.review.comparison import Compared, Decision, compare
        >>> yes, no = Decision(2.0, 0.01, True), Decision(1.0, 0.5, False)
        >>> rows = [Compared(str(number), number, True, no, yes) for number in range(6)]
        >>> compare(rows)["sentence"]
        'the candidate finds more defects (6 against 0 of 6, p = 0.03)'

    """
    defects = _side([row for row in rows if row.is_defect])
    good = _side([row for row in rows if not row.is_defect])
    differing = [row for row in rows if row.active.is_anomalous != row.candidate.is_anomalous]
    differing.sort(key=lambda row: (not row.is_defect, row.candidate.is_anomalous == row.is_defect, -row.number))
    return {
        "images": len(rows),
        "defects": defects,
        "good": good,
        "sentence": _sentence(defects, good),
        "differences": [asdict(row) for row in differing[:MOST_DIFFERENCES]],
    }


def _side(rows: Sequence[Compared]) -> dict[str, Any]:
    """Compare the versions on images of one label."""
    active = [row.active.is_anomalous == row.is_defect for row in rows]
    candidate = [row.candidate.is_anomalous == row.is_defect for row in rows]
    active_alone = sum(one and not other for one, other in zip(active, candidate, strict=True))
    candidate_alone = sum(other and not one for one, other in zip(active, candidate, strict=True))
    p_value = mcnemar(active_alone, candidate_alone)
    better = None
    if p_value <= ERROR:
        better = "active" if active_alone > candidate_alone else "candidate"
    return {
        "total": len(rows),
        "active": _count(sum(active), len(rows)),
        "candidate": _count(sum(candidate), len(rows)),
        "active_alone": active_alone,
        "candidate_alone": candidate_alone,
        "p_value": p_value,
        "better": better,
    }


def _count(right: int, total: int) -> dict[str, Any]:
    interval = exact_interval(right, total)
    return {"right": right, "rate": right / total if total else None, "interval": interval and list(interval)}


def _sentence(defects: dict[str, Any], good: dict[str, Any]) -> str:
    total = defects["total"]
    found = f"{defects['candidate']['right']} against {defects['active']['right']} of {total}"
    passed = f"{good['candidate']['right']} against {good['active']['right']} of {good['total']}"
    if not total and not good["total"]:
        return "no image has a label that decides; review some inspections first"
    parts = []
    if total:
        parts.append(
            f"both find as many defects within chance ({found})"
            if defects["better"] is None
            else f"the {defects['better']} {'version ' if defects['better'] == 'active' else ''}finds more defects "
            f"({found}, p = {defects['p_value']:.1g})"
        )
    if good["total"]:
        parts.append(
            f"both pass as many good parts within chance ({passed})"
            if good["better"] is None
            else f"the {good['better']} {'version ' if good['better'] == 'active' else ''}passes more good parts "
            f"({passed}, p = {good['p_value']:.1g})"
        )
    return "; ".join(parts)
