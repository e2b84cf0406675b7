"""Inspect images: one, or several in one request."""

import asyncio
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from pydantic import AfterValidator, Field
from starlette.datastructures import UploadFile

from hyperspot.service.access.guard import Operator
from hyperspot.service.api.answers import BatchAnswer, BatchResult, InspectionAnswer, answer_of
from hyperspot.service.api.base import Body, Text, checked, plain_text, problems
from hyperspot.service.api.dependencies import StationDep
from hyperspot.service.api.forms import BINARY, TEXT, fields_of, files_of, form_body, is_form, require_form
from hyperspot.service.inspecting import InspectionRequest
from hyperspot.service.problems import Problem, problem_of
from hyperspot.service.records.summary import API
from hyperspot.service.station import Station

MOST_IMAGES = 1000
"""Of a batch."""
ProductText = Annotated[str, AfterValidator(plain_text), Field(max_length=200, description="Id of the product.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern="^[ -~]{1,190}$",
        description="A repeated request with the same key and image is answered with the first inspection.",
    ),
]
router = APIRouter(prefix=f"{API}/inspections", tags=["inspections"])


class PartFields(Body):
    """What is known about a part, in the query or as fields of a form."""

    product: ProductText | None = None
    serial_number: Annotated[Text | None, Field(description="Of the part.")] = None
    lot: Annotated[Text | None, Field(description="Of the part.")] = None
    station: Annotated[Text | None, Field(description="Where the image was taken.")] = None


class BatchFields(Body):
    """What is known about the parts of a batch, in the query or as fields of a form."""

    product: ProductText | None = None
    serial_number: Annotated[
        list[Text], Field(max_length=MOST_IMAGES, description="One for each image, in their order; or none.")
    ] = []  # noqa: RUF012 - pydantic copies it
    lot: Annotated[Text | None, Field(description="Of all parts.")] = None
    station: Annotated[Text | None, Field(description="Where the images were taken.")] = None


PART_PROPERTIES = dict.fromkeys(PartFields.model_fields, TEXT)
ONE_BODY = form_body(
    {"image": BINARY, **PART_PROPERTIES},
    ["image"],
    ["image/*", "application/octet-stream"],
    "The image file as it is, or a form.",
)
BATCH_BODY = form_body(
    {
        "images": {"type": "array", "items": BINARY},
        **PART_PROPERTIES,
        "serial_number": {"type": "array", "items": TEXT},
    },
    ["images"],
)


@router.post(
    "",
    summary="Inspect an image",
    responses=problems(400, 404, 409, 413, 415, 422, 429, 503, 504),
    openapi_extra=ONE_BODY,
)
async def inspect(
    request: Request,
    who: Operator,
    here: StationDep,
    query: Annotated[PartFields, Query()],
    idempotency_key: IdempotencyKey = None,
) -> InspectionAnswer:
    """Inspect an image with the active model of a product; the answer comes once the record is durable.

    The fields may stand in the query or in the form.
    """
    del who
    if is_form(request):
        async with request.form(max_files=1, max_fields=20) as form:
            given = query.model_dump(exclude_unset=True)
            fields = checked(PartFields, given | fields_of(form, ["image"]), "body")
            image = await files_of(form, "image")[0].read()
    else:
        fields, image = query, await request.body()
    asked = InspectionRequest(
        _product(fields.product),
        image,
        serial_number=fields.serial_number,
        lot=fields.lot,
        station=fields.station,
        idempotency_key=idempotency_key,
    )
    return answer_of(await here.inspector.inspect(asked))


@router.post(
    "/batch",
    summary="Inspect several images",
    response_model_exclude_unset=True,
    responses=problems(400, 404, 413, 415, 422, 503),
    openapi_extra=BATCH_BODY,
)
async def inspect_batch(
    request: Request,
    who: Operator,
    here: StationDep,
    query: Annotated[BatchFields, Query()],
    idempotency_key: IdempotencyKey = None,
) -> BatchAnswer:
    """Inspect up to 1000 images of one product; each has its own result, in the order of the images.

    An idempotency key KEY counts as KEY/1 for the first image, KEY/2 for the second, and so on.
    """
    del who
    require_form(request)
    async with request.form(max_files=MOST_IMAGES, max_fields=MOST_IMAGES + 20) as form:
        images = files_of(form, "images")
        given = query.model_dump(exclude_unset=True)
        fields = checked(BatchFields, given | fields_of(form, ["images"], ["serial_number"]), "body")
        if fields.serial_number and len(fields.serial_number) != len(images):
            raise Problem(
                422,
                f"there are {len(images)} images and {len(fields.serial_number)} serial numbers; send one for each "
                "image, or none",
            )
        serial_numbers: Sequence[str | None] = fields.serial_number or [None] * len(images)
        product = _product(fields.product)
        # One batch alone never fills the queue.
        slots = asyncio.Semaphore(max(1, min(here.settings.queue // 2, 2 * here.settings.max_batch)))

        async def one(position: int, image: UploadFile, serial_number: str | None) -> BatchResult:
            async with slots:
                asked = InspectionRequest(
                    product,
                    await image.read(),
                    serial_number=serial_number,
                    lot=fields.lot,
                    station=fields.station,
                    idempotency_key=None if idempotency_key is None else f"{idempotency_key}/{position}",
                )
                return await _result(here, asked)

        works = (one(*each) for each in zip(range(1, len(images) + 1), images, serial_numbers, strict=True))
        return BatchAnswer(results=list(await asyncio.gather(*works)))


async def _result(here: Station, asked: InspectionRequest) -> BatchResult:
    try:
        inspection = await here.inspector.inspect(asked)
    except Exception as error:  # noqa: BLE001 - answered as it would be alone
        problem = problem_of(error)
        return BatchResult(status=problem.status, problem=problem.to_dict())  # type: ignore[arg-type]
    return BatchResult(status=200, inspection=answer_of(inspection))


def _product(product: str | None) -> str:
    if product is None:
        raise Problem(422, "the product is missing; send its id as `product`, in the query or the form")
    return product
