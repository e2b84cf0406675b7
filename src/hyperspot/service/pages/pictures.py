"""Pictures of inspections as browsers show them; those of REST have the formats of measurement."""

import io
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Query
from fastapi.responses import Response
from PIL import Image

from hyperspot.results.drawing import outline_rows, overlay_heatmap
from hyperspot.results.verdict import Verdict
from hyperspot.service.api.dependencies import StationDep
from hyperspot.service.database.tables import Inspection, StoredImage
from hyperspot.service.inference.drawing import draw, encode, verdict_of
from hyperspot.service.pages.dependencies import Operator
from hyperspot.service.problems import Problem
from hyperspot.service.records.image_store import ImageKey
from hyperspot.service.records.search import get_inspection
from hyperspot.service.station import Station

Kind = Literal["image", "overlay", "mask", "heat", "outline"]
"""`heat` tints the image by its scores, `outline` is transparent but for the lines around regions."""
SHOWN_BY_BROWSERS = {".png": "image/png", ".jpg": "image/jpeg", ".webp": "image/webp", ".bmp": "image/bmp"}
FOREVER = {"Cache-Control": "private, max-age=31536000, immutable"}
"""An inspection never changes."""
router = APIRouter(include_in_schema=False)


@router.get("/pictures/{inspection_id}/{kind}")
def picture(
    who: Operator,
    here: StationDep,
    inspection_id: str,
    kind: Kind,
    width: Annotated[int | None, Query(ge=16, le=16384)] = None,
) -> Response:
    """Return a picture, scaled down to a width if it is wider."""
    del who
    with here.database.session() as session:
        inspection = get_inspection(session, inspection_id)
        stored = session.get_one(StoredImage, inspection.image_sha256)
    content = here.images.read(ImageKey(stored.sha256, stored.suffix))
    if content is None:
        raise Problem(404, "the image was removed, as the settings of the station ask for")
    if kind == "image" and width is None and stored.suffix in SHOWN_BY_BROWSERS:
        return Response(content, media_type=SHOWN_BY_BROWSERS[stored.suffix], headers=FOREVER)
    return Response(_drawn(here, inspection, content, kind, width), media_type="image/png", headers=FOREVER)


def _drawn(here: Station, inspection: Inspection, content: bytes, kind: Kind, width: int | None) -> bytes:
    result = here.images.read_result(inspection.id)
    if result is None:
        raise Problem(404, "the anomaly map was removed, as the settings of the station ask for")
    verdict = verdict_of(inspection, content, result)
    if kind in ("overlay", "mask"):
        return draw(verdict, kind, width=width)
    if kind == "outline":
        return _outline(verdict)
    pixels = verdict.image if kind == "image" else overlay_heatmap(verdict.image, verdict.heatmap, verdict.heat_range)
    return encode(Image.fromarray(pixels), width)


def _outline(verdict: Verdict) -> bytes:
    rows = slice(0, verdict.mask.shape[0])
    dark, bright = (outline_rows(np.full_like(verdict.image, level), verdict.mask, rows) for level in (0, 255))
    # A line, or its dark rim, is what does not depend on the image.
    alpha = np.where((dark == bright).all(axis=2, keepdims=True), 255, 0).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(np.concatenate([dark, alpha], axis=2)).save(content, format="PNG", compress_level=1)
    return content.getvalue()
