"""The page on which people sign in, the one-time link, and signing out."""

import logging
from typing import Annotated

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response

from hyperspot.service.access import sessions
from hyperspot.service.access.guard import Operator
from hyperspot.service.access.links import use_link
from hyperspot.service.access.sign_in import Attempts, address_of, check_sign_in
from hyperspot.service.pages.rendering import public_page, within
from hyperspot.service.problems import Problem
from hyperspot.service.station import Station

router = APIRouter(include_in_schema=False)
log = logging.getLogger(__name__)


@router.get("/sign-in")
def sign_in_page(request: Request, next: Annotated[str, "where to go then"] = "/") -> HTMLResponse:  # noqa: A002 - the usual name
    """Show the form."""
    return _page(request, next)


@router.post("/sign-in")
def sign_in(
    request: Request,
    name: Annotated[str, Form(max_length=100)],
    password: Annotated[str, Form(max_length=200)],
    next: Annotated[str, Form(max_length=2000)] = "/",  # noqa: A002 - as above
) -> Response:
    """Sign in by name and password."""
    station: Station = request.app.state.station
    attempts: Attempts = request.app.state.attempts
    address = address_of(request)
    try:
        attempts.begin(name, address)
    except Problem as problem:
        log.warning("too many attempts to sign in from %s", address)
        return _page(request, next, name, "wait", problem.status, problem.headers)
    with station.database.session() as session:
        user = check_sign_in(session, name, password)
        if user is not None:
            secret = sessions.start_session(session, user, request.cookies.get(sessions.COOKIE))
    if user is None:
        # Without the name: people type passwords there.
        log.warning("a sign-in failed from %s", address)
        return _page(request, next, name, "wrong", 401)
    attempts.succeed(name, address)
    return _signed_in(secret, within(next), station)


@router.get("/sign-in/link/{secret}")
def sign_in_by_link(request: Request, secret: str) -> Response:
    """Sign in by a link that works once."""
    station: Station = request.app.state.station
    with station.database.session() as session:
        user = use_link(session, secret)
        started = None if user is None else sessions.start_session(session, user, request.cookies.get(sessions.COOKIE))
    if started is None:
        return _page(request, "/", message="link", status=401)
    return _signed_in(started, "/", station)


@router.post("/sign-out")
def sign_out(request: Request, who: Operator) -> Response:
    """End the session."""
    del who
    station: Station = request.app.state.station
    with station.database.session() as session:
        sessions.end_session(session, request.cookies.get(sessions.COOKIE, ""))
    response = RedirectResponse("/sign-in", 303)
    sessions.delete_cookie(response, station.settings)
    return response


def _signed_in(secret: str, address: str, station: Station) -> Response:
    response = RedirectResponse(address, 303)
    sessions.set_cookie(response, secret, station.settings)
    return response


def _page(
    request: Request,
    wanted: str,
    name: str = "",
    message: str = "",
    status: int = 200,
    headers: dict[str, str] | None = None,
) -> HTMLResponse:
    """Return the form.

    Args:
        request: Of the browser.
        wanted: The page to go to then.
        name: As it was typed.
        message: `wrong`, `wait`, `link`, or nothing.
        status: HTTP status.
        headers: Of the answer.
    """
    content = public_page(request, "sign_in.html", next=within(wanted), name=name, message=message)
    return HTMLResponse(content, status, headers)
