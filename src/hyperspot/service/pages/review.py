"""*Review*: people label inspections, one key each."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, File, Form, Request
from fastapi.responses import HTMLResponse, Response
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hyperspot.service.access.identity import Identity
from hyperspot.service.api.dependencies import StationDep
from hyperspot.service.database.tables import Inspection, Label, Product, now
from hyperspot.service.pages.dependencies import Operator, OperatorPage
from hyperspot.service.pages.rendering import chosen_product, fragment, page
from hyperspot.service.problems import Problem
from hyperspot.service.products.catalog import get_product
from hyperspot.service.records.search import get_inspection
from hyperspot.service.review.labels import add_label, consensus, labels_of, take_back
from hyperspot.service.review.queue import count_waiting, next_inspections

AHEAD = 24
router = APIRouter(include_in_schema=False)


@router.get("/review")
def review(request: Request, who: OperatorPage, here: StationDep, inspection: str | None = None) -> HTMLResponse:
    """Show the queue, or one inspection of it."""
    with here.database.session() as session:
        product = chosen_product(request, session)
        values = {} if product is None else _values(session, product, who, inspection)
        return page(request, who, "review.html", session, product, **values)


@router.get("/review/panel")
def panel(
    request: Request, who: Operator, here: StationDep, product: str, inspection: str | None = None
) -> HTMLResponse:
    """Return an inspection of the queue; by default the next one."""
    with here.database.session() as session:
        values = _values(session, get_product(session, product), who, inspection)
        return fragment(request, who, "review_panel.html", **values)


@router.post("/review/undo")
def undo(request: Request, who: Operator, here: StationDep, product: Annotated[str, Form()]) -> HTMLResponse:
    """Take back the last label of the reviewer, and show its inspection again."""
    with here.database.session() as session:
        chosen = get_product(session, product)
        last = session.scalar(
            select(Label)
            .join(Inspection, Inspection.number == Label.inspection_number)
            .where(Label.reviewer == who.name, Inspection.product_id == product, Label.created_at >= _today())
            .order_by(Label.id.desc())
            .limit(1)
        )
        if last is None:
            raise Problem(409, "there is no label of today to undo")
        inspection = take_back(session, last)
        return fragment(request, who, "review_panel.html", **_values(session, chosen, who, inspection.id))


@router.post("/review/{inspection_id}")
def label(
    request: Request,
    who: Operator,
    here: StationDep,
    inspection_id: str,
    label: Annotated[str, Form()],
    comment: Annotated[str, Form()] = "",
    mask: Annotated[bytes | None, File()] = None,
) -> HTMLResponse:
    """Label an inspection, and show the next one."""
    with here.database.session() as session:
        inspection = get_inspection(session, inspection_id)
        add_label(session, inspection, who.name, label, mask, comment)
        product = get_product(session, inspection.product_id)
        return fragment(request, who, "review_panel.html", **_values(session, product, who, None))


@router.get("/review/{inspection_id}/mask")
def mask(who: Operator, here: StationDep, inspection_id: str) -> Response:
    """Return the newest mask that was drawn, the own one first."""
    with here.database.session() as session:
        inspection = get_inspection(session, inspection_id)
        drawn = [one for one in labels_of(session, [inspection.number])[inspection.number] if one.mask is not None]
    drawn.sort(key=lambda one: (one.reviewer == who.name, one.id))
    if not drawn:
        raise Problem(404, "nobody has drawn a mask of this inspection")
    return Response(drawn[-1].mask, media_type="image/png", headers={"Cache-Control": "no-store"})


def _today() -> datetime:
    return now().astimezone().replace(hour=0, minute=0, second=0, microsecond=0)


def _values(session: Session, product: Product, who: Identity, inspection_id: str | None) -> dict[str, object]:
    """Return an inspection and its place in the queue."""
    queue = next_inspections(session, product.id, who.name, AHEAD)
    first = queue[0] if queue else None
    current = first if inspection_id is None else get_inspection(session, inspection_id)
    ids = [one.id for one in queue]
    place = ids.index(current.id) if current is not None and current.id in ids else -1
    labels = [] if current is None else labels_of(session, [current.number])[current.number]
    waiting = count_waiting(session, product.id, who.name)
    done = session.scalar(
        select(func.count(func.distinct(Label.inspection_number)))
        .join(Inspection, Inspection.number == Label.inspection_number)
        .where(Label.reviewer == who.name, Inspection.product_id == product.id, Label.created_at >= _today())
    )
    return {
        "product": product,
        "inspection": current,
        "queue": queue,
        "before": ids[place - 1] if place > 0 else None,
        "after": ids[place + 1] if place + 1 < len(ids) else None,
        "labels": labels,
        "agreed": consensus(labels),
        "has_mask": any(one.mask is not None for one in labels),
        "waiting": waiting,
        "done": done or 0,
    }
