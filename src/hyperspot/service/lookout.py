"""The endpoint DetectAnomalies of Amazon Lookout for Vision, answered by the station.

A project is a product, and a model version is the number of the active version or `active`.
"""

import base64
import io
import math
import uuid
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from jaxtyping import Bool
from PIL import Image
from pydantic import BaseModel, Field

from hyperspot.service.access.guard import Operator
from hyperspot.service.api.dependencies import StationDep
from hyperspot.service.database.tables import Inspection
from hyperspot.service.finishing import in_thread
from hyperspot.service.inference.drawing import mask_of
from hyperspot.service.inspecting import InspectionRequest
from hyperspot.service.problems import Problem, problem_of
from hyperspot.service.products.catalog import active_version
from hyperspot.service.station import Station

ERRORS = {
    400: "ValidationException",
    401: "AccessDeniedException",
    403: "AccessDeniedException",
    404: "ResourceNotFoundException",
    409: "ConflictException",
    413: "ValidationException",
    415: "ValidationException",
    422: "ValidationException",
    429: "ThrottlingException",
}
"""Of the service, by the statuses of the station; all others are `InternalServerException`."""
BACKGROUND, ANOMALY = "#FFFFFF", "#23A436"
"""Colors of the mask."""


class LookoutRoute(APIRoute):
    """Answers errors as the service does."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what answers a request."""
        answer = super().get_route_handler()

        async def with_errors(request: Request) -> Response:
            try:
                return await answer(request)
            except Exception as error:  # noqa: BLE001 - every error has an answer
                return error_of(problem_of(error))

        return with_errors


def error_of(problem: Problem) -> JSONResponse:
    """Return a problem as the service answers it.

    Examples:
        >>> from hyperspot.service.lookout import error_of
        >>> from hyperspot.service.problems import Problem
        >>> answer = error_of(Problem(415, "the content is no image"))
        >>> answer.status_code, answer.headers["x-amzn-errortype"]
        (400, 'ValidationException')

    """
    code = ERRORS.get(problem.status, "InternalServerException")
    status = {"ValidationException": 400, "AccessDeniedException": 403}.get(code, problem.status)
    headers = problem.headers | {"x-amzn-errortype": code, "x-amzn-requestid": str(uuid.uuid4())}
    return JSONResponse({"Message": problem.detail, "Code": code}, status, headers)


class LookoutError(BaseModel):
    """An error, as the service answers it."""

    Message: str
    Code: str = Field(description="Also in the header `x-amzn-errortype`.")


class PixelAnomaly(BaseModel):
    """How much of the image a class covers."""

    TotalPercentageArea: float = Field(description="Share of the image, in 0..1.")
    Color: str = Field(description="Of the class in the mask.")


class AnomalyClass(BaseModel):
    """A class of the mask: `background` or `anomaly`."""

    Name: str
    PixelAnomaly: PixelAnomaly


class ImageSource(BaseModel):
    """Where the image came from."""

    Type: str = "direct"


class DetectAnomalyResult(BaseModel):
    """The verdict."""

    Source: ImageSource
    IsAnomalous: bool
    Confidence: float = Field(description="In 0..1: 1 - p-value of an anomalous image, the p-value of a normal one.")
    Anomalies: list[AnomalyClass]
    AnomalyMask: str = Field(description="PNG in Base64.")


class DetectAnomaliesResponse(BaseModel):
    """Answer of DetectAnomalies."""

    DetectAnomalyResult: DetectAnomalyResult


router = APIRouter(prefix="/2020-11-20", tags=["lookout"], route_class=LookoutRoute)


def _errors() -> dict[int | str, dict[str, Any]]:
    statuses = {400: "Validation", 403: "Access denied", 404: "Not found", 409: "Conflict", 429: "Throttling"}
    return {status: {"model": LookoutError, "description": text} for status, text in statuses.items()}


@router.post(
    "/projects/{project}/models/{version}/detect",
    summary="DetectAnomalies of Amazon Lookout for Vision",
    responses=_errors(),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def detect_anomalies(
    request: Request,
    who: Operator,
    here: StationDep,
    project: Annotated[str, Path(description="Id of the product.", examples=["bolt"])],
    version: Annotated[str, Path(description="Number of the active version, or `active`.", examples=["active"])],
) -> DetectAnomaliesResponse:
    """Inspect an image; it is recorded as any other inspection, with the source `lookout`."""
    del who
    await in_thread(_check_version, here, project, version)
    inspection = await here.inspector.inspect(InspectionRequest(project, await request.body(), source="lookout"))
    return await in_thread(_response, here, inspection)


def _check_version(here: Station, project: str, version: str) -> None:
    with here.database.session() as session:
        active = active_version(session, project)
    if active.threshold is None:
        raise Problem(409, "the active version has no threshold, and decides nothing; calibrate it by `recalibrate`")
    if version not in ("active", str(active.number)):
        raise Problem(
            409, f"version {active.number} of '{project}' is active, and only it inspects; name it or `active`"
        )


def _response(here: Station, inspection: Inspection) -> DetectAnomaliesResponse:
    result = here.images.read_result(inspection.id) or {}
    mask = mask_of(result, inspection.height, inspection.width)
    return DetectAnomaliesResponse(
        DetectAnomalyResult=DetectAnomalyResult(
            Source=ImageSource(),
            IsAnomalous=bool(inspection.is_anomalous),
            Confidence=confidence_of(inspection),
            Anomalies=_classes(mask),
            AnomalyMask=base64.b64encode(_colored(mask)).decode("ascii"),
        )
    )


def confidence_of(inspection: Inspection) -> float:
    """Return the confidence of a verdict, in 0..1, from its p-value.

    The service does not say how it computes its own. Of an anomalous image it is 1 - p: the share of good images that
    score lower. Of a normal one it is p: the share of good images that score as high or higher.

    Examples:
        >>> from hyperspot.service.database.tables import Inspection
        >>> from hyperspot.service.lookout import confidence_of
        >>> confidence_of(Inspection(is_anomalous=True, p_value=0.25)), confidence_of(
        ...     Inspection(is_anomalous=False, p_value=0.25)
        ... )
        (0.75, 0.25)

    """
    p_value = inspection.p_value
    if p_value is None or not math.isfinite(p_value):
        return 0.0
    return 1 - p_value if inspection.is_anomalous else p_value


def _classes(mask: Bool[np.ndarray, "_h _w"]) -> list[AnomalyClass]:
    share = float(mask.mean())
    classes = [
        AnomalyClass(Name="background", PixelAnomaly=PixelAnomaly(TotalPercentageArea=1 - share, Color=BACKGROUND))
    ]
    if share > 0:
        anomaly = PixelAnomaly(TotalPercentageArea=share, Color=ANOMALY)
        classes.append(AnomalyClass(Name="anomaly", PixelAnomaly=anomaly))
    return classes


def _colored(mask: Bool[np.ndarray, "_h _w"]) -> bytes:
    drawn = Image.fromarray(mask.astype(np.uint8), mode="P")
    drawn.putpalette([int(color[start : start + 2], 16) for color in (BACKGROUND, ANOMALY) for start in (1, 3, 5)])
    content = io.BytesIO()
    drawn.convert("RGB").save(content, format="PNG", compress_level=1)
    return content.getvalue()
