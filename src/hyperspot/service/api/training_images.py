"""Images of good parts that the next training of a product learns."""

from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field

from hyperspot.errors import ImageError
from hyperspot.service.access.guard import Engineer, Operator
from hyperspot.service.api.base import Body, Digest, ProblemDetails, ProductId, problems
from hyperspot.service.api.dependencies import StationDep
from hyperspot.service.api.forms import BINARY, files_of, form_body, require_form
from hyperspot.service.api.inspecting import MOST_IMAGES
from hyperspot.service.api.pictures import MEDIA_TYPES, Width, answer_image, picture_answer
from hyperspot.service.database.tables import StoredImage
from hyperspot.service.finishing import in_thread
from hyperspot.service.problems import Problem
from hyperspot.service.products import training_images
from hyperspot.service.products.catalog import get_product
from hyperspot.service.records.summary import API
from hyperspot.service.station import Station

router = APIRouter(prefix=f"{API}/products/{{product_id}}/training-images", tags=["products"])


class TrainingImageAnswer(BaseModel):
    """A training image."""

    sha256: str
    origin: str = Field(description="`uploaded` or `reviewed`.")
    added_by: str
    added_at: datetime
    link: str = Field(description="Path of the image on the station.")


class PageQuery(Body):
    """A page of training images."""

    start: Annotated[int, Field(ge=0, le=10**9)] = 0
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


class TrainingImageList(BaseModel):
    """A page of training images, in the order in which they were added."""

    total: int
    images: list[TrainingImageAnswer]


class UploadResult(BaseModel):
    """What became of one image."""

    added: bool = Field(description="False if it was there already, or if there is a problem.")
    problem: ProblemDetails | None = None


class UploadAnswer(BaseModel):
    """What became of the images, in their order."""

    results: list[UploadResult]


@router.get("", summary="List training images", responses=problems(404, 422))
def list_training_images(
    who: Operator, here: StationDep, product_id: ProductId, query: Annotated[PageQuery, Query()]
) -> TrainingImageList:
    """List the training images of a product."""
    del who
    with here.database.session() as session:
        get_product(session, product_id)
        stored = training_images.of(session, product_id)
    images = [
        TrainingImageAnswer(
            sha256=one.image.image_sha256,
            origin=one.image.origin,
            added_by=one.image.added_by,
            added_at=one.image.added_at,
            link=f"{API}/products/{product_id}/training-images/{one.image.image_sha256}",
        )
        for one in stored[query.start : query.start + query.limit]
    ]
    return TrainingImageList(total=len(stored), images=images)


@router.post(
    "",
    summary="Add training images",
    responses=problems(400, 404, 413, 415),
    openapi_extra=form_body({"images": {"type": "array", "items": BINARY}}, ["images"]),
)
async def add_training_images(request: Request, who: Engineer, here: StationDep, product_id: ProductId) -> UploadAnswer:
    """Add images of good parts; each has its own result, in the order of the images."""
    require_form(request)
    async with request.form(max_files=MOST_IMAGES, max_fields=10) as form:
        files = files_of(form, "images")
        return UploadAnswer(
            results=[await in_thread(_add, here, product_id, await one.read(), who.name) for one in files]
        )


@router.get(
    "/{sha256}",
    summary="Get a training image",
    response_class=Response,
    responses=picture_answer(*MEDIA_TYPES.values()),
)
def get_training_image(
    request: Request, who: Operator, here: StationDep, product_id: ProductId, sha256: Digest, width: Width = None
) -> Response:
    """Return the image as it was uploaded; with a width, a smaller one as PNG."""
    del who
    with here.database.session() as session:
        get_product(session, product_id)
        if not training_images.contains(session, product_id, sha256):
            raise training_images.unknown(product_id)
        stored = session.get_one(StoredImage, sha256)
    return answer_image(request, here, stored, width)


@router.delete(
    "/{sha256}",
    status_code=204,
    response_model=None,
    summary="Remove a training image",
    responses=problems(404, 422),
)
def remove_training_image(who: Engineer, here: StationDep, product_id: ProductId, sha256: Digest) -> None:
    """Take an image out of the training images; inspections of it stay."""
    with here.database.session() as session:
        get_product(session, product_id)
        training_images.remove(session, product_id, sha256, who.name)


def _add(here: Station, product_id: str, content: bytes, who: str) -> UploadResult:
    try:
        with here.database.session() as session:
            most = here.settings.max_pixels
            added = training_images.add(session, here.images, product_id, content, who, max_pixels=most)
            return UploadResult(added=added)
    except ImageError as error:
        problem = Problem(422, str(error)).to_dict()
        return UploadResult(added=False, problem=ProblemDetails(**problem))
