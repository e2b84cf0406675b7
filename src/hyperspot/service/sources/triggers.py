"""Requests for one image each, answered with its inspection."""

import asyncio
import contextlib
import uuid
from dataclasses import dataclass

from hyperspot.service.database.tables import Inspection
from hyperspot.service.problems import Problem
from hyperspot.service.sources.base import Capture, Inspect

MOST_WAITING = 16


@dataclass(frozen=True)
class Trigger:
    """A request for one image.

    Attributes:
        serial_number: Of the part.
        product_id: Whose model inspects; None: the product of the source.
        answer: Gets the inspection, or a Problem.
    """

    serial_number: str | None
    product_id: str | None
    answer: "asyncio.Future[Inspection]"


class Triggers:
    """The triggers of one source, in order."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[Trigger] = asyncio.Queue(MOST_WAITING)
        self._closed: str | None = None

    async def ask(self, serial_number: str | None, product_id: str | None) -> Inspection:
        """Ask for an image and return its inspection; raises Problem."""
        if self._closed is not None:
            raise Problem(503, self._closed)
        if self._waiting.full():
            raise Problem(429, "too many triggers wait for this source; trigger it less often")
        trigger = Trigger(serial_number, product_id, asyncio.get_running_loop().create_future())
        self._waiting.put_nowait(trigger)
        return await trigger.answer

    async def next(self, seconds: float | None = None) -> Trigger | None:
        """Return the next trigger whose sender still waits; None if there is none for some seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    trigger = await self._waiting.get()
                    if not trigger.answer.done():
                        return trigger
        return None

    def close(self, reason: str) -> None:
        """Answer all that wait, and all that come, with a Problem 503."""
        self._closed = reason
        while not self._waiting.empty():
            refuse(self._waiting.get_nowait(), Problem(503, reason))


def refuse(trigger: Trigger, problem: Problem) -> None:
    """Answer a trigger with a problem."""
    if not trigger.answer.done():
        trigger.answer.set_exception(problem)


async def inspect_triggered(inspect: Inspect, trigger: Trigger, image: bytes) -> None:
    """Inspect the image of a trigger and answer it; a problem is for its sender and not for the source."""
    try:
        inspection = await inspect(
            Capture(image, trigger.serial_number, trigger.product_id, idempotency_key=uuid.uuid4().hex)
        )
    except Problem as problem:
        refuse(trigger, problem)
    else:
        if not trigger.answer.done():
            trigger.answer.set_result(inspection)
