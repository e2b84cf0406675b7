"""Find, show and export inspections."""

import csv
import io
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query
from fastapi.responses import FileResponse, Response, StreamingResponse
from pydantic import AfterValidator, Field
from starlette.background import BackgroundTask

from hyperspot.service.access.guard import Operator
from hyperspot.service.api.answers import InspectionList, OneInspection, answer_of, label_answer
from hyperspot.service.api.base import LARGEST, LARGEST_VERSION, Body, Moment, Text, plain_text, problems
from hyperspot.service.api.dependencies import StationDep
from hyperspot.service.api.inspecting import ProductText
from hyperspot.service.database.tables import StoredImage
from hyperspot.service.products.catalog import get_product
from hyperspot.service.records.export import COLUMNS, rows_of, safe_for_spreadsheets, write_parquet
from hyperspot.service.records.search import (
    Decision,
    Filters,
    LabelFilter,
    Reason,
    get_inspection,
    history_of,
    search,
)
from hyperspot.service.records.summary import API, summary_of
from hyperspot.service.review.labels import consensus, labels_of

router = APIRouter(prefix=f"{API}/inspections", tags=["inspections"])


class FilterQuery(Body):
    """Which inspections."""

    product: ProductText | None = None
    decision: Annotated[Decision | None, Field(description="`none`: without calibration.")] = None
    label: Annotated[LabelFilter | None, Field(description="What the reviewers say together.")] = None
    reason: Annotated[Reason | None, Field(description="Why it is in the review queue.")] = None
    station: Text | None = None
    serial_number: Text | None = None
    lot: Text | None = None
    source: Text | None = None
    since: Annotated[
        Moment | None, Field(description="Received at this time or later; without a zone, in that of the station.")
    ] = None
    until: Annotated[Moment | None, Field(description="Received before this time.")] = None
    version: Annotated[int | None, Field(ge=1, le=LARGEST_VERSION, description="Number of the version.")] = None
    min_score: Annotated[float | None, Field(description="Included.")] = None
    max_score: Annotated[float | None, Field(description="Included.")] = None
    text: Annotated[
        str | None,
        AfterValidator(plain_text),
        Field(max_length=200, description="Part of the serial number, lot, station or source."),
    ] = None

    def filters(self) -> Filters:
        """Return the filters for `search`."""
        return Filters(**{name: getattr(self, name) for name in FilterQuery.model_fields})


class ListQuery(FilterQuery):
    """A page of inspections."""

    before: Annotated[
        int | None, Field(ge=1, le=LARGEST, description="Inspections with a smaller number; see `next` of the answer.")
    ] = None
    limit: Annotated[int, Field(ge=1, le=500)] = 50


class ExportQuery(FilterQuery):
    """What is exported, and how."""

    format: Literal["csv", "parquet"] = "csv"


@router.get("", summary="List inspections", responses=problems(404, 422))
def list_inspections(who: Operator, here: StationDep, query: Annotated[ListQuery, Query()]) -> InspectionList:
    """List the inspections that fit all filters, the newest first; `next` leads to the next page."""
    del who
    with here.database.session() as session:
        if query.product is not None:
            get_product(session, query.product)
        found = search(session, query.filters(), query.limit + 1, query.before)
    following = None
    if len(found) > query.limit:
        found = found[: query.limit]
        parameters = query.model_dump(mode="json", exclude_none=True) | {"before": found[-1].number}
        following = f"{API}/inspections?{urlencode(parameters)}"
    return InspectionList(inspections=[answer_of(one) for one in found], next=following)


@router.get(
    "/export",
    summary="Export inspections",
    response_class=Response,
    responses={
        200: {
            "description": "A row for each inspection, the newest first.",
            "content": {
                "text/csv": {"schema": {"type": "string"}},
                "application/vnd.apache.parquet": {"schema": {"type": "string", "format": "binary"}},
            },
        },
        **problems(404, 422),
    },
)
def export_inspections(who: Operator, here: StationDep, query: Annotated[ExportQuery, Query()]) -> Response:
    """Export the inspections that fit all filters as CSV or Parquet.

    In CSV a text that a spreadsheet would take as a formula begins with an apostrophe.
    """
    del who
    if query.product is not None:
        with here.database.session() as session:
            get_product(session, query.product)
    rows = rows_of(here.database, query.filters())
    if query.format == "csv":
        return StreamingResponse(
            _csv(rows),
            media_type="text/csv; charset=utf-8",
            headers={"Content-Disposition": 'attachment; filename="inspections.csv"'},
        )
    descriptor, name = tempfile.mkstemp(suffix=".parquet")
    os.close(descriptor)
    path = Path(name)
    try:
        write_parquet(rows, path)
    except BaseException:
        path.unlink()
        raise
    return FileResponse(
        path,
        media_type="application/vnd.apache.parquet",
        filename="inspections.parquet",
        background=BackgroundTask(path.unlink),
    )


def _csv(rows: Iterator[dict[str, object]]) -> Iterator[str]:
    line = io.StringIO()
    writer = csv.DictWriter(line, list(COLUMNS))
    writer.writeheader()
    for count, row in enumerate(rows, start=1):
        writer.writerow({name: safe_for_spreadsheets(value) for name, value in row.items()})
        if count % 200 == 0:
            yield line.getvalue()
            line.seek(0)
            line.truncate()
    yield line.getvalue()


@router.get("/{inspection_id}", summary="Show an inspection", responses=problems(404))
def show_inspection(who: Operator, here: StationDep, inspection_id: str) -> OneInspection:
    """Return an inspection with its labels, and the history of its part."""
    del who
    with here.database.session() as session:
        one = get_inspection(session, inspection_id)
        labels = labels_of(session, [one.number])[one.number]
        stored = session.get_one(StoredImage, one.image_sha256)
        return OneInspection(
            **summary_of(one),
            checks=one.checks,
            has_image=stored.removed_at is None,
            label=consensus(labels),
            labels=[label_answer(label) for label in labels],
            history=[answer_of(other) for other in history_of(session, one)],
        )
