"""What a route demands of who calls it."""

import hmac
from collections.abc import Awaitable, Callable
from typing import Annotated
from urllib.parse import quote

from fastapi import Depends, Request
from fastapi.security import APIKeyCookie, HTTPBearer
from fastapi.security.http import HTTPAuthorizationCredentials
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from hyperspot.service.access.identity import Identity, Role
from hyperspot.service.access.sessions import COOKIE, identity_of_session
from hyperspot.service.access.tokens import identity_of_token
from hyperspot.service.database import Database
from hyperspot.service.problems import DATABASE_AWAY, Problem, database_problem

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""
CSRF_HEADER, CSRF_FIELD = "X-CSRF-Token", "csrf_token"
FORMS = ("application/x-www-form-urlencoded", "multipart/form-data")

# They only describe in OpenAPI what `identify` reads.
_bearer = HTTPBearer(auto_error=False, scheme_name="token", description="An API token, `hsp_...`.")
_cookie = APIKeyCookie(name=COOKIE, auto_error=False, scheme_name="session")
Documented = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
DocumentedCookie = Annotated[str | None, Depends(_cookie)]


def identify(request: Request) -> Identity | None:
    """Return who sends a request: by its token, else by its session; None if by neither. Reads the database."""
    database: Database = request.app.state.station.database
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    secret = request.cookies.get(COOKIE)
    try:
        if scheme:
            return identity_of_token(database, token.strip()) if scheme.lower() == "bearer" else None
        return identity_of_session(database, secret) if secret else None
    except DATABASE_AWAY as error:
        raise database_problem(error) from None


def require(role: Role) -> Callable[..., Awaitable[Identity]]:
    """Return a dependency: who sends the request, if allowed.

    It raises Problem 401 without a sign-in, and 403 without the role, or if a session changes something without its
    CSRF token in the header `X-CSRF-Token` or the form field `csrf_token`.
    """

    async def identity(request: Request, token: Documented, cookie: DocumentedCookie) -> Identity:
        del token, cookie
        who = await run_in_threadpool(identify, request)
        if who is None:
            raise Problem(
                401,
                "sign in, or send a valid token as `Authorization: Bearer hsp_...`",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return await _allowed(request, who, role)

    return identity


def require_page(role: Role) -> Callable[..., Awaitable[Identity]]:
    """Return a dependency as `require` does; a browser without a session is led to the sign-in instead."""

    async def identity(request: Request) -> Identity:
        who = await run_in_threadpool(identify, request)
        if who is None:
            raise _to_sign_in(request)
        return await _allowed(request, who, role)

    return identity


async def _allowed(request: Request, who: Identity, role: Role) -> Identity:
    request.scope["hyperspot.who"] = who.name
    if not who.may(role):
        raise Problem(403, f"this takes the role {role}, and '{who.name}' has the role {who.role}; ask an admin")
    if who.kind == "session" and request.method not in SAFE:
        await _check_csrf(request, who)
    return who


async def _check_csrf(request: Request, who: Identity) -> None:
    sent: object = request.headers.get(CSRF_HEADER)
    if sent is None and request.headers.get("Content-Type", "").partition(";")[0].strip().lower() in FORMS:
        sent = (await request.form()).get(CSRF_FIELD)
    if not isinstance(sent, str) or not hmac.compare_digest(sent.encode(), who.csrf_token.encode()):
        # Files of the form, which no route will close.
        await request.close()
        raise Problem(403, "the request lacks the CSRF token of the session; load the page again")


def _to_sign_in(request: Request) -> HTTPException:
    wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    address = f"/sign-in?next={quote(wanted if request.method == 'GET' else '/', safe='')}"
    if request.headers.get("HX-Request"):
        # HTMX would follow a redirect and put the sign-in into the page.
        return HTTPException(401, "sign in", {"HX-Redirect": address})
    return HTTPException(303, "sign in", {"Location": address})


Operator = Annotated[Identity, Depends(require("operator"))]
Engineer = Annotated[Identity, Depends(require("engineer"))]
Admin = Annotated[Identity, Depends(require("admin"))]
