"""GenICam cameras: a fake of harvesters' interface, as no producer and no camera are at hand."""

import asyncio
import io
import sys
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image

from hyperspot.errors import SettingsError
from hyperspot.service.problems import Problem
from hyperspot.service.sources import Sources
from hyperspot.service.sources.base import SourceError
from hyperspot.service.sources.genicam import GenicamSettings, encode
from tests.service.plant import plant_in, started, until


class FakeCamera:
    """A camera that waits for software triggers."""

    def __init__(self):
        names = ("TriggerSelector", "TriggerMode", "TriggerSource", "PixelFormat", "ExposureTime")
        nodes = SimpleNamespace(**{name: SimpleNamespace(value=None) for name in names})
        nodes.TriggerSoftware = SimpleNamespace(execute=self.expose)
        self.remote_device = SimpleNamespace(node_map=nodes)
        self.exposures, self.waiting, self.calls = 0, 0, []
        self.is_gone = False

    def expose(self):
        assert self.remote_device.node_map.TriggerMode.value == "On"
        assert self.remote_device.node_map.TriggerSource.value == "Software"
        if not self.is_gone:
            self.exposures += 1
            self.waiting += 1

    def start(self):
        self.calls.append("start")

    def stop(self):
        self.calls.append("stop")

    def destroy(self):
        self.calls.append("destroy")

    @contextmanager
    def fetch(self, *, timeout):
        if not self.waiting:
            raise TimeoutError(f"no buffer in {timeout:g} s")
        self.waiting -= 1
        data = np.full(12, 20 * self.exposures, np.uint8)
        component = SimpleNamespace(data=data, data_format="Mono8", width=4, height=3)
        yield SimpleNamespace(payload=SimpleNamespace(components=[component]))
        # The producer writes its next image here.
        data[:] = 0


class FakeHarvester:
    cameras: ClassVar[dict] = {}
    asked: ClassVar[list] = []
    resets = 0

    def __init__(self):
        self.device_info_list = []

    def add_file(self, path):
        assert path.endswith(".cti")

    def update(self):
        self.device_info_list = list(type(self).cameras)

    def create(self, search):
        type(self).asked.append(search)
        key = self.device_info_list[0] if search == 0 else search["serial_number"]
        if key not in type(self).cameras:
            raise ValueError(f"no camera {key}")
        return type(self).cameras[key]

    def reset(self):
        type(self).resets += 1


@pytest.fixture
def harvester(monkeypatch):
    FakeHarvester.cameras, FakeHarvester.asked, FakeHarvester.resets = {"A1": FakeCamera()}, [], 0
    core = ModuleType("harvesters.core")
    core.Harvester = FakeHarvester
    monkeypatch.setitem(sys.modules, "harvesters", ModuleType("harvesters"))
    monkeypatch.setitem(sys.modules, "harvesters.core", core)
    return FakeHarvester


def play(tmp_path, scenario, **settings):
    producer = tmp_path / "vendor.cti"
    producer.touch()

    async def main():
        async with plant_in(tmp_path) as plant:
            plant.add_source("genicam", {"producer": str(producer), **settings})
            sources = Sources(plant.database, plant.events, plant.inspector.inspect, first_wait=0.05)
            await scenario(plant, sources)

    asyncio.run(main())


def test_a_trigger_exposes_an_image(tmp_path, harvester):
    device = harvester.cameras["A1"]

    async def scenario(plant, sources):
        async with started(sources):
            await until(lambda: sources.status()["camera"]["state"] == "running")
            assert device.exposures == 0
            for _ in range(2):
                await sources.trigger("camera", "SN1")
        pictures = [np.asarray(Image.open(io.BytesIO(request.image))) for request in plant.inspector.requests]
        assert [(picture.shape, picture.min(), picture.max()) for picture in pictures] == [
            ((3, 4), 20, 20),
            ((3, 4), 40, 40),
        ]
        assert device.exposures == 2
        nodes = device.remote_device.node_map
        assert (nodes.ExposureTime.value, nodes.PixelFormat.value) == (500.0, "Mono8")
        assert device.calls == ["start", "stop", "destroy"]
        assert (harvester.asked, harvester.resets) == ([{"serial_number": "A1"}], 1)

    play(tmp_path, scenario, camera="A1", exposure=500, pixel_format="Mono8")


def test_a_camera_that_is_gone_is_opened_again(tmp_path, harvester):
    device = harvester.cameras["A1"]

    async def scenario(plant, sources):
        async with started(sources):
            await until(lambda: sources.status()["camera"]["state"] == "running")
            device.is_gone = True
            with pytest.raises(Problem, match="sends no image") as refused:
                await sources.trigger("camera")
            assert refused.value.status == 503
            harvester.cameras = {}
            await until(lambda: "finds no camera" in (sources.status()["camera"]["last_error"] or ""))
            device.is_gone, harvester.cameras = False, {"A1": device}
            await until(lambda: sources.status()["camera"]["state"] == "running")
            await sources.trigger("camera")
        assert len(plant.inspections) == 1
        assert device.calls.count("start") == device.calls.count("destroy")

    play(tmp_path, scenario)


def test_an_unknown_camera_is_named(tmp_path, harvester):
    async def scenario(plant, sources):
        async with started(sources):
            await until(lambda: sources.status()["camera"]["state"] == "failing")
            assert "(no camera B2)" in sources.status()["camera"]["last_error"]

    play(tmp_path, scenario, camera="B2")


def test_without_harvesters_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "harvesters", None)
    monkeypatch.setitem(sys.modules, "harvesters.core", None)

    async def scenario(plant, sources):
        async with started(sources):
            await until(lambda: sources.status()["camera"]["state"] == "failing")
            assert "a GenICam source needs harvesters" in sources.status()["camera"]["last_error"]
            assert "genicam]" in sources.status()["camera"]["last_error"]

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("name", "dtype", "value", "expected"),
    [("Mono8", np.uint8, 7, 7), ("Mono12", np.uint16, 4095, 65520), ("Mono16", np.uint16, 7, 7)],
)
def test_gray_pixel_formats(name, dtype, value, expected):
    picture = np.asarray(Image.open(io.BytesIO(encode(np.full(6, value, dtype), name, (2, 3)))))
    assert picture.shape == (2, 3)
    assert (picture == expected).all()


@pytest.mark.parametrize(("name", "expected"), [("RGB8", [1, 2, 3]), ("BGR8", [3, 2, 1])])
def test_color_pixel_formats(name, expected):
    pixels = np.tile(np.array([1, 2, 3], np.uint8), 6)
    picture = np.asarray(Image.open(io.BytesIO(encode(pixels, name, (2, 3)))))
    assert picture.shape == (2, 3, 3)
    assert (picture == expected).all()


def test_an_unknown_pixel_format_is_named():
    with pytest.raises(SourceError, match="YUV422_8 is not read"):
        encode(np.zeros(6, np.uint8), "YUV422_8", (2, 3))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"producer": "vendor.cti"}, r"^Producer: give the full path"),
        ({"producer": "/vendor.so"}, r"^Producer: give the full path"),
        ({"producer": "/vendor.cti", "pixel_format": "YUV422_8"}, r"^Pixel format: choose"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(SettingsError, match=message):
        GenicamSettings.read(settings)
