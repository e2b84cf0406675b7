"""All sources of a station: they run beside each other, and one that fails is started again."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from hyperspot.service.backoff import Backoff
from hyperspot.service.database import Database
from hyperspot.service.database.tables import Inspection, now
from hyperspot.service.database.tables import Source as SourceRow
from hyperspot.service.events import Events
from hyperspot.service.explaining import explain, log_failure
from hyperspot.service.finishing import finish, in_thread
from hyperspot.service.inspecting import InspectionRequest
from hyperspot.service.lasting_faults import LastingFault
from hyperspot.service.problems import Problem
from hyperspot.service.sources.base import Capture, Source, SourceContext, SourceStatus
from hyperspot.service.sources.registry import SOURCES

ALARM_AFTER = 300.0
"""Seconds that a source fails before an alarm."""
SETTLED = 60.0
"""Seconds that a source runs before it counts as working again, if it inspects no image sooner."""
log = logging.getLogger(__name__)


@dataclass
class _Running:
    """A source that is enabled."""

    row: SourceRow
    status: SourceStatus
    fault: LastingFault
    task: "asyncio.Task[None] | None" = None
    source: Source | None = None


class Sources:
    """Runs the enabled sources of the table `sources`.

    Args:
        database: Of the station.
        events: Get an event `source` when the state of a source changes.
        inspect: `Inspector.inspect`.
        first_wait: Seconds before a failed source is started again; doubled each time, up to a minute.
        alarm_after: Seconds that a source fails before an alarm.
    """

    def __init__(
        self,
        database: Database,
        events: Events,
        inspect: Callable[[InspectionRequest], Awaitable[Inspection]],
        *,
        first_wait: float = 1.0,
        alarm_after: float = ALARM_AFTER,
    ) -> None:
        self._database, self._events, self._inspect = database, events, inspect
        self._first_wait, self._alarm_after = first_wait, alarm_after
        self._sources: dict[str, _Running] = {}
        self._changing = asyncio.Lock()

    async def start(self) -> None:
        """Start all enabled sources; one with wrong settings is shown as failing and disturbs no other."""
        async with self._changing:
            for row in await in_thread(self._rows):
                self._begin(row)

    async def stop(self) -> None:
        """Stop all sources; images in inspection are finished."""
        async with self._changing:
            await asyncio.gather(*(self._end(name) for name in list(self._sources)))

    async def reload(self, name: str) -> None:
        """Start, restart or stop a source after its row changed or went."""
        async with self._changing:
            await self._end(name)
            for row in await in_thread(self._rows, name):
                self._begin(row)

    def status(self) -> dict[str, dict[str, Any]]:
        """Return `SourceStatus.to_dict()` of each enabled source by name."""
        return {name: running.status.to_dict() for name, running in list(self._sources.items())}

    async def trigger(self, name: str, serial_number: str | None = None, product_id: str | None = None) -> Inspection:
        """Have a source take one image and return its inspection.

        Args:
            name: Of the source.
            serial_number: Of the part.
            product_id: Whose model inspects; default: the product of the source.

        Raises:
            Problem: 404 without such an enabled source, 409 if it takes no images on request, 503 if it is failing,
                and what the inspection raises.
        """
        running = self._sources.get(name)
        if running is None:
            raise Problem(404, f"there is no enabled source '{name}'; add or enable it first")
        if running.source is None:
            raise Problem(503, f"source '{name}' is not ready: {running.status.last_error or 'it is starting'}")
        return await running.source.trigger(serial_number, product_id)

    def _rows(self, name: str | None = None) -> list[SourceRow]:
        query = select(SourceRow).where(SourceRow.is_enabled).order_by(SourceRow.id)
        with self._database.session() as session:
            return list(session.scalars(query if name is None else query.where(SourceRow.name == name)))

    def _begin(self, row: SourceRow) -> None:
        fault = LastingFault(self._database, self._events, "source", row.name, row.product_id, after=self._alarm_after)
        running = _Running(row, SourceStatus(row.kind), fault)
        self._sources[row.name] = running
        running.task = asyncio.create_task(self._run(running), name=f"source {row.name}")

    async def _end(self, name: str) -> None:
        running = self._sources.pop(name, None)
        if running is None or running.task is None:
            return
        running.task.cancel()
        await asyncio.wait([running.task])

    async def _run(self, running: _Running) -> None:
        """Run a source, again after each failure."""
        backoff = Backoff(self._first_wait)
        while True:
            settled = asyncio.get_running_loop().call_later(SETTLED, self._works, running, backoff)
            try:
                await self._run_once(running, backoff)
            except Exception as error:  # noqa: BLE001 - a source may be foreign code, and disturbs no other
                log_failure(log, f"source '{running.row.name}'", error)
                message = explain(error)
            else:
                self._set_state(running, "ended")
                return
            finally:
                settled.cancel()
                running.source = None
            running.status.note_error(message)
            self._set_state(running, "failing")
            await running.fault.note(message)
            await asyncio.sleep(backoff.next())

    async def _run_once(self, running: _Running, backoff: Backoff) -> None:
        row, status = running.row, running.status
        kind = SOURCES.find(row.kind)
        context = SourceContext(
            row.id, row.name, self._database, status, ready=lambda: self._set_state(running, "running")
        )
        source = kind(kind.form.read(row.settings), context)
        status.can_trigger = kind.can_trigger

        async def inspect(capture: Capture) -> Inspection:
            request = InspectionRequest(
                capture.product_id or row.product_id,
                capture.image,
                source=row.name,
                serial_number=capture.serial_number,
                idempotency_key=capture.idempotency_key,
                received_at=capture.received_at,
            )
            inspection = await finish(self._inspect(request))
            status.images += 1
            status.last_image_at = now()
            self._works(running, backoff)
            return inspection

        if status.state != "failing":
            self._set_state(running, "starting")
        running.source = source
        await source.run(inspect)

    def _works(self, running: _Running, backoff: Backoff) -> None:
        backoff.reset()
        running.fault.over()

    def _set_state(self, running: _Running, state: Any) -> None:
        if running.status.state != state:
            running.status.state = state
            self._events.publish("source", {"name": running.row.name, **running.status.to_dict()})
