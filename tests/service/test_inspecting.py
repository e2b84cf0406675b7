"""The path of an image through the station."""

import asyncio
import io
import os
import signal

import numpy as np
import pytest
from PIL import Image
from sqlalchemy.exc import OperationalError

from hyperspot import load_model
from hyperspot.service.database.tables import Delivery, Inspection, Output, StoredImage
from hyperspot.service.inference.drawing import draw, verdict_of
from hyperspot.service.inspecting import InspectionRequest
from hyperspot.service.problems import Problem
from hyperspot.service.records.image_store import ImageKey
from tests.service.conftest import encoded, running


def stored(station):
    with station.database.session() as session:
        return session.query(Inspection).order_by(Inspection.number).all()


def run(settings, model_file, scenario):
    async def main():
        async with running(settings, model_file) as station:
            return await scenario(station)

    return asyncio.run(main())


def test_an_inspection_is_the_verdict_of_the_model(settings, model_file, bad_image):
    async def scenario(station):
        async with station.events.follow() as events:
            inspection = await station.inspector.inspect(
                InspectionRequest("bolt", bad_image, serial_number="7", lot="L", station="S")
            )
            event = await anext(events)
        return inspection, event, station.images.read_result(inspection.id), stored(station)

    inspection, event, result, rows = run(settings, model_file, scenario)
    verdict = load_model(model_file).predict(bad_image)
    assert [row.id for row in rows] == [inspection.id]
    assert (inspection.is_anomalous, inspection.review_reason) == (True, "alarm")
    assert inspection.score == pytest.approx(verdict.score, rel=1e-4)
    assert event.data["regions"] == inspection.verdict["regions"]
    assert [region["left"] for region in inspection.verdict["regions"]] == [one.left for one in verdict.regions]
    again = verdict_of(inspection, bad_image, result)
    assert (again.mask == verdict.mask).all()
    np.testing.assert_allclose(again.heatmap, verdict.heatmap, rtol=1e-3)
    assert draw(again, "overlay")[:4] == b"\x89PNG"
    assert Image.open(io.BytesIO(draw(again, "mask", width=32))).size == (32, 32)


def test_the_image_is_kept_as_it_was_sent(settings, model_file, good_pixels):
    image = encoded(good_pixels[1], "JPEG")

    async def scenario(station):
        inspection = await station.inspector.inspect(InspectionRequest("bolt", image))
        return station.images.read(ImageKey(inspection.image_sha256, ".jpg"))

    assert run(settings, model_file, scenario) == image


@pytest.mark.parametrize(
    ("image", "status"),
    [
        (b"", 400),
        (b"<html>", 415),
        (b"\x89PNG\r\n\x1a\n and nothing else", 422),
        (b"BM" + b"\0" * 10, 422),
    ],
)
def test_what_is_no_image_is_refused(settings, model_file, image, status):
    async def scenario(station):
        with pytest.raises(Problem) as raised:
            await station.inspector.inspect(InspectionRequest("bolt", image))
        return raised.value.status, stored(station), list(station.images.files())

    assert run(settings, model_file, scenario) == (status, [], [])


def test_a_damaged_image_is_refused_by_the_worker(settings, model_file, good_image):
    async def scenario(station):
        with pytest.raises(Problem) as raised:
            await station.inspector.inspect(InspectionRequest("bolt", good_image[: len(good_image) // 2]))
        return raised.value.status, stored(station)

    assert run(settings, model_file, scenario) == (422, [])


def test_a_bomb_is_refused_before_it_is_decoded(settings, model_file):
    bomb = encoded(np.zeros((300, 300), np.uint8))
    small = settings.model_copy(update={"max_pixels": 80_000})

    async def scenario(station):
        with pytest.raises(Problem) as raised:
            await station.inspector.inspect(InspectionRequest("bolt", bomb))
        return raised.value.status

    assert run(small, model_file, scenario) == 413


def test_unknown_products_and_products_without_a_model(settings, model_file, good_image):
    async def scenario(station):
        from hyperspot.service.products.catalog import create_product

        with station.database.session() as session:
            create_product(session, "nut", "Nut", "tests")
        statuses = []
        for product_id in ("nut", "none", "../etc", "bolt'; --"):
            with pytest.raises(Problem) as raised:
                await station.inspector.inspect(InspectionRequest(product_id, good_image))
            statuses.append(raised.value.status)
        return statuses

    assert run(settings, model_file, scenario) == [409, 404, 404, 404]


def test_a_repeated_key_gives_the_first_inspection_also_at_once(settings, model_file, good_image, bad_image):
    async def scenario(station):
        request = InspectionRequest("bolt", good_image, idempotency_key="k")
        together = await asyncio.gather(*(station.inspector.inspect(request) for _ in range(5)))
        with pytest.raises(Problem) as raised:
            await station.inspector.inspect(InspectionRequest("bolt", bad_image, idempotency_key="k"))
        return {one.id for one in together}, raised.value.status, stored(station)

    ids, status, rows = run(settings, model_file, scenario)
    assert (len(ids), status, len(rows)) == (1, 409, 1)


def test_a_full_queue_is_refused_with_a_time(settings, model_file, good_image):
    small = settings.model_copy(update={"queue": 2, "max_batch": 1})

    async def scenario(station):
        await station.inspector.inspect(InspectionRequest("bolt", good_image))
        results = await asyncio.gather(
            *(station.inspector.inspect(InspectionRequest("bolt", good_image)) for _ in range(30)),
            return_exceptions=True,
        )
        problems = [one for one in results if isinstance(one, Problem)]
        return results, problems, len(stored(station))

    results, problems, rows = run(small, model_file, scenario)
    assert problems
    assert {one.status for one in problems} == {429}
    assert all(int(one.headers["Retry-After"]) >= 1 for one in problems)
    assert rows == 1 + len(results) - len(problems)


def test_a_killed_worker_is_replaced_and_its_image_is_answered(settings, model_file, good_image):
    async def scenario(station):
        await station.inspector.inspect(InspectionRequest("bolt", good_image))
        before = station.pool.processes
        request = InspectionRequest("bolt", good_image)
        waiting = [asyncio.create_task(station.inspector.inspect(request)) for _ in range(4)]
        await asyncio.sleep(0.01)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        inspections = await asyncio.gather(*waiting)
        return before, station.pool.processes, inspections, len(stored(station))

    before, after, inspections, rows = run(settings, model_file, scenario)
    assert not set(before) & set(after)
    assert len({one.id for one in inspections}) == 4
    assert rows == 5


def test_the_deadline_ends_a_wait(settings, model_file, good_image):
    impatient = settings.model_copy(update={"deadline": 0.001})

    async def scenario(station):
        with pytest.raises(Problem) as raised:
            await station.inspector.inspect(InspectionRequest("bolt", good_image))
        return raised.value.status

    assert run(impatient, model_file, scenario) == 504


def test_deliveries_are_written_with_the_inspection(settings, model_file, good_image):
    async def scenario(station):
        with station.database.session() as session:
            session.add_all(
                [
                    Output(name="all", kind="webhook"),
                    Output(name="bolts", kind="webhook", product_id="bolt"),
                    Output(name="off", kind="webhook", is_enabled=False),
                ]
            )
        await station.inspector.inspect(InspectionRequest("bolt", good_image))
        with station.database.session() as session:
            return session.query(Delivery).count(), session.query(StoredImage).count()

    assert run(settings, model_file, scenario) == (2, 1)


def test_the_recorder_goes_on_when_a_refusal_cannot_be_explained(settings, model_file, good_image, monkeypatch):
    async def scenario(station):
        request = InspectionRequest("bolt", good_image, idempotency_key="k")
        await station.inspector.inspect(request)
        # As if another process had recorded the key after the look for it, and the database had gone then.
        monkeypatch.setattr("hyperspot.service.inspecting.find_by_key", lambda *_: None)
        monkeypatch.setattr("hyperspot.service.records.recorder.find_by_key", away)
        with pytest.raises(Problem) as raised:
            await station.inspector.inspect(request)
        await station.inspector.inspect(InspectionRequest("bolt", good_image))
        return raised.value.status, len(stored(station))

    def away(*_):
        raise OperationalError("SELECT", {}, OSError("the server closed the connection"))

    assert run(settings, model_file, scenario) == (503, 2)
