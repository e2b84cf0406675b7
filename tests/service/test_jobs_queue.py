"""The queue of jobs, on both databases."""

import threading
from datetime import timedelta

import pytest

from hyperspot.service.database.tables import AuditEntry, Job, Product, now
from hyperspot.service.jobs import queue
from hyperspot.service.problems import Problem


@pytest.fixture
def product(database):
    with database.session() as session:
        session.add(Product(id="bolt", name="Bolt"))
    return database


def add(database, count=1):
    with database.session() as session:
        return [queue.enqueue(session, "train", "bolt", {}, "ann").id for _ in range(count)]


def state(database, job_id):
    with database.session() as session:
        return session.get(Job, job_id).state


@pytest.mark.parametrize(
    ("kind", "product_id", "parameters", "status", "message"),
    [
        ("nothing", "bolt", {}, 422, "choose one of train, update, compare, import"),
        ("train", None, {}, 422, "name it"),
        ("train", "nut", {}, 404, "no such product"),
        ("train", "bolt", {"shell": "rm"}, 422, "shell"),
        ("compare", "bolt", {}, 422, "candidate"),
        ("import", "bolt", {"upload": "../../etc/passwd"}, 422, "upload"),
    ],
)
def test_jobs_that_do_not_fit_are_refused(product, kind, product_id, parameters, status, message):
    with pytest.raises(Problem, match=message) as raised, product.session() as session:
        queue.enqueue(session, kind, product_id, parameters, "ann")
    assert raised.value.status == status


def test_too_many_jobs_are_refused(product):
    add(product, queue.MOST_QUEUED)
    with pytest.raises(Problem, match="wait already"):
        add(product)


def test_jobs_are_claimed_in_order_once_by_many_threads(product):
    ids = add(product, 24)
    claimed, failed = [], []

    def take():
        try:
            while True:
                with product.session() as session:
                    one = queue.claim(session)
                if one is None:
                    return
                claimed.append(one)
        except Exception as error:  # noqa: BLE001 - the test shows it
            failed.append(error)

    threads = [threading.Thread(target=take) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # A thread may find nothing while another holds the last row; what is left is taken here.
    take()
    assert failed == []
    assert sorted(one.job_id for one in claimed) == ids
    assert {one.attempt for one in claimed} == {1}


def test_an_attempt_that_no_longer_counts_writes_nothing(product):
    (job_id,) = add(product)
    with product.session() as session:
        first = queue.claim(session)
        assert queue.give_back(session, first, counts=True, error="died")
    with product.session() as session:
        second = queue.claim(session)
    assert (second.job_id, second.attempt) == (job_id, 2)
    with product.session() as session:
        assert not queue.beat(session, first, {"stage": "late"})
        assert not queue.finish(session, first, "done", result={"version": 9})
        assert queue.beat(session, second, {"stage": "now"})
        assert queue.finish(session, second, "done", result={"version": 1})
    with product.session() as session:
        job = session.get(Job, job_id)
    assert (job.state, job.progress, job.result) == ("done", {"stage": "now"}, {"version": 1})


def test_a_job_fails_when_its_process_dies_too_often_but_not_when_the_station_stops(product):
    (job_id,) = add(product)
    for _ in range(5):
        with product.session() as session:
            queue.give_back(session, queue.claim(session), counts=False, error="stopped")
    for _ in range(queue.MOST_ATTEMPTS):
        assert state(product, job_id) == "queued"
        with product.session() as session:
            queue.give_back(session, queue.claim(session), counts=True, error="it died")
    with product.session() as session:
        assert (session.get(Job, job_id).state, session.get(Job, job_id).error) == ("failed", "it died")


def test_waiting_and_running_jobs_are_canceled(product):
    first, second = add(product, 2)
    with product.session() as session:
        running = queue.claim(session)
        assert queue.cancel(session, second, "ann").state == "canceled"
        assert queue.cancel(session, first, "ann").cancel_requested
    assert state(product, first) == "running"
    with product.session() as session:
        queue.give_back(session, running, counts=True, error="ended")
        assert queue.claim(session) is None
    assert state(product, first) == "canceled"
    for job_id, status in [(first, 409), (999, 404)]:
        with pytest.raises(Problem) as raised, product.session() as session:
            queue.cancel(session, job_id, "ann")
        assert raised.value.status == status
    with product.session() as session:
        assert [one.action for one in session.query(AuditEntry).order_by(AuditEntry.id)] == [
            "job.add",
            "job.add",
            "job.cancel",
            "job.cancel",
        ]


@pytest.mark.parametrize("offset", [-60, 60])
def test_jobs_without_a_sign_are_abandoned_also_after_the_clock_was_set_back(product, offset):
    add(product, 2)
    with product.session() as session:
        old, new = queue.claim(session), queue.claim(session)
        session.get(Job, old.job_id).heartbeat_at = now() + timedelta(seconds=offset)
    with product.session() as session:
        assert queue.abandoned(session, 15.0) == [old]
        assert queue.beat(session, new, None)


def test_a_job_is_described_as_json(product):
    import json

    (job_id,) = add(product)
    with product.session() as session:
        described = queue.describe(queue.get_job(session, job_id))
        assert [job.id for job in queue.list_jobs(session, "bolt")] == [job_id]
        assert queue.list_jobs(session, "nut") == []
    assert json.loads(json.dumps(described))["kind"] == "train"
