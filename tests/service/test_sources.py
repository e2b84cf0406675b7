"""All sources together: started, restarted, triggered, and none disturbs another."""

import asyncio
import inspect
import re
from pathlib import Path

import pytest

from hyperspot.errors import SettingsError
from hyperspot.service import connections
from hyperspot.service.database.tables import Alarm, Source
from hyperspot.service.form_settings import FormSettings
from hyperspot.service.outputs.base import Output
from hyperspot.service.problems import Problem
from hyperspot.service.sources import SOURCES, Sources, base
from tests.service.plant import plant_in, png, started, until


class Belt(base.Source):
    """Sends what is put on it; an exception on it stops it."""

    form = FormSettings
    can_trigger = True
    runs = 0
    images: "asyncio.Queue"

    async def run(self, inspect):
        type(self).runs += 1
        self.context.ready()
        while True:
            item = await type(self).images.get()
            if item is None:
                return
            if isinstance(item, Exception):
                raise item
            await inspect(base.Capture(item))

    async def trigger(self, serial_number=None, product_id=None):
        raise Problem(422, f"{serial_number} of {product_id}")


@pytest.fixture
def belt(monkeypatch):
    monkeypatch.setitem(SOURCES, "belt", Belt)
    Belt.runs = 0
    return Belt


def play(tmp_path, scenario, **options):
    async def main():
        Belt.images = asyncio.Queue()
        async with plant_in(tmp_path) as plant:
            sources = Sources(plant.database, plant.events, plant.inspector.inspect, **{"first_wait": 0.05} | options)
            await scenario(plant, sources)

    asyncio.run(main())


def test_an_image_is_inspected_as_the_product_of_its_source(tmp_path, belt):
    async def scenario(plant, sources):
        plant.add_source("belt", {})
        async with started(sources):
            Belt.images.put_nowait(png(200))
            await until(lambda: sources.status()["camera"]["images"] == 1)
            status = sources.status()["camera"]
        (inspection,) = plant.inspections
        assert (inspection.product_id, inspection.source, inspection.is_anomalous) == ("bolt", "camera", True)
        assert (status["state"], status["images"], status["failed"], status["last_error"]) == ("running", 1, 0, None)
        assert status["last_image_at"].endswith("+00:00")
        assert sources.status() == {}

    play(tmp_path, scenario)


def test_a_failing_source_starts_again_and_disturbs_no_other(tmp_path, belt):
    async def scenario(plant, sources):
        plant.add_source("belt", {}, "good")
        plant.add_source("folder", {"folder": "relative"}, "wrong")
        plant.add_source("gone", {}, "plugin")
        async with plant.events.follow() as events, started(sources):
            Belt.images.put_nowait(ValueError("pulled out"))
            await until(lambda: Belt.runs == 2)
            Belt.images.put_nowait(png())
            await until(lambda: plant.inspections)
            status = sources.status()
            states = {(event.data["name"], event.data["state"]) async for event in first(events, 5)}
        assert status["good"]["state"] == "running"
        assert status["good"]["last_error"] == "ValueError: pulled out"
        assert status["wrong"]["state"] == status["plugin"]["state"] == "failing"
        assert status["wrong"]["last_error"] == "Folder: give the full path of the folder"
        assert status["plugin"]["last_error"].startswith("there is no kind of source 'gone'; choose one of folder")
        assert ("good", "failing") in states

    play(tmp_path, scenario)


async def first(events, count):
    for _ in range(count):
        yield await anext(events)


def test_a_source_that_fails_for_long_raises_one_alarm(tmp_path, belt):
    async def scenario(plant, sources):
        plant.add_source("folder", {"folder": str(tmp_path / "gone")})
        async with started(sources):
            await until(lambda: plant.rows(Alarm))
            await asyncio.sleep(0.3)
        (alarm,) = plant.rows(Alarm)
        assert (alarm.kind, alarm.product_id, alarm.details) == ("source", "bolt", {"source": "camera"})
        assert alarm.message.startswith("source 'camera' has not worked for ")
        assert "check the path and the network share" in alarm.message

    play(tmp_path, scenario, alarm_after=0.1)


def test_a_source_without_more_images_ends(tmp_path, belt):
    async def scenario(plant, sources):
        plant.add_source("belt", {})
        async with started(sources):
            Belt.images.put_nowait(None)
            await until(lambda: sources.status()["camera"]["state"] == "ended")
            await asyncio.sleep(0.2)
            assert Belt.runs == 1

    play(tmp_path, scenario)


def test_reload_follows_the_table(tmp_path, belt):
    async def scenario(plant, sources):
        async with started(sources):
            source_id = plant.add_source("belt", {})
            await sources.reload("camera")
            await until(lambda: Belt.runs == 1)
            await sources.reload("camera")
            await until(lambda: Belt.runs == 2)
            with plant.database.session() as session:
                session.get(Source, source_id).is_enabled = False
            await sources.reload("camera")
            assert sources.status() == {}
            with pytest.raises(Problem, match="no enabled source 'camera'"):
                await sources.trigger("camera")

    play(tmp_path, scenario)


def test_a_trigger_reaches_its_source(tmp_path, belt):
    async def scenario(plant, sources):
        plant.add_source("belt", {}, "belt")
        plant.add_source("folder", {"folder": str(tmp_path)}, "folder")
        plant.add_source("folder", {"folder": str(tmp_path / "gone")}, "gone")
        async with started(sources):
            await until(lambda: sources.status()["folder"]["state"] == sources.status()["belt"]["state"] == "running")
            await until(lambda: sources.status()["gone"]["state"] == "failing")
            with pytest.raises(Problem, match="7 of nut"):
                await sources.trigger("belt", "7", "nut")
            with pytest.raises(Problem, match="takes no images on request") as refused:
                await sources.trigger("folder")
            assert refused.value.status == 409
            with pytest.raises(Problem, match=r"is not ready: the folder .* cannot be read") as refused:
                await sources.trigger("gone")
            assert refused.value.status == 503

    play(tmp_path, scenario)


def test_stopping_finishes_what_is_in_inspection(tmp_path, belt):
    async def scenario(plant, sources):
        plant.add_source("belt", {})
        entered = asyncio.Event()
        inspect_image = plant.inspector.inspect

        async def slow(request):
            entered.set()
            await asyncio.sleep(0.2)
            return await inspect_image(request)

        sources._inspect = slow
        async with started(sources):
            Belt.images.put_nowait(png())
            await entered.wait()
        assert len(plant.inspections) == 1

    play(tmp_path, scenario)


def test_secrets_are_kept_and_not_shown():
    stored = connections.check_settings("camera", {"address": "rtsp://cam", "user": "ann", "password": "s3cret"})
    shown = connections.public_settings("camera", stored)
    assert stored["password"] == "s3cret"
    assert shown["password"] == "********"
    assert shown["user"] == "ann"
    assert connections.merge_settings(stored, shown) == stored
    assert connections.merge_settings(stored, shown | {"password": "new"})["password"] == "new"
    assert connections.public_settings("gone", {"key": "s3cret"}) == {"key": "********"}
    assert connections.public_settings("camera", {"token": "s3cret"}) == {"token": "********"}
    assert "s3cret" not in repr(connections.form_of("camera").read(stored))


def test_a_wrong_setting_is_named_by_its_title_without_its_value():
    with pytest.raises(SettingsError, match=r"^Password: Input should be a valid string$"):
        connections.check_settings("camera", {"address": "0", "password": 12345})
    with pytest.raises(SettingsError, match="there is no kind 'fax'"):
        connections.check_settings("fax", {})
    with pytest.raises(SettingsError, match=r"^Address: Field required$"):
        connections.check_settings("camera", {"address": ""})


@pytest.mark.parametrize("kind", ["folder", "camera", "genicam", "webhook"])
def test_forms_have_titles_and_descriptions(kind):
    form = connections.form_of(kind)
    for name, field in form.model_fields.items():
        assert field.title, name
        assert field.description, name
    schema = form.model_json_schema()
    # Flat: a form needs no nested part.
    assert "$defs" not in schema


@pytest.mark.parametrize(
    ("page", "name", "base_class"), [("sources", "OneFile", base.Source), ("outputs", "Journal", Output)]
)
def test_the_example_of_a_kind_of_ones_own_runs(page, name, base_class):
    text = (Path(__file__).parents[2] / "docs" / "station" / f"{page}.md").read_text()
    names = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(block, names)
    assert issubclass(names[name], base_class)
    assert not inspect.isabstract(names[name])
    assert f":{name}" in text
