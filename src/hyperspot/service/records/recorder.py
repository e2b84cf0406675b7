"""Writes inspections durably; those that wait at the same time share one transaction.

A commit waits for the disk, once for all of them. The deliveries to outputs are part of the transaction, so that none
is lost or made up.
"""

import asyncio
import logging
import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError, InterfaceError, OperationalError
from sqlalchemy.orm import Session

from hyperspot.service.database import Database
from hyperspot.service.database.tables import Delivery, Inspection, Output, StoredImage, now
from hyperspot.service.finishing import resolve
from hyperspot.service.problems import Problem, database_problem

MOST_TOGETHER = 64
FIRST_WAIT, LONGEST_WAIT = 0.1, 2.0
"""Seconds between attempts while the database is away."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NewInspection:
    """An inspection to write.

    Attributes:
        image: Columns of the table `images`.
        inspection: Columns of the table `inspections` without the number.
    """

    image: dict[str, Any]
    inspection: dict[str, Any]


class DuplicateError(Exception):
    """The idempotency key was used before; `inspection` is the one that has it."""

    def __init__(self, inspection: Inspection) -> None:
        super().__init__(inspection.id)
        self.inspection = inspection


@dataclass
class _Waiting:
    new: NewInspection
    until: float
    future: "Future[Inspection]" = field(default_factory=Future)


class Recorder:
    """One thread that writes all inspections.

    Args:
        database: Of the station.
        patience: Seconds to wait for a database that is away.
    """

    def __init__(self, database: Database, patience: float) -> None:
        self._database, self._patience = database, patience
        self._queue: queue.SimpleQueue[_Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)

    async def start(self) -> None:
        """Start to write."""
        self._thread.start()

    async def stop(self) -> None:
        """Write what waits, then end."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    async def record(self, new: NewInspection) -> Inspection:
        """Return the inspection once it is durable.

        Raises:
            DuplicateError: If its idempotency key was used before.
            Problem: 503 if the database stays away.
        """
        waiting = _Waiting(new, time.monotonic() + self._patience)
        self._queue.put(waiting)
        # Shielded: a client that leaves does not take back what is being written.
        return await asyncio.shield(asyncio.wrap_future(waiting.future))

    def _run(self) -> None:
        is_open = True
        while is_open:
            batch = []
            item = self._queue.get()
            while True:
                if item is None:
                    is_open = False
                else:
                    batch.append(item)
                if not is_open or len(batch) == MOST_TOGETHER or self._queue.empty():
                    break
                item = self._queue.get()
            if batch:
                self._write(batch)

    def _write(self, batch: list[_Waiting]) -> None:
        wait, again, refused = FIRST_WAIT, False, False
        while batch:
            try:
                with self._database.session() as session:
                    written = _insert(session, [one.new for one in batch], again=again)
            except IntegrityError as error:
                if len(batch) > 1:
                    # One of them is refused; which one, is seen by writing each by itself.
                    for one in batch:
                        self._write([one])
                    return
                # A job or a page may have stored the same image, or removed an output, at this moment.
                if refused:
                    resolve(batch[0].future, self._explain(batch[0].new, error))
                    return
                refused = True
            except (OperationalError, InterfaceError) as error:
                problem = database_problem(error)
                at = time.monotonic()
                for one in [one for one in batch if at > one.until]:
                    resolve(one.future, problem)
                batch = [one for one in batch if at <= one.until]
                again = True
                if batch:
                    time.sleep(wait)
                    wait = min(2 * wait, LONGEST_WAIT)
            except Exception as error:
                log.exception("inspections could not be recorded")
                for one in batch:
                    resolve(one.future, error)
                return
            else:
                for one, inspection in zip(batch, written, strict=True):
                    resolve(one.future, inspection)
                return

    def _explain(self, new: NewInspection, error: IntegrityError) -> Exception:
        values = new.inspection
        if values["idempotency_key"] is not None:
            try:
                with self._database.session() as session:
                    earlier = find_by_key(session, values["product_id"], values["idempotency_key"])
            except (OperationalError, InterfaceError) as away:
                # Raised here, it would end the thread that writes all inspections.
                return database_problem(away)
            if earlier is not None:
                return DuplicateError(earlier)
        log.error("an inspection was refused by the database", exc_info=error)
        return Problem(500, "the inspection could not be recorded; the station's log has the details")


def find_by_key(session: Session, product_id: str, idempotency_key: str) -> Inspection | None:
    """Return the inspection of an idempotency key, if there is one."""
    return session.scalar(
        select(Inspection).where(Inspection.product_id == product_id, Inspection.idempotency_key == idempotency_key)
    )


def _insert(session: Session, news: list[NewInspection], *, again: bool) -> list[Inspection]:
    """Write inspections in order; those that an earlier attempt wrote, whose answer was lost, are left."""
    known: dict[str, Inspection] = {}
    if again:
        ids = [new.inspection["id"] for new in news]
        known = {one.id: one for one in session.scalars(select(Inspection).where(Inspection.id.in_(ids)))}
    missing = [new for new in news if new.inspection["id"] not in known]
    _insert_images(session, [new.image for new in missing])
    added = [Inspection(**new.inspection) for new in missing]
    session.add_all(added)
    session.flush()
    outputs = session.execute(select(Output.id, Output.product_id).where(Output.is_enabled)).all()
    deliveries = [
        {"output_id": output_id, "inspection_number": one.number}
        for one in added
        for output_id, product_id in outputs
        if product_id in (None, one.product_id)
    ]
    if deliveries:
        session.execute(insert(Delivery), deliveries)
    known |= {one.id: one for one in added}
    return [known[new.inspection["id"]] for new in news]


def _insert_images(session: Session, images: list[dict[str, Any]]) -> None:
    by_digest = {values["sha256"]: values for values in images}
    # Retention counts from now, and may have removed the file of an earlier inspection of the same image.
    for stored in session.scalars(select(StoredImage).where(StoredImage.sha256.in_(by_digest))):
        stored.removed_at, stored.stored_at = None, now()
        del by_digest[stored.sha256]
    session.add_all(StoredImage(**values) for values in by_digest.values())
    session.flush()
