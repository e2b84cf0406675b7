"""*Inspections*: find them, and open one."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse
from sqlalchemy import select
from sqlalchemy.orm import Session

from hyperspot.service.api.dependencies import StationDep
from hyperspot.service.database.tables import Inspection, StoredImage
from hyperspot.service.pages.dependencies import Operator, OperatorPage
from hyperspot.service.pages.rendering import chosen_product, fragment, page, places_of, query
from hyperspot.service.problems import Problem
from hyperspot.service.products.catalog import get_product, versions
from hyperspot.service.records.search import Filters, count, get_inspection, search
from hyperspot.service.records.summary import summary_of
from hyperspot.service.review.labels import add_label, consensus, labels_of

MOST = 48
NAMES = ("decision", "label", "reason", "station", "serial_number", "lot", "since", "until", "version")
router = APIRouter(include_in_schema=False)


@router.get("/inspections")
def inspections(request: Request, who: OperatorPage, here: StationDep, before: int | None = None) -> HTMLResponse:
    """Show the inspections that fit a filter, the newest first."""
    given = {name: request.query_params.get(name, "").strip() for name in NAMES}
    with here.database.session() as session:
        product = chosen_product(request, session)
        if product is None:
            return page(request, who, "inspections.html", session, None)
        filters = filters_of(product.id, given)
        found = search(session, filters, MOST + 1, before)
        more, found = len(found) > MOST, found[:MOST]
        here_query = {"product": product.id, **given}
        return page(
            request,
            who,
            "inspections.html",
            session,
            product,
            filters=given,
            found=found,
            total=count(session, filters),
            labels={
                number: consensus(said) for number, said in labels_of(session, [one.number for one in found]).items()
            },
            places=places_of(session, product.id),
            versions=versions(session, product.id),
            newest_query=query(**here_query) if before is not None else None,
            older_query=query(**here_query, before=found[-1].number) if more else None,
            export_query=query(**here_query),
        )


@router.get("/inspections/{inspection_id}")
def inspection(request: Request, who: OperatorPage, here: StationDep, inspection_id: str) -> HTMLResponse:
    """Show one inspection."""
    with here.database.session() as session:
        one = get_inspection(session, inspection_id)
        product = get_product(session, one.product_id)
        same = select(Inspection.id).where(Inspection.product_id == one.product_id)
        newer = same.where(Inspection.number > one.number).order_by(Inspection.number).limit(1)
        older = same.where(Inspection.number < one.number).order_by(Inspection.number.desc()).limit(1)
        history = []
        if one.serial_number:
            filters = filters_of(product.id, {"serial_number": one.serial_number})
            history = search(session, filters, MOST)
        return page(
            request,
            who,
            "inspections/one.html",
            session,
            product,
            has_image=session.get_one(StoredImage, one.image_sha256).removed_at is None,
            newer=session.scalar(newer),
            older=session.scalar(older),
            history=history,
            links=summary_of(one)["links"],
            **_labels(session, one),
        )


@router.post("/inspections/{inspection_id}/labels")
def label(
    request: Request, who: Operator, here: StationDep, inspection_id: str, label: Annotated[str, Form()]
) -> HTMLResponse:
    """Label an inspection."""
    with here.database.session() as session:
        one = get_inspection(session, inspection_id)
        add_label(session, one, who.name, label)
        return fragment(request, who, "inspections/labels.html", **_labels(session, one))


def filters_of(product_id: str, given: dict[str, str]) -> Filters:
    """Return the filter of a form; raises Problem 422 if a value does not fit."""
    values: dict[str, object] = {name: value for name, value in given.items() if value}
    try:
        for name in ("since", "until"):
            if name in values:
                # A form gives times in the zone of the station.
                values[name] = datetime.fromisoformat(str(values[name])).astimezone()
        if "version" in values:
            values["version"] = int(str(values["version"]))
    except ValueError as error:
        raise Problem(422, f"the filter has a value that does not fit: {error}") from None
    return Filters(product=product_id, **values)  # type: ignore[arg-type]


def _labels(session: Session, one: Inspection) -> dict[str, object]:
    labels = labels_of(session, [one.number])[one.number]
    return {"inspection": one, "labels": labels, "verdict_of_labels": consensus(labels)}
