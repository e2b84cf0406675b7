"""Versions of models: upload, activate, roll back, download, and what the labels say about them."""

import shutil
import tempfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, BinaryIO

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, Response
from pydantic import BaseModel, Field

from hyperspot.errors import HyperspotError, MissingPackageError
from hyperspot.service.access.guard import Engineer, Operator
from hyperspot.service.api.base import Body, Note, ProductId, VersionNumber, checked, problems
from hyperspot.service.api.dependencies import StationDep
from hyperspot.service.api.forms import BINARY, TEXT, fields_of, files_of, form_body, require_form
from hyperspot.service.database.tables import ModelVersion
from hyperspot.service.finishing import in_thread
from hyperspot.service.problems import Problem
from hyperspot.service.products import catalog
from hyperspot.service.records.summary import API
from hyperspot.service.review.learning import figures_of
from hyperspot.service.station import Station

FIRST_SUFFIXES = (".safetensors", ".onnx", ".xml", ".zip")
SUFFIXES = (*FIRST_SUFFIXES, ".bin")
router = APIRouter(prefix=f"{API}/products/{{product_id}}", tags=["versions"])


class UploadFields(Body):
    """Fields beside the files."""

    note: Annotated[Note, Field(description="For people.")] = ""
    activate: Annotated[bool, Field(description="Let it inspect at once.")] = False


class VersionAnswer(BaseModel):
    """A version of the model of a product."""

    product: str
    number: int
    is_active: bool
    sha256: str
    suffix: str = Field(description="`.safetensors`, `.onnx` or `.xml`.")
    size: int = Field(description="In bytes.")
    origin: str = Field(description="`uploaded`, `trained` or `updated`.")
    made_by: dict[str, Any] = Field(description="Job, settings and images of a training.")
    description: dict[str, Any] = Field(description="What the model says about itself.")
    false_alarm_rate: float | None = Field(description="Promised; null without calibration.")
    threshold: float | None
    calibration_images: int
    note: str
    created_by: str
    created_at: datetime


class Figures(BaseModel):
    """What the labels say about a version."""

    detection_rate: dict[str, Any] = Field(
        description="`value`, `low`, `high` (95 % confidence), `count`, `total`, and `missing`, why there is no value."
    )
    false_alarm_rate: dict[str, Any]
    imported_detection_rate: dict[str, Any] = Field(description="Of images that were imported with their labels.")
    imported_false_alarm_rate: dict[str, Any]
    promised_false_alarm_rate: float | None
    groups: dict[str, dict[str, Any]] = Field(description="Labels of alarms, near misses and the sample of passes.")
    disagreements: int
    unsure: int
    own_choice: int = Field(description="Labels of passes that reviewers chose themselves; they count in no rate.")
    trade_off: list[dict[str, float]] = Field(description="`threshold`, `detection_rate` and `false_alarm_rate`.")
    sentence: str = Field(description="How the rates were estimated.")


@router.get("/versions", summary="List versions", responses=problems(404))
def list_versions(who: Operator, here: StationDep, product_id: ProductId) -> list[VersionAnswer]:
    """List the versions of a product, the newest first."""
    del who
    with here.database.session() as session:
        active = catalog.get_product(session, product_id).active_version_id
        return [_answer(version, active) for version in catalog.versions(session, product_id)]


@router.post(
    "/versions",
    status_code=201,
    summary="Upload a model",
    responses=problems(400, 404, 413, 415, 422, 503),
    openapi_extra=form_body(
        {"files": {"type": "array", "items": BINARY}, "note": TEXT, "activate": {"type": "boolean"}},
        ["files"],
        text="A model file (.safetensors), an exported file (.onnx, or .xml and .bin), or a ZIP archive of one.",
    ),
)
async def upload_version(request: Request, who: Engineer, here: StationDep, product_id: ProductId) -> VersionAnswer:
    """Add a model as the next version of a product; it is opened as a check."""
    require_form(request)
    async with request.form(max_files=4, max_fields=10) as form:
        files = files_of(form, "files")
        fields = checked(UploadFields, fields_of(form, ["files"]), "body")
        names = [_suffix(one.filename or "") for one in files]
        contents: list[BinaryIO] = [one.file for one in files]
        number = await in_thread(_add, here, product_id, names, contents, fields.note, who.name)
    if fields.activate:
        return _active(await here.switch(lambda session: catalog.activate(session, product_id, number, who.name)))
    return await in_thread(_show, here, product_id, number)


@router.get("/versions/{number}", summary="Show a version", responses=problems(404, 422))
def show_version(who: Operator, here: StationDep, product_id: ProductId, number: VersionNumber) -> VersionAnswer:
    """Return a version."""
    del who
    return _show(here, product_id, number)


@router.get(
    "/versions/{number}/file",
    summary="Download a version",
    response_class=Response,
    responses={
        200: {
            "description": "The model file, or a ZIP archive of the files of an exported model.",
            "content": {"application/octet-stream": {"schema": BINARY}},
        },
        **problems(404, 410, 422),
    },
)
def download_version(who: Engineer, here: StationDep, product_id: ProductId, number: VersionNumber) -> Response:
    """Download the file of a version."""
    del who
    with here.database.session() as session:
        catalog.get_product(session, product_id)
        name, content = here.models.archive(catalog.get_version(session, product_id, number))
    if isinstance(content, Path):
        return FileResponse(content, media_type="application/octet-stream", filename=name)
    return Response(
        content, media_type="application/zip", headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )


@router.get("/versions/{number}/figures", summary="Get the figures of a version", responses=problems(404, 422))
def version_figures(who: Operator, here: StationDep, product_id: ProductId, number: VersionNumber) -> Figures:
    """Return detection rate and false-alarm rate of a version by the labels of reviewers, with their intervals."""
    del who
    with here.database.session() as session:
        catalog.get_product(session, product_id)
        return Figures(**figures_of(session, catalog.get_version(session, product_id, number)).to_dict())


@router.post("/versions/{number}/activate", summary="Activate a version", responses=problems(404, 422))
async def activate_version(
    who: Engineer, here: StationDep, product_id: ProductId, number: VersionNumber
) -> VersionAnswer:
    """Let a version inspect, from the next request on."""
    return _active(await here.switch(lambda session: catalog.activate(session, product_id, number, who.name)))


@router.post("/roll-back", summary="Roll back", responses=problems(404, 409))
async def roll_back(who: Engineer, here: StationDep, product_id: ProductId) -> VersionAnswer:
    """Let the version inspect that was active before the current one."""
    return _active(await here.switch(lambda session: catalog.roll_back(session, product_id, who.name)))


def _add(
    here: Station, product_id: str, suffixes: Sequence[str], contents: Sequence[BinaryIO], note: str, who: str
) -> int:
    firsts = [suffix for suffix in suffixes if suffix in FIRST_SUFFIXES]
    if len(firsts) != 1 or len(set(suffixes)) != len(suffixes) or (".bin" in suffixes and firsts != [".xml"]):
        raise Problem(
            422, f"send one model: a file of {', '.join(FIRST_SUFFIXES)}, and with .xml its .bin; pack others as ZIP"
        )
    with tempfile.TemporaryDirectory(prefix=".upload-", dir=here.settings.data) as folder:
        for suffix, content in zip(suffixes, contents, strict=True):
            with Path(folder, f"model{suffix}").open("xb") as target:
                shutil.copyfileobj(content, target)
        with here.database.session() as session:
            catalog.get_product(session, product_id)
            try:
                file = Path(folder, f"model{firsts[0]}")
                return here.models.add(session, product_id, file, "uploaded", who, note=note).number
            except MissingPackageError:
                raise
            except HyperspotError as error:
                # Without the folder of the station.
                raise Problem(422, str(error).replace(f"{folder}/", "")) from None


def _suffix(name: str) -> str:
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in SUFFIXES:
        raise Problem(415, f"this is no file of a model; send {', '.join(SUFFIXES)}")
    return suffix


def _show(here: Station, product_id: str, number: int) -> VersionAnswer:
    with here.database.session() as session:
        active = catalog.get_product(session, product_id).active_version_id
        return _answer(catalog.get_version(session, product_id, number), active)


def _active(version: ModelVersion) -> VersionAnswer:
    return _answer(version, version.id)


def _answer(version: ModelVersion, active_id: int | None) -> VersionAnswer:
    return VersionAnswer(
        product=version.product_id,
        number=version.number,
        is_active=version.id == active_id,
        sha256=version.sha256,
        suffix=version.suffix,
        size=version.size,
        origin=version.origin,
        made_by=version.made_by,
        description=version.description,
        false_alarm_rate=version.false_alarm_rate,
        threshold=version.threshold,
        calibration_images=version.calibration_images,
        note=version.note,
        created_by=version.created_by,
        created_at=version.created_at,
    )
