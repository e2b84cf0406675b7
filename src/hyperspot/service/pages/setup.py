"""*Set-up*: products, their training images and models."""

import io
import json
import shutil
import tempfile
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request
from fastapi.responses import HTMLResponse, Response
from PIL import Image
from sqlalchemy import select
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from hyperspot.decision.inspection_plan import InspectionPlan
from hyperspot.decision.plan_drawing import drawn_plan, plan_at
from hyperspot.errors import HyperspotError
from hyperspot.images import read_image
from hyperspot.service.api.dependencies import StationDep
from hyperspot.service.database.tables import Inspection, Product, StoredImage, TrainingImage
from hyperspot.service.inference.drawing import encode
from hyperspot.service.pages.dependencies import Engineer, EngineerPage
from hyperspot.service.pages.pictures import FOREVER
from hyperspot.service.pages.rendering import chosen_product, fragment, page, translator_of
from hyperspot.service.problems import Problem
from hyperspot.service.products import training_images
from hyperspot.service.products.catalog import change_product, create_product, get_product, list_products, versions
from hyperspot.service.records.image_store import ImageKey
from hyperspot.service.station import Station

THUMB = 160
LONGEST_SHOWN = 4096
"""Long side of the picture that a region of interest is drawn on; browsers refuse much larger ones."""
MODEL_FILES = (".safetensors", ".onnx", ".zip")
IMAGES_SHOWN = 200
router = APIRouter(include_in_schema=False)


def go_to(address: str) -> Response:
    """Let HTMX open another page."""
    return Response(status_code=204, headers={"HX-Redirect": address})


@router.get("/setup")
def setup(request: Request, who: EngineerPage, here: StationDep) -> HTMLResponse:
    """Show all products."""
    with here.database.session() as session:
        products = list_products(session, archived=True)
        return page(
            request, who, "setup.html", session, chosen_product(request, session), tab="products", all_products=products
        )


@router.post("/setup/products")
def create(
    who: Engineer,
    here: StationDep,
    id: Annotated[str, Form()],  # noqa: A002 - the name of the field
    name: Annotated[str, Form()] = "",
) -> Response:
    """Create a product."""
    with here.database.session() as session:
        product = create_product(session, id.strip(), name, who.name)
        return go_to(f"/setup/products/{product.id}?product={product.id}")


@router.get("/setup/products/{product_id}")
def show_product(request: Request, who: EngineerPage, here: StationDep, product_id: str) -> HTMLResponse:
    """Show the settings of a product."""
    with here.database.session() as session:
        product = get_product(session, product_id)
        values = _image_values(session, product)
        return page(
            request,
            who,
            "setup/product.html",
            session,
            product,
            tab="products",
            versions=versions(session, product.id),
            plan=product.inspection_plan or {},
            model_files=MODEL_FILES,
            **values,
        )


@router.post("/setup/products/{product_id}")
def change(
    who: Engineer,
    here: StationDep,
    product_id: str,
    name: Annotated[str, Form()],
    review_percent: Annotated[float, Form(ge=0, le=100)],
    near_miss: Annotated[float, Form(ge=0, le=1000)],
    archived: Annotated[bool, Form()] = False,
) -> Response:
    """Change the settings of a product."""
    with here.database.session() as session:
        change_product(
            session,
            product_id,
            who.name,
            name=name.strip() or product_id,
            review_share=review_percent / 100,
            near_miss=near_miss,
            is_archived=archived,
        )
    return go_to(f"/setup/products/{product_id}")


@router.post("/setup/products/{product_id}/images")
def upload_image(who: Engineer, here: StationDep, product_id: str, file: Annotated[bytes, File()]) -> dict[str, bool]:
    """Add a training image."""
    with here.database.session() as session:
        most = here.settings.max_pixels
        return {"is_new": training_images.add(session, here.images, product_id, file, who.name, max_pixels=most)}


@router.get("/setup/products/{product_id}/images")
def show_images(request: Request, who: Engineer, here: StationDep, product_id: str) -> HTMLResponse:
    """Return the list of training images."""
    with here.database.session() as session:
        return fragment(request, who, "setup/images.html", **_image_values(session, get_product(session, product_id)))


@router.get("/setup/products/{product_id}/images/{sha256}")
def training_image(who: Engineer, here: StationDep, product_id: str, sha256: str) -> Response:
    """Return a training image, small."""
    del who
    with here.database.session() as session:
        stored = session.scalar(
            select(StoredImage)
            .join(TrainingImage, TrainingImage.image_sha256 == StoredImage.sha256)
            .where(TrainingImage.product_id == product_id, StoredImage.sha256 == sha256)
        )
    content = None if stored is None else here.images.read(ImageKey(stored.sha256, stored.suffix))
    if content is None:
        raise Problem(404, "there is no such training image; load the page again")
    return Response(encode(Image.fromarray(read_image(content)), THUMB), media_type="image/png", headers=FOREVER)


@router.delete("/setup/products/{product_id}/images/{sha256}")
def remove_image(request: Request, who: Engineer, here: StationDep, product_id: str, sha256: str) -> HTMLResponse:
    """Take an image out of the training images."""
    with here.database.session() as session:
        training_images.remove(session, product_id, sha256, who.name)
        return fragment(request, who, "setup/images.html", **_image_values(session, get_product(session, product_id)))


@router.post("/setup/products/{product_id}/models")
async def upload_model(request: Request, who: Engineer, here: StationDep, product_id: str) -> dict[str, int]:
    """Add an uploaded model as the next version."""
    async with request.form() as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise Problem(400, "the form has no file; choose one")
        number = await run_in_threadpool(_add_model, here, product_id, file, who.name)
    here.events.publish("version", {"product": product_id, "number": number})
    return {"number": number}


def _add_model(here: Station, product_id: str, file: UploadFile, who: str) -> int:
    suffix = PurePosixPath((file.filename or "").lower()).suffix
    if suffix not in MODEL_FILES:
        raise Problem(415, f"a model is a file of the kinds {', '.join(MODEL_FILES)}; pack the files of one in a ZIP")
    with tempfile.TemporaryDirectory() as folder:
        # The name of the upload never reaches the file system.
        path = Path(folder, f"model{suffix}")
        with path.open("wb") as sink:
            shutil.copyfileobj(file.file, sink)
        with here.database.session() as session:
            get_product(session, product_id)
            return here.models.add(session, product_id, path, "uploaded", who).number


@router.get("/setup/products/{product_id}/plan/")
def plan_page(request: Request, who: EngineerPage, here: StationDep, product_id: str) -> HTMLResponse:
    """Show the page on which the region of interest is drawn."""
    with here.database.session() as session:
        product = get_product(session, product_id)
        return fragment(request, who, "setup/plan.html", product=product, has_image=_plan_image(session, product_id))


@router.get("/setup/products/{product_id}/plan/plan")
def plan(who: Engineer, here: StationDep, product_id: str) -> dict[str, Any]:
    """Return the region of interest in the pixels of the image below it."""
    del who
    stored, saved = _plan_of(here, product_id)
    plan = plan_at(InspectionPlan.from_dict(saved), stored.width, stored.height)
    return {"plan": plan.to_dict(), "size": [stored.width, stored.height]}


@router.get("/setup/products/{product_id}/plan/image")
def plan_image(who: Engineer, here: StationDep, product_id: str) -> Response:
    """Return the image that the region of interest is drawn on."""
    del who
    stored, _ = _plan_of(here, product_id)
    picture = Image.fromarray(read_image(_content(here, stored)))
    picture.thumbnail((LONGEST_SHOWN, LONGEST_SHOWN))
    content = io.BytesIO()
    picture.save(content, format="PNG", compress_level=1)
    return Response(content.getvalue(), media_type="image/png", headers={"Cache-Control": "no-store"})


@router.post("/setup/products/{product_id}/plan/save")
async def save_plan(request: Request, who: Engineer, here: StationDep, product_id: str) -> Response:
    """Keep the region of interest for the next training."""
    content = await request.body()
    return await run_in_threadpool(_save_plan, request, here, product_id, content, who.name)


def _save_plan(request: Request, here: Station, product_id: str, content: bytes, who: str) -> Response:
    stored, _ = _plan_of(here, product_id)
    try:
        values = json.loads(content)
        made = drawn_plan(values, read_image(_content(here, stored)))
    except (ValueError, TypeError, AttributeError, RecursionError, HyperspotError) as error:
        return Response(str(error), 422, media_type="text/plain")
    with here.database.session() as session:
        change_product(session, product_id, who, inspection_plan=None if made.is_empty else made.to_dict())
    return Response(translator_of(request)("plan.saved"), media_type="text/plain")


def _plan_of(here: Station, product_id: str) -> tuple[StoredImage, dict[str, Any]]:
    with here.database.session() as session:
        product = get_product(session, product_id)
        stored = _plan_image(session, product_id)
    if stored is None:
        raise Problem(409, "there is no image to draw on; upload training images first")
    return stored, product.inspection_plan or {}


def _plan_image(session: Session, product_id: str) -> StoredImage | None:
    """Return the first training image, else the image of the newest inspection."""
    kept = select(StoredImage).where(StoredImage.removed_at.is_(None)).limit(1)
    trained = kept.join(TrainingImage, TrainingImage.image_sha256 == StoredImage.sha256)
    trained = trained.where(TrainingImage.product_id == product_id).order_by(TrainingImage.id)
    inspected = kept.join(Inspection, Inspection.image_sha256 == StoredImage.sha256)
    inspected = inspected.where(Inspection.product_id == product_id).order_by(Inspection.number.desc())
    return session.scalar(trained) or session.scalar(inspected)


def _content(here: Station, stored: StoredImage) -> bytes:
    content = here.images.read(ImageKey(stored.sha256, stored.suffix))
    if content is None:
        raise Problem(404, "the image is not kept any more; upload training images")
    return content


def _image_values(session: Session, product: Product) -> dict[str, Any]:
    images = training_images.of(session, product.id)
    return {"product": product, "image_count": len(images), "images": [one.key for one in images[-IMAGES_SHOWN:]]}
