"""What happens in the station, for those who follow it live: pages by server-sent events, and software triggers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

MOST_WAITING = 256
"""Events that a slow follower may lag behind; then it loses the oldest."""


@dataclass(frozen=True)
class Event:
    """Something that happened.

    Attributes:
        kind: `inspection`, `job`, `alarm`, `version`, `source` or `output`; `stop` when the station is told to stop,
            which ends the streams of browsers.
        data: JSON values; of an inspection its summary.
    """

    kind: str
    data: dict[str, Any]


class Events:
    """Hands each event to all followers; publishing never waits, from any thread.

    Examples:
        >>> import asyncio
        >>> from hyperspot.service.events import Events
        >>> async def main():
        ...     events = Events()
        ...     async with events.follow() as followed:
        ...         events.publish("alarm", {"id": 1})
        ...         async for event in followed:
        ...             return event.kind
        >>> asyncio.run(main())
        'alarm'

    """

    def __init__(self) -> None:
        self._followers: dict[asyncio.Queue[Event], asyncio.AbstractEventLoop] = {}

    def publish(self, kind: str, data: dict[str, Any]) -> None:
        """Hand an event to all who follow."""
        for queue, loop in list(self._followers.items()):
            try:
                loop.call_soon_threadsafe(_put, queue, Event(kind, data))
            except RuntimeError:
                # Its loop ended without leaving `follow`.
                self._followers.pop(queue, None)

    @asynccontextmanager
    async def follow(self) -> AsyncIterator[AsyncIterator[Event]]:
        """Receive all events from now on."""
        queue: asyncio.Queue[Event] = asyncio.Queue(MOST_WAITING)
        self._followers[queue] = asyncio.get_running_loop()
        try:
            yield _taken(queue)
        finally:
            self._followers.pop(queue, None)


def _put(queue: "asyncio.Queue[Event]", event: Event) -> None:
    if queue.full():
        queue.get_nowait()
    queue.put_nowait(event)


async def _taken(queue: "asyncio.Queue[Event]") -> AsyncIterator[Event]:
    while True:
        yield await queue.get()
