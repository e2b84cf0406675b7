"""Inspect images: one, or several in one request."""

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from pydantic import AfterValidator, Field
from starlette.datastructures import FormData, UploadFile

from hyperspot.service.access.guard import CSRF_FIELD, Operator
from hyperspot.service.api.answers import BatchAnswer, BatchResult, InspectionAnswer, answer_of
from hyperspot.service.api.base import Body, Text, checked, plain_text, problems
from hyperspot.service.api.dependencies import StationDep
from hyperspot.service.inspecting import InspectionRequest
from hyperspot.service.problems import Problem, problem_of
from hyperspot.service.station import Station

MOST_IMAGES = 1000
"""Of a batch."""
MULTIPART = "multipart/form-data"
BINARY = {"schema": {"type": "string", "format": "binary"}}
ProductText = Annotated[str, AfterValidator(plain_text), Field(max_length=200, description="Id of the product.")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        pattern="^[ -~]{1,190}$",
        description="A repeated request with the same key and image is answered with the first inspection.",
    ),
]
router = APIRouter(prefix="/api/v1/inspections", tags=["inspections"])


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


PART_PROPERTIES = {name: {"type": "string"} for name in PartFields.model_fields}
ONE_BODY = {
    "requestBody": {
        "required": True,
        "description": "The image file as it is, or a form with the field `image`.",
        "content": {
            "image/*": BINARY,
            "application/octet-stream": BINARY,
            MULTIPART: {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": BINARY["schema"], **PART_PROPERTIES},
                }
            },
        },
    }
}
BATCH_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            MULTIPART: {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "properties": {
                        "images": {"type": "array", "items": BINARY["schema"]},
                        **PART_PROPERTIES,
                        "serial_number": {"type": "array", "items": {"type": "string"}},
                    },
                }
            }
        },
    }
}


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
    started = time.perf_counter()
    if is_form(request):
        async with request.form(max_files=1, max_fields=20) as form:
            fields = checked(PartFields, _merged(query, form, ("image",)), "body")
            image = await the_image(form, "image")
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
    inspection = await here.inspector.inspect(asked)
    here.measurements.total.observe(time.perf_counter() - started)
    return answer_of(inspection)


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
    if not is_form(request):
        raise Problem(415, f"a batch is a form; send {MULTIPART} with the images as `images`")
    async with request.form(max_files=MOST_IMAGES, max_fields=MOST_IMAGES + 20) as form:
        images = files_of(form, "images")
        fields = checked(BatchFields, _merged(query, form, ("images",), ("serial_number",)), "body")
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


def is_form(request: Request) -> bool:
    """Whether a request is a multipart form."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == MULTIPART


def files_of(form: FormData, name: str) -> list[UploadFile]:
    """Return the files of a field; raises Problem 400 if there is none."""
    files = [one for one in form.getlist(name) if isinstance(one, UploadFile)]
    if not files:
        raise Problem(400, f"the form has no file; send it as the field `{name}`, with a file name")
    return files


async def the_image(form: FormData, name: str) -> bytes:
    """Return the only file of a field; raises Problem 400 if there is none."""
    return await files_of(form, name)[0].read()


def _product(product: str | None) -> str:
    if product is None:
        raise Problem(422, "the product is missing; send its id as `product`, in the query or the form")
    return product


def _merged(query: Body, form: FormData, files: Sequence[str], lists: Sequence[str] = ()) -> dict[str, Any]:
    """Return the fields of the query and the form; those of the form count, and empty ones do not."""
    values: dict[str, Any] = query.model_dump(exclude_unset=True)
    for name in form:
        if name in files or name == CSRF_FIELD:
            continue
        sent = [one for one in form.getlist(name) if one != ""]
        if name in lists:
            values[name] = sent
        elif sent:
            values[name] = sent[-1]
    return values
