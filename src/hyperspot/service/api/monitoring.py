"""Alarms, and scores over time."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from hyperspot.service.access.guard import Engineer, Operator
from hyperspot.service.api.base import LARGEST_VERSION, Body, Id, ProductId, problems
from hyperspot.service.api.dependencies import StationDep
from hyperspot.service.api.inspecting import ProductText
from hyperspot.service.monitoring.alarms import acknowledge, describe, list_alarms
from hyperspot.service.monitoring.series import series_of
from hyperspot.service.products.catalog import get_product
from hyperspot.service.records.summary import API

router = APIRouter(prefix=API, tags=["monitoring"])


class AlarmQuery(Body):
    """Which alarms."""

    product: ProductText | None = None
    acknowledged: Annotated[bool, Field(description="List those that were acknowledged, too.")] = False
    limit: Annotated[int, Field(ge=1, le=500)] = 100


class AlarmAnswer(BaseModel):
    """Something about the process that a person has to look at."""

    id: int
    product: str | None
    version_id: int | None
    kind: str = Field(
        description="`drift`, `brightness`, `focus`, `position`, `false-alarms`, `source`, `output` or `disk`."
    )
    message: str
    details: dict[str, Any]
    raised_at: datetime
    acknowledged_by: str | None
    acknowledged_at: datetime | None


class MonitorQuery(Body):
    """Which version."""

    version: Annotated[int | None, Field(ge=1, le=LARGEST_VERSION, description="Default: the active one.")] = None
    bins: Annotated[int, Field(ge=1, le=500, description="Points of each series at most.")] = 60


class Series(BaseModel):
    """Scores, p-values, alarms and checks of images over the inspections of a version."""

    product: str
    version: int
    threshold: float | None
    promised_false_alarm_rate: float | None
    inspections: int
    bins: list[dict[str, Any]] = Field(
        description="Of equally many inspections each: times, numbers, alarms, quantiles of scores, p-values, checks."
    )
    limits: dict[str, Any] = Field(description="Of brightness, focus and position, by the training images.")
    false_alarms: dict[str, Any] = Field(description="`count`, `good_parts`, `rate`, `low`, `high`, `other_alarms`.")
    drift: dict[str, Any] = Field(description="`points` (number, log10 of the martingale), `alarm_at`, `parts`.")
    alarms: list[AlarmAnswer] = Field(description="Those that nobody has acknowledged.")


@router.get("/alarms", summary="List alarms", responses=problems(404))
def alarms(who: Operator, here: StationDep, query: Annotated[AlarmQuery, Query()]) -> list[AlarmAnswer]:
    """List alarms, the newest first."""
    del who
    with here.database.session() as session:
        if query.product is not None:
            get_product(session, query.product)
        found = list_alarms(session, query.product, acknowledged=query.acknowledged, limit=query.limit)
        return [AlarmAnswer(**describe(alarm)) for alarm in found]


@router.post("/alarms/{alarm_id}/acknowledge", summary="Acknowledge an alarm", responses=problems(404, 409, 422))
def acknowledge_alarm(who: Engineer, here: StationDep, alarm_id: Id) -> AlarmAnswer:
    """Note that a person has seen an alarm."""
    with here.database.session() as session:
        return AlarmAnswer(**describe(acknowledge(session, alarm_id, who.name)))


@router.get("/products/{product_id}/monitor", summary="Get scores over time", responses=problems(404, 409, 422))
def monitor(who: Operator, here: StationDep, product_id: ProductId, query: Annotated[MonitorQuery, Query()]) -> Series:
    """Return what the Monitor page shows of a version."""
    del who
    with here.database.session() as session:
        get_product(session, product_id)
        return Series(**series_of(session, product_id, query.version, bins=query.bins))
