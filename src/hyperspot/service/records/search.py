"""Finds inspections by filters, page by page."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.orm import Session

from hyperspot.service.database.tables import Inspection, Label
from hyperspot.service.problems import Problem
from hyperspot.service.review.queue import says

ID = re.compile("[0-9a-f]{32}")
Decision = Literal["anomalous", "good", "none"]
LabelFilter = Literal["defect", "good", "unsure", "disagreement", "any", "none"]
Reason = Literal["alarm", "near-miss", "sample", "any", "none"]


@dataclass(frozen=True)
class Filters:
    """Which inspections; None takes all.

    Attributes:
        product: Its id.
        decision: `anomalous`, `good`, or `none` without calibration.
        label: What the reviewers say together, or `any` or `none`.
        reason: Why they are in the review queue, or `any` or `none`.
        station, serial_number, lot, source: As they were sent.
        since, until: When they were received: from, and before.
        version: Number of the version.
        min_score, max_score: Both included.
        text: Part of a serial number, lot, station or source, whatever the case.
    """

    product: str | None = None
    decision: str | None = None
    label: str | None = None
    reason: str | None = None
    station: str | None = None
    serial_number: str | None = None
    lot: str | None = None
    source: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    version: int | None = None
    min_score: float | None = None
    max_score: float | None = None
    text: str | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """Return the conditions on the table of inspections."""
        found: list[ColumnElement[bool] | None] = [
            _equal(Inspection.product_id, self.product),
            _equal(Inspection.station, self.station),
            _equal(Inspection.serial_number, self.serial_number),
            _equal(Inspection.lot, self.lot),
            _equal(Inspection.source, self.source),
            _equal(Inspection.version_number, self.version),
            None if self.since is None else Inspection.received_at >= self.since,
            None if self.until is None else Inspection.received_at < self.until,
            None if self.min_score is None else Inspection.score >= self.min_score,
            None if self.max_score is None else Inspection.score <= self.max_score,
            None if self.decision is None else _decided(self.decision),
            None if self.label is None else _labeled(self.label),
            None if self.reason is None else _in_review(self.reason),
            None if self.text is None else _contains(self.text),
        ]
        return [one for one in found if one is not None]


def search(session: Session, filters: Filters, limit: int, before: int | None = None) -> list[Inspection]:
    """Return inspections, the newest first.

    Args:
        session: To read with.
        filters: Which.
        limit: At most so many.
        before: Those with a smaller number alone: the next page begins before the last one of this page.

    Examples:
        >>> from sqlalchemy import create_engine
        >>> from sqlalchemy.orm import Session
        >>> from hyperspot.service.database.tables import Base
        >>> from hyperspot.service.records.search import Filters, search
        >>> engine = create_engine("sqlite://")
        >>> Base.metadata.create_all(engine)
        >>> with Session(engine) as session:
        ...     search(session, Filters(product="bolt", decision="anomalous"), limit=10)
        []

    """
    query = select(Inspection).where(*filters.conditions())
    if before is not None:
        query = query.where(Inspection.number < before)
    return list(session.scalars(query.order_by(Inspection.number.desc()).limit(limit)))


def count(session: Session, filters: Filters) -> int:
    """Return how many inspections there are."""
    return session.scalar(select(func.count()).select_from(Inspection).where(*filters.conditions())) or 0


def get_inspection(session: Session, inspection_id: str) -> Inspection:
    """Return an inspection; raises Problem 404 if there is none."""
    query = select(Inspection).where(Inspection.id == inspection_id)
    inspection = session.scalar(query) if ID.fullmatch(inspection_id) else None
    if inspection is None:
        raise Problem(404, "there is no such inspection; list them, or check its id")
    return inspection


def history_of(session: Session, inspection: Inspection, limit: int = 50) -> list[Inspection]:
    """Return the other inspections of a part, by its serial number, the newest first; none without one."""
    if inspection.serial_number is None:
        return []
    filters = Filters(product=inspection.product_id, serial_number=inspection.serial_number)
    return [one for one in search(session, filters, limit + 1) if one.number != inspection.number][:limit]


def _equal(column: object, value: object) -> ColumnElement[bool] | None:
    return None if value is None else column == value  # type: ignore[return-value]


def _decided(decision: str) -> ColumnElement[bool]:
    column = Inspection.is_anomalous
    if decision == "none":
        return column.is_(None)
    return column.is_(decision == "anomalous")


def _labeled(label: str) -> ColumnElement[bool]:
    defect, good = says("defect"), says("good")
    seen = exists().where(Label.inspection_number == Inspection.number)
    return {
        "any": seen,
        "none": ~seen,
        "disagreement": and_(defect, good),
        "defect": and_(defect, ~good),
        "good": and_(good, ~defect),
        "unsure": and_(seen, ~defect, ~good),
    }[label]


def _in_review(reason: str) -> ColumnElement[bool]:
    column = Inspection.review_reason
    if reason in ("any", "none"):
        return column.is_not(None) if reason == "any" else column.is_(None)
    return column == reason


def _contains(text: str) -> ColumnElement[bool]:
    columns = (Inspection.serial_number, Inspection.lot, Inspection.station, Inspection.source)
    return or_(*(column.icontains(text, autoescape=True) for column in columns))
