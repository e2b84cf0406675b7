"""Health of the station, and what Prometheus reads."""

import shutil
from typing import Literal

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CollectorRegistry, GaugeMetricFamily
from prometheus_client.registry import Collector
from pydantic import BaseModel
from sqlalchemy import func, select

from hyperspot.service.access.guard import Operator
from hyperspot.service.api.base import problems
from hyperspot.service.api.dependencies import StationDep
from hyperspot.service.database.tables import Alarm, Delivery, Job, Output
from hyperspot.service.jobs.queue import OPEN
from hyperspot.service.problems import Problem
from hyperspot.service.station import Station

NEEDED_BYTES = 500_000_000
"""Free space on the disk of the images without which the station is not ready."""
router = APIRouter(tags=["station"])


class Health(BaseModel):
    """The station answers."""

    status: Literal["live", "ready"]


@router.get("/health/live", summary="Tell whether the process answers")
async def live() -> Health:
    """Answer; a process that does not is restarted."""
    return Health(status="live")


@router.get("/health/ready", summary="Tell whether images are inspected", responses=problems(503))
def ready(here: StationDep) -> Health:
    """Check database, workers and disk; 503 with `reasons` if one of them fails."""
    reasons = list(reasons_against(here))
    if reasons:
        raise Problem(503, "the station is not ready: " + "; ".join(reasons), reasons=reasons)
    return Health(status="ready")


def reasons_against(here: Station, needed: int = NEEDED_BYTES) -> list[str]:
    """Return why a station cannot inspect images; nothing if it can."""
    free = shutil.disk_usage(here.settings.data).free
    checks = {
        "the database does not answer": here.database.is_ready(),
        "no worker runs": bool(here.pool.processes),
        f"the disk has {free / 1e6:.0f} MB left, less than {needed / 1e6:.0f} MB": free >= needed,
    }
    return [reason for reason, is_right in checks.items() if not is_right]


@router.get(
    "/metrics",
    summary="Get metrics",
    response_class=Response,
    responses={
        200: {"description": "Metrics of Prometheus.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    },
)
def metrics(who: Operator, here: StationDep) -> Response:
    """Return counts, latencies and states; Prometheus sends a token of an operator (`authorization: credentials`)."""
    del who
    registry = CollectorRegistry()
    registry.register(here.measurements.registry)
    registry.register(_States(here))
    return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)


class _States(Collector):
    """What is read when Prometheus asks."""

    def __init__(self, here: Station) -> None:
        self._here = here

    def collect(self) -> "list[GaugeMetricFamily]":
        """Return gauges."""
        here = self._here
        disk = shutil.disk_usage(here.settings.data)
        with here.database.session() as session:
            jobs: dict[str, int] = dict(
                session.execute(select(Job.state, func.count()).where(Job.state.in_(OPEN)).group_by(Job.state)).all()
            )
            waiting: dict[str, int] = dict(
                session.execute(
                    select(Output.name, func.count(Delivery.id))
                    .outerjoin(Delivery, Delivery.output_id == Output.id)
                    .group_by(Output.name)
                ).all()
            )
            alarms = session.scalar(select(func.count()).select_from(Alarm).where(Alarm.acknowledged_at.is_(None)))
        return [
            _gauge("queue_length", "Images that wait for a worker", here.pool.waiting),
            _gauge("workers", "Worker processes that live", len(here.pool.processes)),
            _gauges("jobs", "Jobs that are not done", "state", {state: jobs.get(state, 0) for state in OPEN}),
            _gauges("deliveries_waiting", "Verdicts that wait for an output", "output", waiting),
            _gauge("alarms", "Alarms that nobody has acknowledged", alarms or 0),
            _gauges("disk_bytes", "Space on the disk of the images", "kind", {"free": disk.free, "total": disk.total}),
        ]


def _gauge(name: str, text: str, value: int) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"hyperspot_{name}", text, value)


def _gauges(name: str, text: str, label: str, values: dict[str, int]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"hyperspot_{name}", text, labels=[label])
    for key, value in values.items():
        family.add_metric([key], value)
    return family
