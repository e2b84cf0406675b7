"""All outputs together: order, nothing lost, refusals, alarms."""

import asyncio

import pytest
from sqlalchemy.exc import OperationalError

from hyperspot.service import connections
from hyperspot.service.database.tables import Alarm, Output
from hyperspot.service.inspecting import InspectionRequest
from hyperspot.service.lasting_faults import LastingFault
from hyperspot.service.outputs import OUTPUTS, Outputs, base
from hyperspot.service.sources import Sources
from tests.service.plant import plant_in, png, started, until


class Mailbox(base.Output):
    """Keeps what it is sent; `failures` come first."""

    form = base.OutputSettings
    opened = closed = 0
    letters: list
    failures: list

    async def open(self):
        type(self).opened += 1

    async def close(self):
        type(self).closed += 1

    async def send(self, payload):
        if type(self).failures:
            failure = type(self).failures.pop(0)
            if failure is not None:
                raise failure
        type(self).letters.append(payload)


@pytest.fixture
def mailbox(monkeypatch):
    monkeypatch.setitem(OUTPUTS, "mailbox", Mailbox)
    Mailbox.opened = Mailbox.closed = 0
    Mailbox.letters, Mailbox.failures = [], []
    return Mailbox


async def no_trigger(name, serial_number=None, product_id=None):
    raise AssertionError("no output asked for this")


def play(tmp_path, scenario, **options):
    async def main():
        async with plant_in(tmp_path) as plant:
            outputs = Outputs(plant.database, plant.events, no_trigger, **{"first_wait": 0.02} | options)
            await scenario(plant, outputs)

    asyncio.run(main())


async def inspect(plant, *values, **fields):
    return [await plant.inspector.inspect(InspectionRequest("bolt", png(value), **fields)) for value in values]


def serials():
    return [letter["serial_number"] for letter in Mailbox.letters]


def test_verdicts_are_delivered_in_order_and_removed(tmp_path, mailbox):
    async def scenario(plant, outputs):
        plant.add_output("mailbox", {"station_address": "https://line3:8765"})
        waiting = await inspect(plant, *range(40))
        assert len(plant.deliveries) == 40
        async with started(outputs):
            await until(lambda: len(Mailbox.letters) == 40)
            live = await inspect(plant, 40)
            await until(lambda: len(Mailbox.letters) == 41 and not plant.deliveries)
            status = outputs.status()["mes"]
        assert [letter["id"] for letter in Mailbox.letters] == [one.id for one in waiting + live]
        assert Mailbox.letters[0]["links"]["image"] == f"https://line3:8765/api/v1/inspections/{waiting[0].id}/image"
        assert (status["state"], status["waiting"], status["delivered"], status["refused"]) == ("running", 0, 41, 0)
        assert Mailbox.opened == Mailbox.closed == 1

    play(tmp_path, scenario)


def test_a_receiver_that_was_away_gets_all_in_order(tmp_path, mailbox):
    async def scenario(plant, outputs):
        plant.add_output("mailbox", {})
        Mailbox.failures = [None, base.OutputError("the broker is gone"), base.OutputError("still"), None]
        async with plant.events.follow() as events, started(outputs):
            sent = await inspect(plant, *range(5))
            await until(lambda: len(Mailbox.letters) == 5 and not plant.deliveries)
            status = outputs.status()["mes"]
            states = []
            while len(states) < 3:
                event = await anext(events)
                states += [event.data["state"]] if event.kind == "output" else []
        assert [letter["id"] for letter in Mailbox.letters] == [one.id for one in sent]
        assert (status["state"], status["last_error"]) == ("running", "still")
        assert states == ["running", "failing", "running"]

    play(tmp_path, scenario)


def test_what_waits_survives_a_restart(tmp_path, mailbox):
    async def scenario(plant, outputs):
        plant.add_output("mailbox", {})
        Mailbox.failures = [ValueError("a bug in a plugin")] * 1000
        async with started(outputs):
            sent = await inspect(plant, 1, 2)
            await until(lambda: (outputs.status()["mes"]["last_error"] or "").startswith("ValueError"))
        assert len(plant.deliveries) == 2
        assert plant.deliveries[0].attempts >= 1
        assert plant.deliveries[0].last_error == "ValueError: a bug in a plugin"
        Mailbox.failures.clear()
        async with started(Outputs(plant.database, plant.events, no_trigger)):
            await until(lambda: not plant.deliveries)
        assert [letter["id"] for letter in Mailbox.letters] == [one.id for one in sent]

    play(tmp_path, scenario)


@pytest.mark.parametrize("skip", [False, True])
def test_a_refused_verdict(tmp_path, mailbox, skip):
    async def scenario(plant, outputs):
        plant.add_output("mailbox", {"skip_refused": skip})
        Mailbox.failures = [base.RefusedError("the receiver answers 422")] * 5
        async with started(outputs):
            first, second = await inspect(plant, 1, 2)
            await until(lambda: Mailbox.letters)
            if skip:
                assert [letter["id"] for letter in Mailbox.letters] == [second.id]
                await until(lambda: outputs.status()["mes"]["refused"] == 1)
                (alarm,) = plant.rows(Alarm)
                assert alarm.message == f"output 'mes' set the verdict {first.id} aside: the receiver answers 422"
                await outputs.retry_refused("mes")
            await until(lambda: not plant.deliveries)
            assert {letter["id"] for letter in Mailbox.letters} == {first.id, second.id}
            # Unless it is told to go on, the order is kept.
            assert Mailbox.letters[-1]["id"] == (first if skip else second).id

    play(tmp_path, scenario)


def test_verdicts_that_wait_for_long_raise_one_alarm(tmp_path, mailbox):
    async def scenario(plant, outputs):
        plant.add_output("mailbox", {})
        Mailbox.failures = [base.OutputError("the broker is gone")] * 1000
        async with started(outputs):
            await inspect(plant, 1)
            await until(lambda: plant.rows(Alarm))
            await asyncio.sleep(0.3)
        (alarm,) = plant.rows(Alarm)
        assert alarm.kind == "output"
        assert alarm.message.endswith("minutes: the broker is gone")

    play(tmp_path, scenario, alarm_after=0.1)


def test_a_broken_output_disturbs_no_other(tmp_path, mailbox):
    async def scenario(plant, outputs):
        plant.add_output("mailbox", {"station_address": "nonsense"}, "wrong")
        plant.add_output("mailbox", {}, "right", product_id="bolt")
        plant.add_output("mailbox", {}, "nuts", product_id="nut")
        async with started(outputs):
            await inspect(plant, 1)
            await until(lambda: Mailbox.letters)
            await until(lambda: len(plant.deliveries) == 1)
            status = outputs.status()
        assert status["wrong"]["last_error"].startswith("Address of the station: ")
        assert (status["wrong"]["waiting"], status["right"]["waiting"], status["nuts"]["waiting"]) == (1, 0, 0)

    play(tmp_path, scenario)


def test_reload_and_notify(tmp_path, mailbox):
    async def scenario(plant, outputs):
        outputs.notify()
        async with started(outputs):
            output_id = plant.add_output("mailbox", {})
            await outputs.reload("mes")
            await inspect(plant, 1)
            await asyncio.to_thread(outputs.notify)
            await until(lambda: Mailbox.letters)
            with plant.database.session() as session:
                session.get(Output, output_id).is_enabled = False
            await outputs.reload("mes")
            assert outputs.status() == {}
            await inspect(plant, 2)
        assert len(Mailbox.letters) == 1

    play(tmp_path, scenario)


def test_an_output_that_ends_by_itself_is_started_again(tmp_path, mailbox, monkeypatch):
    async def run(self):
        await asyncio.sleep(0.05)

    monkeypatch.setattr(Mailbox, "run", run)

    async def scenario(plant, outputs):
        plant.add_output("mailbox", {})
        async with started(outputs):
            await until(lambda: Mailbox.opened >= 3)
        assert Mailbox.opened == Mailbox.closed

    play(tmp_path, scenario)


@pytest.mark.parametrize("kind", list(OUTPUTS))
def test_forms_have_titles_and_descriptions(kind):
    form = connections.form_of(kind)
    for name, field in form.model_fields.items():
        assert field.title, name
        assert field.description, name
    assert "$defs" not in form.model_json_schema()


def test_a_fault_that_lasts_raises_one_alarm_whatever_the_clock_of_the_machine_says(tmp_path):
    async def main():
        now = 1000.0
        async with plant_in(tmp_path) as plant:
            fault = LastingFault(plant.database, plant.events, "output", "mes", None, after=300.0, clock=lambda: now)
            await fault.note("gone")
            now += 299
            await fault.note("gone")
            assert plant.rows(Alarm) == []
            fault.over()
            await fault.note("gone")
            now += 300
            with pytest.MonkeyPatch.context() as patch:
                # The database may be what is away: the next failure tries again.
                patch.setattr(plant.database, "session", away)
                await fault.note("gone")
            assert plant.rows(Alarm) == []
            await fault.note("still gone")
            now += 300
            await fault.note("gone for good")
        (alarm,) = plant.rows(Alarm)
        assert alarm.message == "output 'mes' has not worked for 5 minutes: still gone"

    asyncio.run(main())


def away():
    raise OperationalError("SELECT 1", {}, Exception("away"))


def test_a_database_that_was_away_loses_nothing(tmp_path, mailbox, postgresql, postgresql_server):
    folder = tmp_path / "images"
    folder.mkdir()
    settings = {"folder": str(folder), "steady_seconds": 0.05, "rescan_seconds": 0.3, "after": "move"}

    async def main():
        async with plant_in(tmp_path, postgresql) as plant:
            plant.add_source("folder", settings)
            plant.add_output("mailbox", {})
            sources = Sources(plant.database, plant.events, plant.inspector.inspect, first_wait=0.05)
            outputs = Outputs(plant.database, plant.events, no_trigger, first_wait=0.05)
            async with started(outputs, sources):
                for number in range(3):
                    (folder / f"{number}.png").write_bytes(png(number))
                await until(lambda: Mailbox.letters)
                await asyncio.to_thread(postgresql_server.stop)
                try:
                    for number in range(3, 6):
                        (folder / f"{number}.png").write_bytes(png(number))
                    await until(lambda: sources.status()["camera"]["state"] == "failing", 30)
                    await asyncio.sleep(0.5)
                finally:
                    await asyncio.to_thread(postgresql_server.start)
                await until(lambda: len(list((folder / "processed").iterdir())) == 6, 60)
                await until(lambda: not plant.deliveries, 60)
                assert sources.status()["camera"]["last_error"] == "the database does not answer; it is asked again"
            letters = [letter["id"] for letter in Mailbox.letters]
            # Each at least once, and in the order of the records.
            assert list(dict.fromkeys(letters)) == [one.id for one in plant.inspections]
            assert len(plant.inspections) == 6

    asyncio.run(main())
