"""Errors of the station as RFC 9457 problem details."""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException

from hyperspot.errors import HyperspotError, ImageError, MissingPackageError

MEDIA_TYPE = "application/problem+json"
TITLES = {
    400: "Bad request",
    401: "Not signed in",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    410: "Gone",
    413: "Too large",
    415: "Unsupported media type",
    422: "Cannot be processed",
    429: "Too many requests",
    500: "Internal error",
    503: "Not available",
    504: "Deadline exceeded",
}
DATABASE_AWAY = (OperationalError, InterfaceError, PoolTimeoutError)
"""Errors of a database that does not answer now; a request is worth another try."""
log = logging.getLogger(__name__)


class Problem(Exception):  # noqa: N818 - the word of RFC 9457
    """An answer other than success.

    Attributes:
        status: HTTP status.
        detail: One sentence: what is wrong, and the mend.
        headers: Of the answer, for example `Retry-After`.
        more: Further members of the JSON object.

    Examples:
        >>> from hyperspot.service.problems import Problem
        >>> Problem(404, "there is no product 'bolt'; create it first").to_dict()["title"]
        'Not found'

    """

    def __init__(self, status: int, detail: str, *, headers: dict[str, str] | None = None, **more: Any) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers, self.more = status, detail, headers or {}, more

    def to_dict(self) -> dict[str, Any]:
        """Return the problem details."""
        title = TITLES.get(self.status, "Error")
        return {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail, **self.more}

    def response(self) -> JSONResponse:
        """Return the answer."""
        return JSONResponse(self.to_dict(), self.status, self.headers, media_type=MEDIA_TYPE)


def problem_of(error: Exception) -> Problem:
    """Return the problem of an error that a request caused."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, MissingPackageError):
        return Problem(503, str(error))
    if isinstance(error, ImageError):
        return Problem(422, str(error))
    if isinstance(error, HyperspotError):
        return Problem(400, str(error))
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return Problem(422, f"{where}: {first['msg']}", errors=_plain(error.errors()))
    if isinstance(error, HTTPException):
        return Problem(error.status_code, str(error.detail), headers=dict(error.headers or {}))
    if isinstance(error, DATABASE_AWAY):
        return database_problem(error)
    if isinstance(error, IntegrityError):
        log.info("two requests changed the same record: %s", error.orig)
        return Problem(409, "another request changed the same record at the same time; load it again, and repeat")
    if isinstance(error, DataError | OverflowError):
        # SQLite's driver raises OverflowError for a number of more than 64 bits.
        log.info("a value cannot be stored: %s", getattr(error, "orig", error))
        return Problem(422, "a value cannot be stored; check texts and numbers")
    log.error("request failed", exc_info=error)
    return Problem(500, "the station failed to answer; its log has the details")


def database_problem(error: SQLAlchemyError) -> Problem:
    """Return the answer while the database is away."""
    log.warning("the database does not answer: %s", str(getattr(error, "orig", error)).strip())
    return Problem(503, "the database does not answer; send the request again later", headers={"Retry-After": "2"})


def handle_problems(app: FastAPI) -> None:
    """Answer every error of `app` with problem details."""

    async def answer(request: Request, error: Exception) -> JSONResponse:
        del request
        return problem_of(error).response()

    for kind in (
        Problem,
        HyperspotError,
        RequestValidationError,
        HTTPException,
        DBAPIError,
        PoolTimeoutError,
        OverflowError,
        Exception,
    ):
        app.add_exception_handler(kind, answer)


def _plain(errors: Any) -> list[dict[str, Any]]:
    """Return validation errors without what the client sent."""
    return [{"loc": [str(part) for part in one["loc"]], "msg": one["msg"]} for one in errors]
