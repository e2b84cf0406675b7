"""The database or the disk fails while images are inspected: nothing acknowledged is lost, nothing is twice."""

import asyncio
import errno
import os

import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from hyperspot.service.database.tables import Inspection
from hyperspot.service.inspecting import InspectionRequest
from hyperspot.service.problems import Problem
from hyperspot.service.records import image_store, recorder
from hyperspot.service.settings import StationSettings
from tests.service.conftest import running


def recorded(station):
    with station.database.session() as session:
        return [one.id for one in session.query(Inspection).order_by(Inspection.number)]


def test_a_database_that_comes_back_gets_every_inspection_once(
    tmp_path, model_file, good_image, postgresql, postgresql_server
):
    settings = StationSettings(data=tmp_path / "station", port=0, threads=1, database=postgresql)

    async def scenario():
        async with running(settings, model_file) as station:
            await station.inspector.inspect(InspectionRequest("bolt", good_image))
            # Predicted, and about to be recorded when the server is gone.
            waiting = [
                asyncio.create_task(station.inspector.inspect(InspectionRequest("bolt", good_image))) for _ in range(8)
            ]
            await asyncio.sleep(0.05)
            await asyncio.to_thread(postgresql_server.stop)
            await asyncio.sleep(1)
            await asyncio.to_thread(postgresql_server.start)
            answers = await asyncio.gather(*waiting, return_exceptions=True)
            later = await station.inspector.inspect(InspectionRequest("bolt", good_image))
            return answers, later, recorded(station)

    answers, later, rows = asyncio.run(scenario())
    acknowledged = [one.id for one in answers if isinstance(one, Inspection)]
    refused = [one for one in answers if not isinstance(one, Inspection)]
    assert acknowledged
    assert len(rows) == len(set(rows)) == 2 + len(acknowledged)
    assert set(acknowledged) | {later.id} < set(rows)
    assert all(isinstance(one, Problem) and one.status == 503 for one in refused), refused


def test_a_database_that_stays_away_is_503(tmp_path, model_file, good_image, postgresql, postgresql_server):
    settings = StationSettings(data=tmp_path / "station", port=0, threads=1, database=postgresql, deadline=4.0)

    async def scenario():
        async with running(settings, model_file) as station:
            await station.inspector.inspect(InspectionRequest("bolt", good_image))
            await asyncio.to_thread(postgresql_server.stop)
            try:
                with pytest.raises(Problem) as raised:
                    await station.inspector.inspect(InspectionRequest("bolt", good_image))
            finally:
                await asyncio.to_thread(postgresql_server.start)
            return raised.value

    problem = asyncio.run(scenario())
    assert problem.status == 503
    assert "database" in problem.detail


@pytest.mark.parametrize("full", ["images", "results"])
def test_a_full_disk_is_503_and_inspects_again_when_there_is_space(settings, model_file, good_image, monkeypatch, full):
    write = image_store._write

    def refuse(path, content):
        if path.parent.parent.name == full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(path, content)

    async def scenario():
        async with running(settings, model_file) as station:
            with monkeypatch.context() as patched:
                patched.setattr(image_store, "_write", refuse)
                with pytest.raises(Problem) as raised:
                    await station.inspector.inspect(InspectionRequest("bolt", good_image, idempotency_key="k"))
            before = len(recorded(station))
            again = await station.inspector.inspect(InspectionRequest("bolt", good_image, idempotency_key="k"))
            return raised.value, before, again.id, recorded(station)

    problem, before, again, rows = asyncio.run(scenario())
    assert (problem.status, rows) == (503, [again])
    assert "space" in problem.detail
    # A record without its anomaly map is whole otherwise, and a record without its image is not made.
    assert before == (0 if full == "images" else 1)


def failing(function, error, times):
    """Return a function that fails so many times before it works."""
    left = [times]

    def fail(*arguments, **more):
        if left[0]:
            left[0] -= 1
            raise error
        return function(*arguments, **more)

    return fail


REFUSED = IntegrityError("INSERT", {}, Exception("UNIQUE constraint failed: images.sha256"))
AWAY = OperationalError("SELECT", {}, Exception("gone"))


def inspect_twice(settings, model_file, image):
    async def scenario():
        async with running(settings, model_file) as station:
            request = InspectionRequest("bolt", image, idempotency_key="7")
            first = await asyncio.gather(station.inspector.inspect(request), return_exceptions=True)
            async with asyncio.timeout(20):
                second = await station.inspector.inspect(request)
            return first[0], second, recorded(station)

    return asyncio.run(scenario())


def test_an_image_that_a_job_stores_at_the_same_moment_is_no_error(settings, model_file, good_image, monkeypatch):
    monkeypatch.setattr(recorder, "_insert", failing(recorder._insert, REFUSED, 1))
    first, second, rows = inspect_twice(settings, model_file, good_image)
    assert rows == [first.id] == [second.id]


def test_a_database_that_goes_while_a_refusal_is_explained_ends_no_recorder(
    settings, model_file, good_image, monkeypatch
):
    monkeypatch.setattr(recorder, "_insert", failing(recorder._insert, REFUSED, 2))
    monkeypatch.setattr(recorder, "find_by_key", failing(recorder.find_by_key, AWAY, 1))
    first, second, rows = inspect_twice(settings, model_file, good_image)
    assert first.status == 503
    assert rows == [second.id]
