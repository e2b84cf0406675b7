"""The pool of workers: what one image does to the others."""

import asyncio
import os
import time

import pytest

from hyperspot.service.inference import pool as pools
from hyperspot.service.inference.pool import InferencePool
from hyperspot.service.inference.worker import Failure
from hyperspot.service.problems import Problem
from hyperspot.service.products.models import ModelFile

POISON, SLOW = b"poison", b"slow"


def worker(connection, settings):
    """Answer each image with its own bytes; die of one kind of image, be slow at another."""
    del settings
    while (batch := connection.recv()) is not None:
        if POISON in batch.images:
            os._exit(1)
        time.sleep(0.7 * batch.images.count(SLOW))
        connection.send([Failure(image.decode(), is_image=True) for image in batch.images])


async def answers(pool, model, images):
    await pool.start()
    try:
        return await asyncio.gather(*(pool.predict(model, image) for image in images), return_exceptions=True)
    finally:
        await pool.stop()


@pytest.fixture
def model(tmp_path):
    return ModelFile("0" * 64, tmp_path / "model.onnx")


def test_an_image_that_kills_workers_takes_no_other_with_it(settings, model, monkeypatch):
    monkeypatch.setattr(pools, "main", worker)
    images = [b"%d" % number for number in range(6)]
    found = asyncio.run(answers(InferencePool(settings), model, [*images[:3], POISON, *images[3:]]))
    assert all(isinstance(one, Problem) for one in found)
    assert [one.status for one in found] == [422, 422, 422, 503, 422, 422, 422]
    assert [one.detail for one in found if one.status == 422] == [image.decode() for image in images]
    assert "died" in found[3].detail


def test_a_slow_worker_with_a_batch_that_waited_is_not_killed(settings, model, monkeypatch):
    monkeypatch.setattr(pools, "main", worker)
    monkeypatch.setattr(pools, "GRACE", 0.1)
    pool = InferencePool(settings.model_copy(update={"max_batch": 2}))

    async def scenario():
        await pool.start()
        try:
            await asyncio.gather(pool.predict(model, b"ready"), return_exceptions=True)
            before, pool.deadline = pool.processes, 2.0
            # Two batches of 1.4 s: the second is late, and begins before its deadline.
            found = await asyncio.gather(*(pool.predict(model, SLOW) for _ in range(4)), return_exceptions=True)
            await asyncio.gather(pool.predict(model, b"next"), return_exceptions=True)
            return before, pool.processes, found
        finally:
            await pool.stop()

    before, after, found = asyncio.run(scenario())
    assert before == after
    assert [one.status for one in found] == [422, 422, 504, 504]


def hanging(connection, settings):
    """Take a batch and never answer, at the first start; answer later."""
    del settings
    while (batch := connection.recv()) is not None:
        if batch.images == [b"first"] and not batch.model.path.exists():
            batch.model.path.touch()
            time.sleep(60)
        connection.send([Failure(image.decode(), is_image=True) for image in batch.images])


def test_a_hanging_worker_is_replaced(settings, model, monkeypatch):
    monkeypatch.setattr(pools, "main", hanging)
    monkeypatch.setattr(pools, "GRACE", 0.1)
    pool = InferencePool(settings)

    async def scenario():
        await pool.start()
        try:
            await asyncio.gather(pool.predict(model, b"ready"), return_exceptions=True)
            before, pool.deadline = pool.processes, 0.5
            late = await asyncio.gather(pool.predict(model, b"first"), return_exceptions=True)
            for _ in range(100):
                if pool.processes not in (before, []):
                    break
                await asyncio.sleep(0.1)
            return late, before, pool.processes
        finally:
            await pool.stop()

    (late,), before, after = asyncio.run(scenario())
    assert late.status == 504
    assert before
    assert after
    assert before != after
