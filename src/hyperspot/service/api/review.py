"""Labels of reviewers, and what waits for review."""

from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import Response
from pydantic import AfterValidator, Base64Bytes, BaseModel, Field

from hyperspot.service.access.guard import Operator
from hyperspot.service.api.answers import InspectionAnswer, LabelAnswer, answer_of, label_answer
from hyperspot.service.api.base import Body, Id, plain_text, problems
from hyperspot.service.api.dependencies import StationDep
from hyperspot.service.api.inspecting import ProductText
from hyperspot.service.database.tables import Label
from hyperspot.service.problems import Problem
from hyperspot.service.products.catalog import get_product
from hyperspot.service.records.search import get_inspection
from hyperspot.service.records.summary import API
from hyperspot.service.review.labels import LONGEST_COMMENT, LabelName, add_label, labels_of
from hyperspot.service.review.queue import count_waiting, next_inspections

router = APIRouter(prefix=API, tags=["review"])


class NewLabel(Body):
    """What a reviewer says."""

    label: LabelName
    comment: Annotated[str, AfterValidator(plain_text), Field(max_length=LONGEST_COMMENT)] = ""
    mask: Annotated[
        Base64Bytes | None,
        Field(description="PNG of the size of the image in Base64, black outside of the defect; of defects alone."),
    ] = None


class ReviewQuery(Body):
    """Which inspections to review."""

    product: ProductText | None = None
    limit: Annotated[int, Field(ge=1, le=200)] = 20


class ReviewQueue(BaseModel):
    """What to review next."""

    waiting: dict[str, int] = Field(description="Inspections without any label, by their reason.")
    inspections: list[InspectionAnswer] = Field(description="In the order of review.")


@router.get("/review", summary="List what to review", responses=problems(404))
def review_queue(who: Operator, here: StationDep, query: Annotated[ReviewQuery, Query()]) -> ReviewQueue:
    """List alarms, near misses and a random sample of passes that the sender has not labeled."""
    with here.database.session() as session:
        if query.product is not None:
            get_product(session, query.product)
        found = next_inspections(session, query.product, who.name, query.limit)
        waiting = count_waiting(session, query.product, who.name)
        return ReviewQueue(waiting=waiting, inspections=[answer_of(one) for one in found])


@router.get("/inspections/{inspection_id}/labels", summary="List labels", responses=problems(404))
def list_labels(who: Operator, here: StationDep, inspection_id: str) -> list[LabelAnswer]:
    """List the newest label of each reviewer of an inspection."""
    del who
    with here.database.session() as session:
        one = get_inspection(session, inspection_id)
        return [label_answer(label) for label in labels_of(session, [one.number])[one.number]]


@router.post(
    "/inspections/{inspection_id}/labels", status_code=201, summary="Add a label", responses=problems(404, 413, 422)
)
def label_inspection(who: Operator, here: StationDep, inspection_id: str, body: NewLabel) -> LabelAnswer:
    """Label an inspection; it replaces the earlier label of the sender."""
    with here.database.session() as session:
        one = get_inspection(session, inspection_id)
        return label_answer(add_label(session, one, who.name, body.label, body.mask, body.comment))


@router.get(
    "/inspections/{inspection_id}/labels/{label_id}/mask",
    summary="Get the mask of a label",
    response_class=Response,
    responses={
        200: {
            "description": "1-bit PNG.",
            "content": {"image/png": {"schema": {"type": "string", "format": "binary"}}},
        },
        **problems(404, 422),
    },
)
def label_mask(who: Operator, here: StationDep, inspection_id: str, label_id: Id) -> Response:
    """Return the mask that a reviewer drew."""
    del who
    with here.database.session() as session:
        one = get_inspection(session, inspection_id)
        label = session.get(Label, label_id)
        if label is None or label.inspection_number != one.number or label.mask is None:
            raise Problem(404, "the inspection has no such label with a mask; list its labels")
        return Response(label.mask, media_type="image/png", headers={"Cache-Control": "private, max-age=3600"})
