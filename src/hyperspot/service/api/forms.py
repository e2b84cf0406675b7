"""Multipart forms, read in the routes: after it is known who sends them."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import Request
from starlette.datastructures import FormData, UploadFile

from hyperspot.service.access.guard import CSRF_FIELD
from hyperspot.service.problems import Problem

MULTIPART = "multipart/form-data"
BINARY = {"type": "string", "format": "binary"}
TEXT = {"type": "string"}


def is_form(request: Request) -> bool:
    """Whether a request is a multipart form."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower() == MULTIPART


def require_form(request: Request) -> None:
    """Raise Problem 415 unless a request is a multipart form."""
    if not is_form(request):
        raise Problem(415, f"this takes a form with files; send {MULTIPART}")


def files_of(form: FormData, name: str) -> list[UploadFile]:
    """Return the files of a field; raises Problem 400 if there is none."""
    files = [one for one in form.getlist(name) if isinstance(one, UploadFile)]
    if not files:
        raise Problem(400, f"the form has no file; send it as the field `{name}`, with a file name")
    return files


def fields_of(form: FormData, files: Sequence[str], lists: Sequence[str] = ()) -> dict[str, Any]:
    """Return the fields of a form without its files and its CSRF token; those that were left empty are not there."""
    values: dict[str, Any] = {}
    for name in form:
        sent = [one for one in form.getlist(name) if one != ""]
        if sent and name not in files and name != CSRF_FIELD:
            values[name] = sent if name in lists else sent[-1]
    return values


def form_body(
    properties: Mapping[str, Any], required: Sequence[str], others: Sequence[str] = (), text: str = ""
) -> dict[str, Any]:
    """Return how a route documents its body.

    Args:
        properties: JSON schemas of the fields.
        required: Names of those that have to be there.
        others: Further media types, whose body is a file.
        text: Description.

    Examples:
        >>> from hyperspot.service.api.forms import BINARY, form_body
        >>> list(form_body({"image": BINARY}, ["image"], ["image/*"])["requestBody"]["content"])
        ['image/*', 'multipart/form-data']

    """
    form = {"schema": {"type": "object", "required": list(required), "properties": dict(properties)}}
    content = {kind: {"schema": BINARY} for kind in others} | {MULTIPART: form}
    return {"requestBody": {"required": True, "description": text, "content": content}}
