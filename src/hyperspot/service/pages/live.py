"""*Live*: the last verdict, large, and what came before it."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hyperspot.service.api.dependencies import StationDep
from hyperspot.service.database.tables import Inspection, Label, Product, now
from hyperspot.service.pages.dependencies import Operator, OperatorPage
from hyperspot.service.pages.rendering import chosen_product, fragment, open_alarms, page, places_of
from hyperspot.service.products.catalog import get_product
from hyperspot.service.records.search import get_inspection
from hyperspot.service.review.labels import add_label

LAST = 20
SHIFT_STARTS = (6, 14, 22)
"""Hours, in the zone of the station."""
router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class Counts:
    """Inspections of a time, of one station or of all."""

    good: int = 0
    anomalous: int = 0
    none: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.good + self.anomalous + self.none

    @property
    def share(self) -> float | None:
        """Anomalous ones among those with a decision."""
        decided = self.good + self.anomalous
        return self.anomalous / decided if decided else None


def shift_start(moment: datetime) -> datetime:
    """Return when the shift of a moment began, in the zone of the moment.

    Examples:
        >>> from datetime import datetime, timezone
        >>> from hyperspot.service.pages.live import shift_start
        >>> shift_start(datetime(2026, 3, 2, 4, 30, tzinfo=timezone.utc)).isoformat()
        '2026-03-01T22:00:00+00:00'

    """
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    starts = [midnight - timedelta(days=1) + timedelta(hours=SHIFT_STARTS[-1])]
    starts += [midnight + timedelta(hours=hour) for hour in SHIFT_STARTS]
    return max(start for start in starts if start <= moment)


def counts_since(session: Session, product_id: str, start: datetime) -> dict[str | None, Counts]:
    """Return the counts of each station since a time."""
    rows = session.execute(
        select(Inspection.station, Inspection.is_anomalous, func.count())
        .where(Inspection.product_id == product_id, Inspection.received_at >= start)
        .group_by(Inspection.station, Inspection.is_anomalous)
    )
    found: dict[str | None, dict[bool | None, int]] = {}
    for place, is_anomalous, count in rows:
        found.setdefault(place, {})[is_anomalous] = count
    return {
        place: Counts(by.get(False, 0), by.get(True, 0), by.get(None, 0))
        for place, by in sorted(found.items(), key=lambda one: one[0] or "")
    }


def total_of(counts: dict[str | None, Counts], place: str | None) -> Counts:
    """Return the counts of one station, or the sum of all."""
    if place is not None:
        return counts.get(place, Counts())
    return Counts(*(sum(getattr(one, name) for one in counts.values()) for name in ("good", "anomalous", "none")))


@router.get("/")
def start(who: OperatorPage) -> RedirectResponse:
    """Lead to the first page."""
    del who
    return RedirectResponse("/live", 303)


@router.get("/live")
def live(request: Request, who: OperatorPage, here: StationDep, station: str | None = None) -> HTMLResponse:
    """Show the page."""
    with here.database.session() as session:
        product = chosen_product(request, session)
        if product is None:
            return page(request, who, "live.html", session, None)
        places = places_of(session, product.id)
        values = panel_values(session, product, station or None)
        return page(request, who, "live.html", session, product, places=places, **values)


@router.get("/live/panel")
def panel(request: Request, who: Operator, here: StationDep, product: str, station: str = "") -> HTMLResponse:
    """Return what changes with each inspection."""
    with here.database.session() as session:
        values = panel_values(session, get_product(session, product), station or None)
        return fragment(request, who, "live_panel.html", announce=True, **values)


@router.post("/live/wrong/{inspection_id}")
def wrong(request: Request, who: Operator, here: StationDep, inspection_id: str, station: str = "") -> HTMLResponse:
    """Label an inspection with the opposite of its verdict."""
    with here.database.session() as session:
        inspection = get_inspection(session, inspection_id)
        add_label(session, inspection, who.name, "good" if inspection.is_anomalous else "defect")
        session.flush()
        values = panel_values(session, get_product(session, inspection.product_id), station or None)
        return fragment(request, who, "live_panel.html", announce=False, **values)


@router.get("/alarms/badge")
def alarm_badge(request: Request, who: Operator, here: StationDep) -> HTMLResponse:
    """Return the number of open alarms."""
    with here.database.session() as session:
        return fragment(request, who, "alarm_badge.html", open_alarms=open_alarms(session))


def panel_values(session: Session, product: Product, place: str | None) -> dict[str, object]:
    """Return the last inspections and the counters."""
    query = select(Inspection).where(Inspection.product_id == product.id)
    if place is not None:
        query = query.where(Inspection.station == place)
    last = list(session.scalars(query.order_by(Inspection.number.desc()).limit(LAST)))
    here = now().astimezone()
    today = counts_since(session, product.id, here.replace(hour=0, minute=0, second=0, microsecond=0))
    shift = counts_since(session, product.id, shift_start(here))
    label = None
    if last:
        newest = select(Label.label).where(Label.inspection_number == last[0].number).order_by(Label.id.desc())
        label = session.scalar(newest.limit(1))
    return {
        "product": product,
        "place": place,
        "last": last,
        "label": label,
        "today": total_of(today, place),
        "shift": total_of(shift, place),
        "by_station": shift if len(shift) > 1 else {},
    }
