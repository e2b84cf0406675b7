"""One line of the log for each request."""

import logging
import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hyperspot.service.logs import REQUEST_ID

HEADER = "X-Request-Id"
GIVEN = re.compile(r"[\w.-]{1,64}", re.ASCII)
POLLED = ("/health/", "/metrics")
"""Routes that programs ask for all the time."""
log = logging.getLogger(__name__)


class RequestLog:
    """Gives each request an id and logs it when it is answered: route, status, milliseconds and who.

    The route is the pattern, such as `/api/v1/inspections/{id}`: a path may hold the secret of a one-time link.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if GIVEN.fullmatch(given) else secrets.token_hex(8)
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        before = REQUEST_ID.set(request_id)
        began = time.perf_counter()
        try:
            await self._app(scope, receive, send_with_id)
        finally:
            route = getattr(scope.get("route"), "path", None) or "(none)"
            fields = {
                "method": scope["method"],
                "route": route,
                "status": status,
                "milliseconds": round(1000 * (time.perf_counter() - began), 1),
                "who": scope.get("hyperspot.who"),
            }
            level = logging.DEBUG if route.startswith(POLLED) and status < 400 else logging.INFO
            log.log(level, "request", extra={"fields": fields})
            REQUEST_ID.reset(before)
