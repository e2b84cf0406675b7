"""Whether reviewers found more false alarms than the calibration promises.

Alarms that were labeled good are counted among the first 100, 200, 400, ... inspections, each count tested by itself:
with k of n calibration scores above the threshold, the number of false alarms among good parts is beta-binomial. The
errors of all tests together are at most `ERROR`. Alarms without a label count as none, and defects that passed as good
parts: both make the test cautious.
"""

from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from hyperspot.decision.calibration import Calibration
from hyperspot.decision.merging import chance_of_alarms
from hyperspot.service.database.tables import Inspection, Label, ModelVersion
from hyperspot.service.review.labels import consensus
from hyperspot.service.review.learning import IMPORTED

FIRST = 100
ERROR = 1e-3
"""Chance of an alarm of a version that keeps its promise."""


class Found(NamedTuple):
    """An alarm to raise."""

    message: str
    details: dict[str, Any]


def count_inspection(state: dict[str, Any], number: int, *, is_alarm: bool) -> None:
    """Count an inspection; at the end of each test its number and the count of passes are noted.

    Examples:
        >>> from hyperspot.service.monitoring.false_alarms import count_inspection
        >>> state = {"false_alarm_seen": 0, "false_alarm_passes": 0, "false_alarm_points": []}
        >>> for number in range(1, 251):
        ...     count_inspection(state, number, is_alarm=number % 50 == 0)
        >>> state["false_alarm_points"]
        [[100, 98], [200, 196]]

    """
    state["false_alarm_seen"] += 1
    state["false_alarm_passes"] += not is_alarm
    if state["false_alarm_seen"] == FIRST * 2 ** len(state["false_alarm_points"]):
        state["false_alarm_points"].append([number, state["false_alarm_passes"]])


def too_many_false_alarms(
    session: Session, version: ModelVersion, calibration: Calibration, state: dict[str, Any]
) -> Found | None:
    """Return the alarm if a version raises more false alarms than promised.

    Args:
        session: To read with.
        version: That is judged.
        calibration: Of the version.
        state: Of the monitoring, kept by `count_inspection`.
    """
    points = state["false_alarm_points"]
    if not points:
        return None
    wrong = labeled_good_alarms(session, version, state["false_alarm_base"])
    for index, (number, passes) in reversed(list(enumerate(points))):
        count = sum(one <= number for one in wrong)
        total = passes + count
        chance = chance_of_alarms(calibration, count, total)
        if chance <= ERROR / ((index + 1) * (index + 2)):
            return Found(
                f"{count} of {total} good parts raised an alarm ({count / total:.2%}), and the version promises "
                f"{calibration.false_alarm_rate:.2%} (p = {chance:.1g}); recalibrate or retrain with current images",
                {"false_alarms": count, "good_parts": total, "p_value": chance, "number": number},
            )
    return None


def labeled_good_alarms(session: Session, version: ModelVersion, after: int = 0) -> list[int]:
    """Return the numbers of the alarms on the line whose reviewers agree that the part is good."""
    query = (
        select(Label)
        .options(defer(Label.mask))
        .join(Inspection, Inspection.number == Label.inspection_number)
        .where(
            Inspection.version_id == version.id,
            Inspection.number > after,
            Inspection.is_anomalous.is_(True),
            Inspection.source != IMPORTED,
        )
        .order_by(Label.id)
    )
    labels: dict[int, list[Label]] = {}
    for label in session.scalars(query):
        labels.setdefault(label.inspection_number, []).append(label)
    return sorted(number for number, said in labels.items() if consensus(said) == "good")
