"""Alarms about the process: raised once until a person acknowledges them."""

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from hyperspot.service.access.audit import audit
from hyperspot.service.database.tables import Alarm, now
from hyperspot.service.problems import Problem


def raise_alarm(
    session: Session,
    kind: str,
    message: str,
    *,
    product_id: str | None,
    version_id: int | None,
    details: dict[str, Any],
) -> Alarm:
    """Raise an alarm; who raises it remembers it until it is acknowledged, so that it is raised once."""
    alarm = Alarm(product_id=product_id, version_id=version_id, kind=kind, message=message, details=details)
    session.add(alarm)
    session.flush()
    return alarm


def list_alarms(
    session: Session, product_id: str | None = None, *, acknowledged: bool = False, limit: int = 100
) -> list[Alarm]:
    """Return alarms, the newest first: those that wait for acknowledgment, or all."""
    query = select(Alarm).order_by(Alarm.id.desc()).limit(limit)
    if product_id is not None:
        query = query.where(Alarm.product_id == product_id)
    if not acknowledged:
        query = query.where(Alarm.acknowledged_at.is_(None))
    return list(session.scalars(query))


def acknowledge(session: Session, alarm_id: int, who: str) -> Alarm:
    """Note that a person has seen an alarm; raises Problem 404 if there is none, and 409 if it was acknowledged."""
    alarm = session.get(Alarm, alarm_id)
    if alarm is None:
        raise Problem(404, f"there is no alarm {alarm_id}; list the alarms")
    if alarm.acknowledged_at is not None:
        raise Problem(409, f"alarm {alarm_id} was acknowledged by {alarm.acknowledged_by} already")
    alarm.acknowledged_by, alarm.acknowledged_at = who, now()
    audit(session, who, "alarm.acknowledge", f"{alarm.kind}/{alarm_id}", product=alarm.product_id)
    return alarm


def describe(alarm: Alarm) -> dict[str, Any]:
    """Return an alarm as JSON values."""
    seen = alarm.acknowledged_at
    return {
        "id": alarm.id,
        "product": alarm.product_id,
        "version_id": alarm.version_id,
        "kind": alarm.kind,
        "message": alarm.message,
        "details": alarm.details,
        "raised_at": alarm.raised_at.isoformat(),
        "acknowledged_by": alarm.acknowledged_by,
        "acknowledged_at": None if seen is None else seen.isoformat(),
    }
