"""All outputs of a station: they deliver verdicts in order, and keep them while a receiver is away."""

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from sqlalchemy import delete, func, select, update

from hyperspot.service.backoff import Backoff
from hyperspot.service.database import Database
from hyperspot.service.database.tables import Delivery, Inspection, now
from hyperspot.service.database.tables import Output as OutputRow
from hyperspot.service.events import Events
from hyperspot.service.explaining import explain, log_failure
from hyperspot.service.finishing import in_thread
from hyperspot.service.lasting_faults import LastingFault
from hyperspot.service.outputs.base import Output, OutputContext, OutputError, Payload, RefusedError, Trigger
from hyperspot.service.outputs.registry import OUTPUTS
from hyperspot.service.records.summary import summary_of

ALARM_AFTER = 300.0
"""Seconds that verdicts wait for a receiver before an alarm."""
AT_ONCE = 32
"""Verdicts read together; they are sent one by one."""
POLL_SECONDS = 1.0
"""Another process may have written deliveries."""
SEND_SECONDS = 60.0
REFUSALS = 5
"""Times that a verdict is sent to a receiver that refuses it before it is set aside."""
State = Literal["stopped", "starting", "running", "failing"]
log = logging.getLogger(__name__)


@dataclass
class _Running:
    """An output that is enabled."""

    row: OutputRow
    fault: LastingFault
    wake: asyncio.Event
    task: "asyncio.Task[None] | None" = None
    state: State = "starting"
    delivered: int = 0
    last_delivery_at: datetime | None = None
    last_error: str | None = None
    last_error_at: datetime | None = None


@dataclass(frozen=True)
class _Next:
    """A verdict to send."""

    id: int
    attempts: int
    payload: Payload


class Outputs:
    """Delivers the rows of the table `deliveries` for the enabled outputs of the table `outputs`.

    Each verdict is sent at least once. Those of one output are sent in the order of their records; if one does not
    arrive, the later ones wait.

    Args:
        database: Of the station.
        events: Get an event `output` when the state of an output changes.
        trigger: `Sources.trigger`, for outputs to a PLC.
        first_wait: Seconds before a verdict is sent again; doubled each time, up to a minute.
        alarm_after: Seconds that verdicts wait for a receiver before an alarm.
    """

    def __init__(
        self,
        database: Database,
        events: Events,
        trigger: Trigger,
        *,
        first_wait: float = 0.5,
        alarm_after: float = ALARM_AFTER,
    ) -> None:
        self._database, self._events, self._trigger = database, events, trigger
        self._first_wait, self._alarm_after = first_wait, alarm_after
        self._outputs: dict[str, _Running] = {}
        self._changing = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start all enabled outputs; one with wrong settings is shown as failing and disturbs no other."""
        self._loop = asyncio.get_running_loop()
        async with self._changing:
            for row in await in_thread(self._rows):
                self._begin(row)
        self._following = asyncio.create_task(self._follow(), name="outputs")

    async def stop(self) -> None:
        """Stop all outputs; what waits is delivered after the next start."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.wait([self._following])
        async with self._changing:
            await asyncio.gather(*(self._end(name) for name in list(self._outputs)))

    async def reload(self, name: str) -> None:
        """Start, restart or stop an output after its row changed or went."""
        async with self._changing:
            await self._end(name)
            for row in await in_thread(self._rows, name):
                self._begin(row)

    def notify(self) -> None:
        """Deliver now; from any thread, after deliveries were written."""
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._wake)

    async def _follow(self) -> None:
        """Deliver when an inspection was recorded."""
        async with self._events.follow() as events:
            async for event in events:
                if event.kind == "inspection":
                    self._wake()

    def _wake(self) -> None:
        for running in self._outputs.values():
            running.wake.set()

    def status(self) -> dict[str, dict[str, Any]]:
        """Return the status of each enabled output, by name; reads the database.

        `waiting` verdicts are sent next, `refused` ones were set aside.
        """
        refused = func.count(Delivery.refused_at)
        query = select(Delivery.output_id, func.count() - refused, refused).group_by(Delivery.output_id)
        with self._database.session() as session:
            counts = {output_id: (waiting, set_aside) for output_id, waiting, set_aside in session.execute(query)}
        result = {}
        for name, running in list(self._outputs.items()):
            waiting, set_aside = counts.get(running.row.id, (0, 0))
            times = {key: getattr(running, key) for key in ("last_delivery_at", "last_error_at")}
            result[name] = {
                "kind": running.row.kind,
                "state": running.state,
                "waiting": waiting,
                "refused": set_aside,
                "delivered": running.delivered,
                "last_error": running.last_error,
                **{key: None if at is None else at.isoformat() for key, at in times.items()},
            }
        return result

    async def retry_refused(self, name: str) -> None:
        """Send the verdicts that were set aside again."""
        await in_thread(self._unset_refused, name)
        self._wake()

    def _unset_refused(self, name: str) -> None:
        output = select(OutputRow.id).where(OutputRow.name == name).scalar_subquery()
        refused = update(Delivery).where(Delivery.output_id == output, Delivery.refused_at.is_not(None))
        with self._database.session() as session:
            session.execute(refused.values(refused_at=None, attempts=0))

    def _rows(self, name: str | None = None) -> list[OutputRow]:
        query = select(OutputRow).where(OutputRow.is_enabled).order_by(OutputRow.id)
        with self._database.session() as session:
            return list(session.scalars(query if name is None else query.where(OutputRow.name == name)))

    def _begin(self, row: OutputRow) -> None:
        fault = LastingFault(self._database, self._events, "output", row.name, row.product_id, after=self._alarm_after)
        running = _Running(row, fault, asyncio.Event())
        self._outputs[row.name] = running
        running.task = asyncio.create_task(self._run(running), name=f"output {row.name}")

    async def _end(self, name: str) -> None:
        running = self._outputs.pop(name, None)
        if running is not None and running.task is not None:
            running.task.cancel()
            await asyncio.wait([running.task])

    async def _run(self, running: _Running) -> None:
        """Run an output, again after each failure."""
        backoff = Backoff(self._first_wait)
        while True:
            try:
                await self._run_once(running, backoff)
            except Exception as error:  # noqa: BLE001 - an output may be foreign code, and disturbs no other
                log_failure(log, f"output '{running.row.name}'", error)
                message = explain(error)
            running.last_error, running.last_error_at = message, now()
            self._set_state(running, "failing")
            await running.fault.note(message)
            await asyncio.sleep(backoff.next())

    async def _run_once(self, running: _Running, backoff: Backoff) -> None:
        """Open an output and deliver until something fails; it is closed in any case."""
        kind = OUTPUTS.find(running.row.kind)
        settings = kind.form.read(running.row.settings)
        context = OutputContext(running.row.name, running.row.product_id, self._database, self._trigger)
        output = kind(settings, context)
        try:
            await output.open()
            if not await in_thread(self._next, running.row.id):
                self._works(running, backoff)
            await self._first_to_end(self._deliver(running, output, backoff), output.run())
        finally:
            await output.close()

    async def _first_to_end(self, *works: Any) -> None:
        tasks = [asyncio.ensure_future(work) for work in works]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
        for task in done:
            task.result()
        raise OutputError("it ended by itself; it is started again")

    async def _deliver(self, running: _Running, output: Output, backoff: Backoff) -> None:
        while True:
            running.wake.clear()
            waiting = await in_thread(self._next, running.row.id)
            if waiting:
                await self._send_all(running, output, waiting, backoff)
            else:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_SECONDS):
                        await running.wake.wait()

    async def _send_all(self, running: _Running, output: Output, waiting: list[_Next], backoff: Backoff) -> None:
        """Send in order; those that arrived are removed together, as each removal waits for the disk."""
        arrived: list[int] = []
        try:
            for one in waiting:
                try:
                    async with asyncio.timeout(SEND_SECONDS):
                        await output.send(_with_address(one.payload, output.settings.station_address))
                except TimeoutError:
                    error = OutputError(f"the receiver has not answered for {SEND_SECONDS:g} seconds")
                    await in_thread(self._note_failure, one.id, str(error), False)
                    raise error from None
                except Exception as error:
                    set_aside = (
                        isinstance(error, RefusedError)
                        and output.settings.skip_refused
                        and one.attempts + 1 >= REFUSALS
                    )
                    await in_thread(self._note_failure, one.id, explain(error), set_aside)
                    if not set_aside:
                        raise
                    await running.fault.raise_alarm(
                        f"output '{running.row.name}' set the verdict {one.payload['id']} aside: {error}"
                    )
                else:
                    arrived.append(one.id)
                    running.delivered += 1
                    running.last_delivery_at = now()
                    self._works(running, backoff)
        finally:
            if arrived:
                await in_thread(self._remove, arrived)

    def _next(self, output_id: int) -> list[_Next]:
        query = (
            select(Delivery.id, Delivery.attempts, Inspection)
            .join(Inspection, Inspection.number == Delivery.inspection_number)
            .where(Delivery.output_id == output_id, Delivery.refused_at.is_(None))
            .order_by(Delivery.id)
            .limit(AT_ONCE)
        )
        with self._database.session() as session:
            return [
                _Next(one, attempts, summary_of(inspection)) for one, attempts, inspection in session.execute(query)
            ]

    def _remove(self, ids: list[int]) -> None:
        with self._database.session() as session:
            session.execute(delete(Delivery).where(Delivery.id.in_(ids)))

    def _note_failure(self, delivery_id: int, error: str, set_aside: bool) -> None:
        values = {"attempts": Delivery.attempts + 1, "last_error": error, "refused_at": now() if set_aside else None}
        with self._database.session() as session:
            session.execute(update(Delivery).where(Delivery.id == delivery_id).values(values))

    def _works(self, running: _Running, backoff: Backoff) -> None:
        backoff.reset()
        running.fault.over()
        self._set_state(running, "running")

    def _set_state(self, running: _Running, state: State) -> None:
        if running.state != state:
            running.state = state
            data = {"name": running.row.name, "state": state, "last_error": running.last_error}
            self._events.publish("output", data)


def _with_address(payload: Payload, address: str | None) -> Payload:
    """Return a payload whose links begin with the address of the station."""
    if address is None:
        return payload
    return payload | {"links": {name: address + path for name, path in payload["links"].items()}}
