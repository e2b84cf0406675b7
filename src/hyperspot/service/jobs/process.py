"""The process of a job: `python -m hyperspot.service.jobs.process JOB ATTEMPT`.

It needs the database and the files, not the station, but it ends when the station is gone: its standard input closes.
The settings come by the environment, since a command line is seen by all users of the machine.
"""

import logging
import os
import shutil
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session

from hyperspot.errors import HyperspotError
from hyperspot.service import logs
from hyperspot.service.database import Database
from hyperspot.service.database.tables import Job
from hyperspot.service.jobs import queue
from hyperspot.service.jobs.base import Finish, JobContext
from hyperspot.service.jobs.kinds import KINDS
from hyperspot.service.jobs.progress import JobProgress
from hyperspot.service.jobs.queue import Claim
from hyperspot.service.problems import Problem
from hyperspot.service.products.models import ModelStore
from hyperspot.service.records.image_store import ImageStore
from hyperspot.service.settings import StationSettings

SETTINGS = "HYPERSPOT_STATION_SETTINGS"
"""The environment variable that holds `StationSettings` as JSON."""
NICENESS = 10
"""Inspections come first."""
BEAT_SECONDS = 1.0
PATIENCE = 300.0
"""Seconds to wait for a database that is away, at the end of the work."""
SUPERSEDED = 3
"""Exit code of a process whose attempt no longer counts."""
log = logging.getLogger(__name__)


class SupersededError(Exception):
    """The attempt no longer counts; nothing is written."""


def main(job_id: int, attempt: int) -> int:
    """Run one attempt of a job and return the exit code."""
    settings = StationSettings.model_validate_json(os.environ[SETTINGS])
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    database = Database(settings.database_address)
    claimed, progress = Claim(job_id, attempt), JobProgress()
    beating = threading.Event()
    heart = threading.Thread(target=_beat, args=(database, claimed, progress, beating), daemon=True)
    heart.start()
    try:
        with database.session() as session:
            job = queue.get_job(session, job_id)
        _work(job, claimed, settings, database, progress)
    except SupersededError:
        return SUPERSEDED
    finally:
        beating.set()
        heart.join()
        database.close()
    return 0


def _work(job: Job, claimed: Claim, settings: StationSettings, database: Database, progress: JobProgress) -> None:
    """Run a job and write how it ended."""
    heard: list[str] = []
    try:
        with warnings.catch_warnings(record=True) as caught, _folder(settings, job.id) as folder:
            warnings.simplefilter("default")
            context = JobContext(
                job_id=job.id,
                product_id=job.product_id or "",
                who=job.created_by,
                parameters=KINDS[job.kind].parameters.model_validate(job.parameters),
                settings=settings,
                database=database,
                images=ImageStore(settings.data),
                models=ModelStore(settings.data / "models"),
                progress=progress,
                folder=folder,
            )
            ended = KINDS[job.kind].run(context)
            heard = list(dict.fromkeys(str(one.message) for one in caught if one.category.__module__ == _OURS))
            _write(database, claimed, lambda session: _done(session, claimed, ended, heard))
    except SupersededError:
        raise
    except (Problem, HyperspotError) as error:
        sentence = error.detail if isinstance(error, Problem) else str(error)
        log.info("job %s failed: %s", job.id, sentence)
        _write(database, claimed, lambda session: _failed(session, claimed, sentence, heard))
    except MemoryError:
        sentence = "the memory is not enough; use fewer or smaller images"
        _write(database, claimed, lambda session: _failed(session, claimed, sentence, heard))
    except OSError as error:
        sentence = f"a file cannot be read or written ({error.strerror or error}); check the disk of the station"
        log.exception("job %s failed", job.id)
        _write(database, claimed, lambda session: _failed(session, claimed, sentence, heard))
    except Exception as error:
        sentence = f"the job stopped at an internal error ({type(error).__name__}); the station's log has the details"
        log.exception("job %s failed", job.id)
        _write(database, claimed, lambda session: _failed(session, claimed, sentence, heard))


_OURS = HyperspotError.__module__


@contextmanager
def _folder(settings: StationSettings, job_id: int) -> Iterator[Path]:
    """Yield the empty folder of a job; what an attempt that died left there is removed."""
    folder = settings.data / "jobs" / str(job_id)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _done(session: Session, claimed: Claim, ended: Finish, heard: list[str]) -> None:
    # The work first: its transaction holds the lock of SQLite from the first write on, and opening a model takes long.
    result = ended(session) | ({"warnings": heard} if heard else {})
    if not queue.finish(session, claimed, "done", result=result):
        raise SupersededError


def _failed(session: Session, claimed: Claim, sentence: str, heard: list[str]) -> None:
    result: dict[str, Any] = {"warnings": heard} if heard else {}
    if not queue.finish(session, claimed, "failed", error=sentence, result=result):
        raise SupersededError


def _write(database: Database, claimed: Claim, write: Callable[[Session], None]) -> None:
    """Write in one transaction, again if the database is away or another job took the number of the version."""
    until, wait, conflicts = time.monotonic() + PATIENCE, 0.1, 3
    while True:
        try:
            with database.session() as session:
                write(session)
        except IntegrityError:
            conflicts -= 1
            if conflicts == 0:
                raise
        except OperationalError as error:
            if time.monotonic() > until:
                raise
            log.warning("job %s waits for the database: %s", claimed.job_id, str(error.orig).strip())
            time.sleep(wait)
            wait = min(2 * wait, 5.0)
        else:
            return


def _beat(database: Database, claimed: Claim, progress: JobProgress, ended: threading.Event) -> None:
    """Write heartbeat and progress until the job ends; end the process if its attempt no longer counts."""
    shown: dict[str, Any] = {}
    while not ended.wait(BEAT_SECONDS):
        now = progress.snapshot()
        try:
            with database.session() as session:
                counts = queue.beat(session, claimed, now if now != shown else None)
        except SQLAlchemyError as error:
            log.warning("no heartbeat of job %s: %s", claimed.job_id, error)
            continue
        shown = now
        if not counts and not ended.is_set():
            os._exit(SUPERSEDED)


def end_with_the_station() -> None:
    """End this process when its standard input closes."""
    # Not `sys.stdin`, whose lock this thread would hold when the interpreter ends.
    while os.read(0, 1):
        pass
    os._exit(SUPERSEDED)


if __name__ == "__main__":
    logs.configure()
    threading.Thread(target=end_with_the_station, daemon=True).start()
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2])))
