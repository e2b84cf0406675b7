"""The queue of jobs, in the database: it survives every process.

A job is claimed by one statement, so that no two processes run it. Each attempt has its number, and a process writes
only while its attempt is the current one: what a forgotten process still does has no effect.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import ValidationError
from sqlalchemy import or_, select, update
from sqlalchemy.orm import Session

from hyperspot.service.access.audit import audit
from hyperspot.service.database.tables import Job, now
from hyperspot.service.problems import Problem
from hyperspot.service.products.catalog import get_product

MOST_ATTEMPTS = 3
"""Times that a job is started whose process dies."""
MOST_QUEUED = 100
OPEN = ("queued", "running")


@dataclass(frozen=True)
class Claim:
    """A claimed job: its id, and the number of the attempt."""

    job_id: int
    attempt: int


def enqueue(session: Session, kind: str, product_id: str | None, parameters: dict[str, Any], who: str) -> Job:
    """Add a job to the queue.

    Args:
        session: The transaction of the change.
        kind: Registered in `jobs.kinds`.
        product_id: Whose images and versions it works on.
        parameters: Of the kind.
        who: For the audit log; owner of what the job adds.

    Raises:
        Problem: 404 without the product, 422 for an unknown kind or a parameter that does not fit, 429 if too many
            jobs wait.
    """
    from hyperspot.service.jobs.kinds import KINDS

    if kind not in KINDS:
        raise Problem(422, f"there is no job of the kind '{kind[:40]}'; choose one of {', '.join(KINDS)}")
    if product_id is None:
        raise Problem(422, f"the job '{kind}' works on a product; name it")
    get_product(session, product_id)
    try:
        checked = KINDS[kind].parameters.model_validate(parameters)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise Problem(422, f"{name or 'parameters'}: {first['msg']}") from None
    waiting = session.scalars(select(Job.id).where(Job.state == "queued").limit(MOST_QUEUED)).all()
    if len(waiting) == MOST_QUEUED:
        raise Problem(429, f"{MOST_QUEUED} jobs wait already; cancel some", headers={"Retry-After": "60"})
    job = Job(kind=kind, product_id=product_id, parameters=checked.model_dump(mode="json"), created_by=who)
    session.add(job)
    session.flush()
    audit(session, who, "job.add", f"{kind}/{job.id}", product=product_id)
    return job


def get_job(session: Session, job_id: int) -> Job:
    """Return a job; raises Problem 404 if there is none."""
    job = session.get(Job, job_id)
    if job is None:
        raise Problem(404, f"there is no job {job_id}; list the jobs")
    return job


def list_jobs(session: Session, product_id: str | None = None, limit: int = 50) -> list[Job]:
    """Return jobs, the newest first."""
    query = select(Job).order_by(Job.id.desc()).limit(limit)
    return list(session.scalars(query if product_id is None else query.where(Job.product_id == product_id)))


def cancel(session: Session, job_id: int, who: str) -> Job:
    """Cancel a job: at once if it waits, within seconds if it runs. Raises Problem 404, and 409 if it has ended."""
    job = get_job(session, job_id)
    values = {"state": "canceled", "finished_at": now(), "cancel_requested": True}
    waiting = update(Job).where(Job.id == job_id, Job.state == "queued").values(**values).returning(Job.id)
    running = update(Job).where(Job.id == job_id, Job.state == "running").values(cancel_requested=True)
    if session.scalar(waiting) is None and session.scalar(running.returning(Job.id)) is None:
        raise Problem(409, f"job {job_id} is {job.state}; there is nothing to cancel")
    audit(session, who, "job.cancel", f"{job.kind}/{job_id}")
    session.refresh(job)
    return job


def is_waiting(session: Session) -> bool:
    """Return whether a job waits; unlike `claim` it takes no lock."""
    return session.scalar(select(Job.id).where(Job.state == "queued").limit(1)) is not None


def claim(session: Session) -> Claim | None:
    """Take the oldest job that waits; None if there is none. It is running then, with one more attempt."""
    # One statement: SQLite takes its write lock before it looks, PostgreSQL skips what others are taking.
    oldest = (
        select(Job.id)
        .where(Job.state == "queued")
        .order_by(Job.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    query = (
        update(Job)
        .where(Job.id == oldest, Job.state == "queued")
        .values(state="running", attempts=Job.attempts + 1, started_at=now(), heartbeat_at=now(), progress={})
        .returning(Job.id, Job.attempts)
        .execution_options(synchronize_session=False)
    )
    found = session.execute(query).first()
    return None if found is None else Claim(*found)


def beat(session: Session, claimed: Claim, progress: dict[str, Any] | None) -> bool:
    """Note that a job lives, and its progress if it changed; return whether the attempt still counts."""
    values: dict[str, Any] = {"heartbeat_at": now()}
    if progress is not None:
        values["progress"] = progress
    return _write(session, claimed, **values)


def finish(session: Session, claimed: Claim, state: str, **values: Any) -> bool:
    """End a job as `done`, `failed` or `canceled`; return whether the attempt still counted."""
    return _write(session, claimed, state=state, finished_at=now(), **values)


def give_back(session: Session, claimed: Claim, *, counts: bool, error: str) -> bool:
    """Put a job whose process ended back into the queue; return whether the attempt still counted.

    A job that is to be canceled is canceled, and one whose process died too often failed.

    Args:
        session: The transaction of the change.
        claimed: The attempt that ended.
        counts: Whether it counts against `MOST_ATTEMPTS`; the attempts that the station itself ends do not.
        error: One sentence, why it failed if it is not tried again.
    """
    job = session.get(Job, claimed.job_id, populate_existing=True)
    if job is None:
        return False
    if job.cancel_requested:
        return finish(session, claimed, "canceled")
    if counts and claimed.attempt >= MOST_ATTEMPTS:
        return finish(session, claimed, "failed", error=error)
    return _write(
        session, claimed, state="queued", progress={}, attempts=claimed.attempt if counts else claimed.attempt - 1
    )


def abandoned(session: Session, seconds: float) -> list[Claim]:
    """Return the running jobs that gave no sign for so long."""
    # Later than now: the clock was set back.
    old, early = now() - timedelta(seconds=seconds), now() + timedelta(seconds=seconds)
    query = select(Job.id, Job.attempts).where(
        Job.state == "running", or_(Job.heartbeat_at < old, Job.heartbeat_at > early)
    )
    return [Claim(*one) for one in session.execute(query)]


def _write(session: Session, claimed: Claim, **values: Any) -> bool:
    query = (
        update(Job)
        .where(Job.id == claimed.job_id, Job.attempts == claimed.attempt, Job.state == "running")
        .values(**values)
        .returning(Job.id)
        .execution_options(synchronize_session=False)
    )
    return session.scalar(query) is not None


def describe(job: Job) -> dict[str, Any]:
    """Return a job as JSON values."""

    def iso(time: Any) -> str | None:
        return None if time is None else time.isoformat()

    return {
        "id": job.id,
        "kind": job.kind,
        "product": job.product_id,
        "parameters": job.parameters,
        "state": job.state,
        "progress": job.progress,
        "result": job.result,
        "error": job.error,
        "attempts": job.attempts,
        "cancel_requested": job.cancel_requested,
        "created_by": job.created_by,
        "created_at": iso(job.created_at),
        "started_at": iso(job.started_at),
        "finished_at": iso(job.finished_at),
    }
