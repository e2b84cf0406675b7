"""Pictures of inspections: the image as it was received, overlay, heatmap and mask."""

import hashlib
import threading
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response
from PIL import Image

from hyperspot import __version__
from hyperspot.images import read_image
from hyperspot.service.access.guard import Operator
from hyperspot.service.api.base import problems
from hyperspot.service.api.dependencies import StationDep
from hyperspot.service.database.tables import Inspection, StoredImage
from hyperspot.service.inference.drawing import Picture, draw, encode, verdict_of
from hyperspot.service.problems import Problem
from hyperspot.service.records.image_store import ImageKey
from hyperspot.service.records.search import get_inspection
from hyperspot.service.records.summary import API
from hyperspot.service.station import Station

MEDIA_TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".bmp": "image/bmp",
    ".tif": "image/tiff",
    ".webp": "image/webp",
}
AT_ONCE = threading.BoundedSemaphore(2)
"""Pictures drawn at the same time: each holds an image in memory, and takes time of the processor from inspections."""
Width = Annotated[int | None, Query(ge=16, le=16384, description="Of a smaller picture, in pixels.")]
router = APIRouter(prefix=f"{API}/inspections/{{inspection_id}}", tags=["inspections"])


def picture_answer(*media_types: str) -> dict[int | str, dict[str, object]]:
    """Return how routes of pictures document their answers."""
    return {
        200: {
            "description": "The picture.",
            "content": {kind: {"schema": {"type": "string", "format": "binary"}} for kind in media_types},
        },
        304: {"description": "The picture of the `If-None-Match` header is still right."},
        **problems(404, 410, 422),
    }


PNG = {"response_class": Response, "responses": picture_answer("image/png")}


@router.get(
    "/image",
    summary="Get the image",
    response_class=Response,
    responses=picture_answer(*MEDIA_TYPES.values()),
)
def image(request: Request, who: Operator, here: StationDep, inspection_id: str, width: Width = None) -> Response:
    """Return the image as it was received; with a width, a smaller one as PNG."""
    del who
    return answer_image(request, here, _found(here, inspection_id)[1], width)


@router.get("/overlay", summary="Get the overlay", **PNG)  # type: ignore[arg-type]
def overlay(request: Request, who: Operator, here: StationDep, inspection_id: str, width: Width = None) -> Response:
    """Return the image with outlined regions."""
    del who
    return _drawn(request, here, inspection_id, "overlay", width)


@router.get("/heatmap", summary="Get the heatmap", **PNG)  # type: ignore[arg-type]
def heatmap(request: Request, who: Operator, here: StationDep, inspection_id: str, width: Width = None) -> Response:
    """Return the anomaly map as 16-bit gray, cold to hot."""
    del who
    return _drawn(request, here, inspection_id, "heatmap", width)


@router.get("/mask", summary="Get the mask", **PNG)  # type: ignore[arg-type]
def mask(request: Request, who: Operator, here: StationDep, inspection_id: str, width: Width = None) -> Response:
    """Return the mask of the defects as 1-bit PNG, white where they are."""
    del who
    return _drawn(request, here, inspection_id, "mask", width)


def answer_image(request: Request, here: Station, stored: StoredImage, width: int | None) -> Response:
    """Return the answer with a stored image; raises Problem 410 if it is not kept any more."""
    tag = _tag(stored.sha256, width)
    if _is_known(request, tag):
        return _unchanged(tag)
    content = _content(here, stored)
    if width is None:
        return Response(content, media_type=MEDIA_TYPES[stored.suffix], headers=_headers(tag))
    with AT_ONCE:
        reduced = encode(Image.fromarray(read_image(content, max_pixels=here.settings.max_pixels)), width)
    return Response(reduced, media_type="image/png", headers=_headers(tag))


def _drawn(request: Request, here: Station, inspection_id: str, picture: Picture, width: int | None) -> Response:
    inspection, stored = _found(here, inspection_id)
    tag = _tag(f"{inspection.id} {picture} {__version__}", width)
    if _is_known(request, tag):
        return _unchanged(tag)
    content = _content(here, stored)
    result = here.images.read_result(inspection.id)
    if result is None:
        raise Problem(410, "the anomaly map is not kept any more; retention removed it with the image")
    with AT_ONCE:
        drawn = draw(verdict_of(inspection, content, result), picture, width=width)
    return Response(drawn, media_type="image/png", headers=_headers(tag))


def _found(here: Station, inspection_id: str) -> tuple[Inspection, StoredImage]:
    with here.database.session() as session:
        inspection = get_inspection(session, inspection_id)
        return inspection, session.get_one(StoredImage, inspection.image_sha256)


def _content(here: Station, stored: StoredImage) -> bytes:
    content = here.images.read(ImageKey(stored.sha256, stored.suffix))
    if content is None:
        raise Problem(410, "the image is not kept any more; retention removed it")
    return content


def _tag(content: str, width: int | None) -> str:
    return f'"{hashlib.sha256(f"{content} {width}".encode()).hexdigest()[:32]}"'


def _is_known(request: Request, tag: str) -> bool:
    known = (one.strip().removeprefix("W/") for one in request.headers.get("if-none-match", "").split(","))
    return any(one in (tag, "*") for one in known)


def _headers(tag: str) -> dict[str, str]:
    return {"ETag": tag, "Cache-Control": "private, max-age=3600"}


def _unchanged(tag: str) -> Response:
    return Response(status_code=304, headers=_headers(tag))
