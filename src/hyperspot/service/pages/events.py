"""Events of the station for browsers, as server-sent events."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from hyperspot.service.access.guard import identify
from hyperspot.service.access.identity import Identity
from hyperspot.service.api.dependencies import StationDep
from hyperspot.service.events import Event
from hyperspot.service.pages.dependencies import Operator
from hyperspot.service.station import Station

HEARTBEAT = 15.0
"""Seconds; a proxy closes connections that are silent for long."""
RECONNECT = 2000
"""Milliseconds after which a browser connects again."""
router = APIRouter(include_in_schema=False)


@router.get("/events")
async def events(request: Request, who: Operator, here: StationDep, product: str | None = None) -> StreamingResponse:
    """Follow what happens, of one product or of all, until the session ends."""
    content = follow(request, who, here, product)
    return StreamingResponse(content, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def follow(request: Request, who: Identity, here: Station, product: str | None) -> AsyncIterator[bytes]:
    """Yield the stream of a browser."""
    yield f"retry: {RECONNECT}\n\n".encode()
    async with here.events.follow() as followed:
        waiting = asyncio.ensure_future(anext(followed))
        checked = time.monotonic()
        try:
            while True:
                done, _ = await asyncio.wait({waiting}, timeout=HEARTBEAT)
                if time.monotonic() - checked >= HEARTBEAT:
                    if await asyncio.to_thread(identify, request) != who:
                        return
                    checked = time.monotonic()
                if not done:
                    yield b": heartbeat\n\n"
                    continue
                event = waiting.result()
                if event.kind == "stop":
                    return
                waiting = asyncio.ensure_future(anext(followed))
                if product in (None, event.data.get("product", product)):
                    yield encoded(event)
        finally:
            waiting.cancel()


def encoded(event: Event) -> bytes:
    """Return an event as browsers read it.

    Examples:
        >>> from hyperspot.service.events import Event
        >>> from hyperspot.service.pages.events import encoded
        >>> encoded(Event("alarm", {"id": 1}))
        b'event: alarm\\ndata: {"id": 1}\\n\\n'

    """
    return f"event: {event.kind}\ndata: {json.dumps(event.data)}\n\n".encode()
