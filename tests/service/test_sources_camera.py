"""Cameras and video files by OpenCV; a live camera is a fake capture, as no hardware is at hand."""

import asyncio
import io
import sys
import threading
import time
from typing import ClassVar

import cv2
import numpy as np
import pytest
from PIL import Image

from hyperspot.errors import SettingsError
from hyperspot.service.problems import Problem
from hyperspot.service.sources import Sources, camera
from hyperspot.service.sources.camera import CameraSettings
from tests.service.plant import plant_in, started, until


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Return a video of 12 frames; frame i has the gray value 20 i."""
    path = tmp_path_factory.mktemp("video") / "line.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25, (64, 48))
    for number in range(12):
        writer.write(np.full((48, 64, 3), 20 * number, np.uint8))
    writer.release()
    return path


def play(tmp_path, scenario, **settings):
    async def main():
        async with plant_in(tmp_path) as plant:
            plant.add_source("camera", settings)
            sources = Sources(plant.database, plant.events, plant.inspector.inspect, first_wait=0.05)
            await scenario(plant, sources)

    asyncio.run(main())


def frames(plant):
    """Return the numbers of the frames that were inspected, by their gray values."""
    pictures = [np.asarray(Image.open(io.BytesIO(request.image))) for request in plant.inspector.requests]
    assert {picture.shape for picture in pictures} <= {(48, 64, 3)}
    return [round(float(picture.mean()) / 20) for picture in pictures]


@pytest.mark.parametrize(("every", "expected"), [(1, list(range(12))), (5, [4, 9])])
def test_each_frame_of_a_file_is_inspected_and_it_ends(tmp_path, video, every, expected):
    async def scenario(plant, sources):
        async with started(sources):
            await until(lambda: sources.status()["camera"]["state"] == "ended")
            with pytest.raises(Problem, match="is not ready") as refused:
                await sources.trigger("camera")
            assert refused.value.status == 503
        assert frames(plant) == expected

    play(tmp_path, scenario, address=str(video), take="frames", every=every)


def test_a_frame_of_a_file_waits_for_the_queue(tmp_path, video):
    async def scenario(plant, sources):
        plant.inspector.problems = [Problem(429, "full")] * 2
        async with started(sources):
            await until(lambda: sources.status()["camera"]["state"] == "ended")
        assert frames(plant) == [0, 0, *range(12)]
        assert len(plant.inspections) == 12

    play(tmp_path, scenario, address=str(video), take="frames")


def test_a_file_can_begin_again(tmp_path, video):
    async def scenario(plant, sources):
        async with started(sources):
            await until(lambda: len(plant.inspections) > 13)
        assert frames(plant)[:14] == [*range(12), 0, 1]

    play(tmp_path, scenario, address=str(video), take="frames", at_end="rewind")


def test_a_file_that_comes_later_is_opened_then(tmp_path, video):
    late = tmp_path / "late.avi"

    async def scenario(plant, sources):
        async with started(sources):
            await until(lambda: sources.status()["camera"]["state"] == "failing")
            assert "there is no video file" in sources.status()["camera"]["last_error"]
            late.write_bytes(b"no video")
            await until(lambda: "cannot be opened" in sources.status()["camera"]["last_error"])
            late.write_bytes(video.read_bytes())
            await until(lambda: sources.status()["camera"]["state"] == "ended")
        assert len(plant.inspections) == 12

    play(tmp_path, scenario, address=str(late), take="frames")


def test_a_trigger_takes_the_next_frame_and_answers_with_its_inspection(tmp_path, video):
    async def scenario(plant, sources):
        async with started(sources):
            await until(lambda: sources.status()["camera"]["state"] == "running")
            first = await sources.trigger("camera", "SN1")
            second = await sources.trigger("camera", "SN2", "nut")
            plant.inspector.problems = [Problem(409, "no active version")]
            with pytest.raises(Problem, match="no active version"):
                await sources.trigger("camera")
            # That was a problem of the trigger, not of the camera.
            assert sources.status()["camera"]["state"] == "running"
            for _ in range(9):
                await sources.trigger("camera")
            with pytest.raises(Problem, match="has no more images"):
                await sources.trigger("camera")
        assert (first.serial_number, first.product_id, first.source) == ("SN1", "bolt", "camera")
        assert (second.serial_number, second.product_id) == ("SN2", "nut")
        assert frames(plant)[:3] == [0, 1, 2]

    play(tmp_path, scenario, address=str(video))


def test_an_interval(tmp_path, video):
    async def scenario(plant, sources):
        begun = time.monotonic()
        async with started(sources):
            await until(lambda: len(plant.inspections) >= 4)
            triggered = await sources.trigger("camera", "SN1")
        assert time.monotonic() - begun >= 0.3
        assert triggered.serial_number == "SN1"

    play(tmp_path, scenario, address=str(video), take="interval", interval=0.1)


class FakeCapture:
    """A live camera of 100 images a second, which can be pulled out and go silent."""

    opened: ClassVar[list] = []
    is_there = True

    def __init__(self, *arguments):
        self.arguments, self.number, self.is_silent = arguments, 0, threading.Event()
        self.is_released = False
        self.is_gone = False
        type(self).opened.append(self)

    def isOpened(self):
        return type(self).is_there

    def set(self, name, value):
        self.arguments += ((name, value),)

    def read(self):
        while self.is_silent.is_set() and not self.is_gone:
            time.sleep(0.01)
        time.sleep(0.01)
        self.number += 1
        return (False, None) if self.is_gone else (True, np.full((48, 64, 3), self.number % 12 * 20, np.uint8))

    def release(self):
        self.is_released = True


@pytest.fixture
def capture(monkeypatch):
    FakeCapture.opened, FakeCapture.is_there = [], True
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    return FakeCapture


def test_a_trigger_takes_a_fresh_frame_of_a_live_camera(tmp_path, capture):
    async def scenario(plant, sources):
        async with started(sources):
            await until(lambda: sources.status()["camera"]["state"] == "running")
            await until(lambda: capture.opened[0].number > 20)
            before = capture.opened[0].number
            await sources.trigger("camera")
            assert frames(plant)[0] in {number % 12 for number in range(before, capture.opened[0].number + 1)}
        assert capture.opened[0].is_released
        assert capture.opened[0].arguments == (0, (cv2.CAP_PROP_FRAME_WIDTH, 64))

    play(tmp_path, scenario, address="0", width=64)


def test_a_camera_that_was_pulled_out_is_opened_again(tmp_path, capture):
    async def scenario(plant, sources):
        async with started(sources):
            await until(lambda: plant.inspections)
            capture.is_there = False
            capture.opened[0].is_gone = True
            await until(lambda: sources.status()["camera"]["state"] == "failing")
            await until(lambda: "cannot be opened" in sources.status()["camera"]["last_error"])
            capture.is_there = True
            count = len(plant.inspections)
            await until(lambda: len(plant.inspections) > count)
            assert sources.status()["camera"]["state"] == "running"
        assert all(one.is_released for one in capture.opened)

    play(tmp_path, scenario, address="0", take="frames")


def test_a_silent_camera_is_opened_again_and_its_trigger_is_refused(tmp_path, capture):
    async def scenario(plant, sources):
        async with started(sources):
            await until(lambda: sources.status()["camera"]["state"] == "running")
            capture.opened[0].is_silent.set()
            # The last frame arrives.
            await asyncio.sleep(0.1)
            with pytest.raises(Problem, match=r"has sent no image for 0\.3 seconds") as refused:
                await sources.trigger("camera")
            assert refused.value.status == 503
            capture.opened[0].is_gone = True
            await until(lambda: len(capture.opened) == 2)
            await until(lambda: sources.status()["camera"]["state"] == "running")
            await sources.trigger("camera")

    play(tmp_path, scenario, address="0", silence=0.3)


def test_a_live_camera_goes_on_while_the_queue_is_full(tmp_path, capture):
    async def scenario(plant, sources):
        plant.inspector.problems = [Problem(429, "full")] * 3
        async with started(sources):
            await until(lambda: len(plant.inspections) >= 2)
            status = sources.status()["camera"]
        assert (status["state"], status["failed"], status["last_error"]) == ("running", 3, "full")
        assert len(capture.opened) == 1

    play(tmp_path, scenario, address="rtsp://camera.local/live", take="frames", user="ann", password="p@ss/word")
    assert capture.opened[0].arguments[0] == "rtsp://ann:p%40ss%2Fword@camera.local/live"


def test_too_many_triggers_are_refused(tmp_path, capture):
    async def scenario(plant, sources):
        async with started(sources):
            await until(lambda: sources.status()["camera"]["state"] == "running")
            capture.opened[0].is_silent.set()
            # The last frame arrives.
            await asyncio.sleep(0.1)
            waiting = [asyncio.create_task(sources.trigger("camera"))]
            # The source takes this one; 16 more may wait for it.
            await asyncio.sleep(0.1)
            waiting += [asyncio.create_task(sources.trigger("camera")) for _ in range(16)]
            await asyncio.sleep(0.1)
            with pytest.raises(Problem) as refused:
                await sources.trigger("camera")
            assert refused.value.status == 429
            capture.opened[0].is_silent.clear()
            await asyncio.gather(*waiting)
        assert len(plant.inspections) == 17

    play(tmp_path, scenario, address="0")


def test_without_opencv_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)

    async def scenario(plant, sources):
        async with started(sources):
            await until(lambda: sources.status()["camera"]["state"] == "failing")
            assert "a camera source needs cv2" in sources.status()["camera"]["last_error"]
            assert "camera]" in sources.status()["camera"]["last_error"]

    play(tmp_path, scenario, address="0")


@pytest.mark.parametrize(
    "address", ["camera", "rtsp://", "ftp://host/video", "rtsp://ann:pw@host/live", "concat:/etc/passwd", "-1"]
)
def test_wrong_addresses_are_refused(address):
    with pytest.raises(SettingsError, match=r"^Address: "):
        CameraSettings.read({"address": address})


def test_the_password_stands_in_no_message(tmp_path):
    settings = CameraSettings.read({"address": "rtsp://host/live", "user": "ann", "password": "s3cret"})
    assert camera._with_password(settings) == "rtsp://ann:s3cret@host/live"
    assert "s3cret" not in repr(settings) + str(settings)
