"""What every request passes before any route: host, origin and size; and headers of every answer."""

import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hyperspot.service.access.guard import FORMS, SAFE
from hyperspot.service.problems import Problem, problem_of
from hyperspot.service.settings import StationSettings

MOST_IN_MEMORY = 20_000_000
"""Bytes of a body that is read into memory before its route sees it."""
READ_INTO_MEMORY = (FORMS[0], "application/json")
HEADERS = {
    # No inline script or style: text that gets into a page stays text.
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Not `no-referrer`: with it browsers send `Origin: null` with the forms of the station itself.
    "Referrer-Policy": "same-origin",
}
NOT_STORED = ("text/html", "application/json", "application/problem+json")


class Gate:
    """Refuses requests to foreign host names, from foreign pages, and with bodies that are too large.

    Args:
        app: Answers what passes.
        settings: Of the station.
    """

    def __init__(self, app: ASGIApp, settings: StationSettings) -> None:
        self._app, self._most = app, settings.max_upload
        self._hosts = frozenset(_own_names(settings))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = False

        async def send_with_headers(message: Message) -> None:
            nonlocal began
            if message["type"] == "http.response.start":
                began = True
                _add_headers(MutableHeaders(scope=message))
            await send(message)

        try:
            headers = Headers(scope=scope)
            self._check_host(headers)
            _check_origin(scope["method"], headers)
            await self._app(scope, self._limited(headers, receive), send_with_headers)
        except Exception as error:
            if began:
                raise
            await problem_of(error).response()(scope, receive, send_with_headers)

    def _check_host(self, headers: Headers) -> None:
        """A page elsewhere can point its own name at the station (DNS rebinding); its requests carry that name."""
        host = headers.get("host", "")
        name = _name_of(host)
        if name not in self._hosts and not _is_number(name):
            raise Problem(
                400, f"'{host[:100]}' is not a name of this station; start it with --allowed-host and the name"
            )

    def _limited(self, headers: Headers, receive: Receive) -> Receive:
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        most = min(self._most, MOST_IN_MEMORY) if kind in READ_INTO_MEMORY else self._most
        declared = headers.get("content-length", "0")
        if not (declared.isascii() and declared.isdigit()):
            raise Problem(400, "the length of the content is no number")
        if int(declared) > most:
            raise _too_large(most)
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > most:
                # An HTTPException passes FastAPI's reading of bodies.
                raise _too_large(most)
            return message

        return limited


def _too_large(most: int) -> HTTPException:
    return HTTPException(413, f"the request has more than {most:,} bytes; send less, or raise --max-upload-mb")


def _check_origin(method: str, headers: Headers) -> None:
    """Refuse changes by pages of other origins; a token is never sent by a browser on its own."""
    if method in SAFE or "authorization" in headers:
        return
    origin = headers.get("origin")
    if origin is None:
        # No browser, or an old one; sessions need their CSRF token all the same.
        is_foreign = headers.get("sec-fetch-site", "none") not in ("none", "same-origin")
    else:
        is_foreign = urlsplit(origin).netloc.lower() != headers.get("host", "").lower()
    if is_foreign:
        raise Problem(403, "the request comes from a page of another origin; use the pages of the station, or a token")


def _add_headers(headers: MutableHeaders) -> None:
    for name, value in HEADERS.items():
        headers.setdefault(name, value)
    if headers.get("content-type", "").partition(";")[0] in NOT_STORED:
        headers.setdefault("Cache-Control", "no-store")


def _own_names(settings: StationSettings) -> Iterable[str]:
    yield from ("localhost", socket.gethostname().lower(), settings.host.lower())
    yield from (name.lower() for name in settings.allowed_hosts)


def _name_of(host: str) -> str:
    """Return the name in a Host header, without the port.

    Examples:
        >>> _name_of("Station.plant:8765"), _name_of("[::1]:8765"), _name_of("")
        ('station.plant', '::1', '')

    """
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower().rstrip(".")


def _is_number(name: str) -> bool:
    """Whether a name is an IP address, which nobody can point elsewhere."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
