"""Starts the process of each job, one at a time, and follows it."""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from hyperspot.hardware.cpu import cores
from hyperspot.service.database import Database
from hyperspot.service.database.tables import Job
from hyperspot.service.events import Events
from hyperspot.service.jobs import queue
from hyperspot.service.jobs.archives import remove_old
from hyperspot.service.jobs.process import SETTINGS
from hyperspot.service.jobs.queue import Claim
from hyperspot.service.repeating import Repeating
from hyperspot.service.settings import StationSettings

POLL_SECONDS = 0.5
PROCESS = (sys.executable, "-P", "-m", "hyperspot.service.jobs.process")
"""-P: a file of the working folder that is named like a package is not run."""
KILL_SECONDS = 10.0
"""Between SIGTERM and SIGKILL."""
STALE_SECONDS = 15.0
"""Without a heartbeat for so long, a job that no station follows is started again."""
log = logging.getLogger(__name__)


@dataclass
class _Running:
    claimed: Claim
    process: "subprocess.Popen[bytes]"
    asked_at: float | None = None
    """When it was asked to end."""


class JobRunner:
    """Runs the jobs of the queue in processes of their own.

    Args:
        settings: Of the station.
        database: Of the station.
        events: Publishes `job` when its state or progress changes.
        at_once: Jobs that run at the same time.
        stale_seconds: See `STALE_SECONDS`.
    """

    def __init__(
        self,
        settings: StationSettings,
        database: Database,
        events: Events,
        *,
        at_once: int = 1,
        stale_seconds: float = STALE_SECONDS,
    ) -> None:
        self._settings, self._database, self._events = settings, database, events
        self._at_once, self._stale = at_once, stale_seconds
        self._running: dict[int, _Running] = {}
        self._shown: dict[int, dict[str, Any]] = {}
        # A process that is being started is known before the station stops.
        self._following = Repeating(self.step, POLL_SECONDS, "jobs wait")

    async def start(self) -> None:
        """Start to run jobs; those whose process is gone follow after `stale_seconds`. Old uploads are removed."""
        await asyncio.to_thread(remove_old, self._settings.data)
        await self._following.start()

    async def stop(self) -> None:
        """End the processes; their jobs go back to the queue."""
        await self._following.stop()
        await asyncio.to_thread(self._end_all)

    def notify(self) -> None:
        """Look at the queue now; called in the loop of the station."""
        self._following.notify()

    @property
    def processes(self) -> dict[int, int]:
        """Process ids of the running jobs, by the id of the job."""
        return {job_id: running.process.pid for job_id, running in self._running.items()}

    def step(self) -> None:
        """Follow the processes, and start what waits if there is room."""
        for running in list(self._running.values()):
            self._watch(running)
        with self._database.session() as session:
            for claimed in queue.abandoned(session, self._stale):
                if claimed.job_id not in self._running:
                    log.warning("job %s has no process any more", claimed.job_id)
                    queue.give_back(session, claimed, counts=True, error=_died(None))
        while len(self._running) < self._at_once:
            with self._database.session() as session:
                waits = queue.is_waiting(session)
            if not waits:
                break
            with self._database.session() as session:
                new = queue.claim(session)
            if new is None:
                break
            self._running[new.job_id] = _Running(new, self._open(new))
        self._publish()

    def _open(self, claimed: Claim) -> "subprocess.Popen[bytes]":
        threads = str(max(1, cores() - self._settings.workers * (self._settings.threads or 1)))
        environment = {
            "OMP_NUM_THREADS": threads,
            "OMP_WAIT_POLICY": "PASSIVE",
            **os.environ,
            SETTINGS: self._settings.model_dump_json(),
        }
        command = [*PROCESS, str(claimed.job_id), str(claimed.attempt)]
        # The job ends when this pipe closes, however the station ends.
        return subprocess.Popen(  # noqa: S603 - no part comes from a request but two numbers
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )

    def _watch(self, running: _Running) -> None:
        code = running.process.poll()
        if code is not None:
            self._close(running, counts=True, error=_died(code))
            return
        with self._database.session() as session:
            query = select(Job.cancel_requested).where(Job.id == running.claimed.job_id)
            is_canceled = session.scalar(query)
        if not is_canceled:
            return
        if running.asked_at is None:
            running.asked_at = time.monotonic()
            running.process.terminate()
        elif time.monotonic() - running.asked_at > KILL_SECONDS:
            running.process.kill()

    def _close(self, running: _Running, *, counts: bool, error: str) -> None:
        """Note the end of a process; if it did not write itself how its job ended, the job is tried again."""
        with self._database.session() as session:
            if queue.give_back(session, running.claimed, counts=counts, error=error):
                log.warning("job %s: %s", running.claimed.job_id, error)
        if running.process.stdin is not None:
            with contextlib.suppress(OSError):
                running.process.stdin.close()
        shutil.rmtree(self._settings.data / "jobs" / str(running.claimed.job_id), ignore_errors=True)
        del self._running[running.claimed.job_id]

    def _end_all(self) -> None:
        for running in self._running.values():
            running.process.terminate()
        for running in list(self._running.values()):
            try:
                running.process.wait(KILL_SECONDS)
            except subprocess.TimeoutExpired:
                running.process.kill()
                running.process.wait()
            try:
                self._close(running, counts=False, error="the station stopped")
            except SQLAlchemyError as error:
                # It is started again when its heartbeat is old.
                log.warning("job %s could not be put back: %s", running.claimed.job_id, error)
                if running.process.stdin is not None:
                    running.process.stdin.close()

    def _publish(self) -> None:
        """Publish the jobs that changed."""
        with self._database.session() as session:
            ids = [*self._shown, *self._running]
            query = select(Job).where(Job.id.in_(ids) | Job.state.in_(queue.OPEN)).order_by(Job.id)
            jobs = [queue.describe(job) for job in session.scalars(query)]
        for job in jobs:
            if self._shown.get(job["id"]) != job:
                self._events.publish("job", job)
        self._shown = {job["id"]: job for job in jobs if job["state"] in queue.OPEN}


def _died(code: int | None) -> str:
    """Return one sentence about a process that ended without a result."""
    if code is not None and code < 0:
        name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
        how = f"was ended by {name}"
        mend = "; check the memory of the machine" if name == "SIGKILL" else ""
        return f"the process of the job {how} {queue.MOST_ATTEMPTS} times{mend}"
    return f"the process of the job ended {queue.MOST_ATTEMPTS} times without a result; check the station's log"
