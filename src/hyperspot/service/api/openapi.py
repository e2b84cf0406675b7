"""Completes the OpenAPI description of the station."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from hyperspot.service.api.base import ProblemDetails, problems
from hyperspot.service.problems import MEDIA_TYPE

TAGS = {
    "inspections": "Inspect images; find, show and export inspections.",
    "review": "Labels of reviewers, and what waits for review.",
    "products": "Products, their settings and training images.",
    "versions": "Versions of the models of products.",
    "jobs": "Work that takes long: training, updates, imports, comparisons.",
    "monitoring": "Alarms, and scores over time.",
    "sources": "Where images come from.",
    "outputs": "Where verdicts go.",
    "station": "Health and metrics.",
    "lookout": "For clients of Amazon Lookout for Vision.",
    "access": "Users, tokens and the audit log.",
}
PROBLEM = "#/components/schemas/ProblemDetails"
DESCRIPTION = """Inspects images of parts, and keeps records of the verdicts.

Send a token as `Authorization: Bearer hsp_...`. Errors are problem details (RFC 9457). Times are ISO 8601.
"""


def complete_openapi(app: FastAPI) -> None:
    """Let the description name all errors and their media type."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _completed(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(
        title=app.title,
        version=app.version,
        description=DESCRIPTION,
        routes=app.routes,
        tags=[{"name": name, "description": text} for name, text in TAGS.items()],
    )
    schemas = schema.setdefault("components", {}).setdefault("schemas", {})
    schemas["ProblemDetails"] = ProblemDetails.model_json_schema()
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    for path in schema["paths"].values():
        for operation in path.values():
            _complete(operation)
    return schema


def _complete(operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    if "lookout" in operation.get("tags", ()):
        # Its errors have a shape of their own.
        responses.pop("422", None)
        return
    if operation.get("security"):
        for status, response in problems(401, 403, 503).items():
            responses.setdefault(str(status), {"description": response["description"]})
    for status, response in responses.items():
        if not status.startswith(("4", "5")):
            continue
        if status == "422" and response["description"] == "Validation Error":
            response |= {"description": "Cannot be processed"}
        response["content"] = {MEDIA_TYPE: {"schema": {"$ref": PROBLEM}}}
