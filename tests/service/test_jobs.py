"""Jobs as processes: they do their work, survive kills and restarts, and are canceled."""

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy.exc import IntegrityError, OperationalError

from hyperspot.errors import DataError
from hyperspot.service.database import Database
from hyperspot.service.database.tables import (
    Inspection,
    Job,
    Label,
    ModelVersion,
    Product,
    TrainingImage,
)
from hyperspot.service.events import Events
from hyperspot.service.jobs import process, queue
from hyperspot.service.jobs.archives import archive_path, keep_archive, unpack
from hyperspot.service.jobs.base import JobContext
from hyperspot.service.jobs.import_images import ImportParameters
from hyperspot.service.jobs.import_images import run as run_import
from hyperspot.service.jobs.process import SETTINGS
from hyperspot.service.jobs.progress import JobProgress
from hyperspot.service.jobs.runner import JobRunner
from hyperspot.service.products import catalog, training_images
from hyperspot.service.products.models import ModelStore
from hyperspot.service.records.image_store import ImageStore
from hyperspot.service.review.learning import figures_of
from hyperspot.service.settings import StationSettings
from tests.service.conftest import encoded

LIMIT = 240
TRAIN = {"settings": {"short_side": 64, "false_alarm_rate": 0.2}}
SLOW = {"settings": {"short_side": 256, "false_alarm_rate": 0.2}}
"""Takes some seconds, so that it can be watched."""


@pytest.fixture
def station(tmp_path, good_pixels):
    """A database and files with a product and its training images; the runner is made by each test."""

    class Plant:
        settings = StationSettings(data=tmp_path / "station", threads=1)
        database = Database(f"sqlite:///{tmp_path / 'station' / 'station.sqlite'}")
        images = ImageStore(settings.data)
        models = ModelStore(settings.data / "models")
        events = Events()

        def add(self, kind, **parameters):
            with self.database.session() as session:
                return queue.enqueue(session, kind, "bolt", parameters, "ann").id

        def job(self, job_id):
            with self.database.session() as session:
                return session.get(Job, job_id)

        def runner(self, **options):
            return JobRunner(self.settings, self.database, self.events, **options)

        def run(self, *job_ids, **options):
            runner = self.runner(**options)
            follow(runner, lambda: all(self.job(one).state not in queue.OPEN for one in job_ids))
            return [self.job(one) for one in job_ids]

    plant = Plant()
    plant.settings.data.mkdir()
    plant.database.migrate()
    with plant.database.session() as session:
        catalog.create_product(session, "bolt", "Bolt", "ann")
        for pixels in good_pixels[:14]:
            training_images.add(session, plant.images, "bolt", encoded(pixels), "ann")
    yield plant
    plant.database.close()


def follow(runner, done, *, each=lambda: None):
    """Run the station part until something holds, then stop it."""

    async def main():
        await runner.start()
        try:
            async with asyncio.timeout(LIMIT):
                while not await asyncio.to_thread(done):
                    await asyncio.to_thread(each)
                    await asyncio.sleep(0.05)
        finally:
            await runner.stop()

    asyncio.run(main())


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/status")
    return not status.exists() or "State:\tZ" not in status.read_text()


def archive_of(files):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    content.seek(0)
    return content


def test_a_version_is_trained_updated_compared_and_judged(station, good_pixels, bad_image):
    """The way of a product: train, import labeled images, learn more, compare, all by jobs."""
    training, broken = station.add("train", **TRAIN, activate=True), station.add("compare", candidate=7)
    trained, refused = station.run(training, broken)
    assert (trained.error, trained.state) == (None, "done")
    assert trained.result["version"] == 1
    assert trained.result["images"] == trained.result["calibration_images"] == 14
    assert (refused.state, refused.error) == ("failed", "product 'bolt' has no version 7; list its versions")

    files = {f"set/good/{number}.png": encoded(pixels) for number, pixels in enumerate(good_pixels[10:18])}
    mask = np.zeros((64, 64), np.uint8)
    mask[24:40, 24:40] = 255
    files |= {"set/scratch/0.png": bad_image, "set/ground_truth/scratch/0.png": encoded(mask)}
    with station.database.session() as session:
        before = training_images.count(session, "bolt")
    upload = keep_archive(station.settings.data, archive_of(files), 10**7)
    imported = station.run(station.add("import", upload=upload))[0]
    assert (imported.error, imported.result["training_images"]) == (None, 4)
    assert imported.result["labeled_inspections"] == 1
    with station.database.session() as session:
        inspection, label = session.query(Inspection).one(), session.query(Label).one()
        assert (inspection.source, inspection.is_anomalous, inspection.review_reason) == ("import", True, None)
        assert (label.label, label.comment, label.reviewer) == ("defect", "scratch", "ann")
        assert (np.asarray(Image.open(io.BytesIO(label.mask))) == (mask > 0)).all()
        assert training_images.count(session, "bolt") == before + 4
        active = catalog.active_version(session, "bolt")
        assert active.training_statistics["images"] == 14
        assert active.calibration["kind"] == "leave-one-out"
        assert len(active.calibration["scores"]) == 14
        assert figures_of(session, active).imported_detection_rate.count == 1

    again, updated, compared, refused = station.run(
        station.add("import", upload=upload),
        station.add("update"),
        station.add("compare", candidate=2),
        station.add("train", settings={"shortside": 3}),
    )
    assert (again.result["training_images"], again.result["labeled_inspections"]) == (0, 0)
    assert (updated.error, updated.result["images"], updated.result["updated_from"]) == (None, 4, 1)
    assert compared.error is None
    assert compared.result["defects"]["candidate"]["right"] == 1
    assert compared.result["differences"] == []
    assert refused.error.startswith("there is no setting 'shortside'")
    with station.database.session() as session:
        versions = {one.number: one for one in catalog.versions(session, "bolt")}
        assert catalog.active_version(session, "bolt").number == 1
        assert (versions[1].origin, versions[2].origin) == ("trained", "updated")
        assert versions[1].made_by["job"] == training
        assert len(versions[2].made_by["images"]) == 18
        assert versions[2].figures["comparison"]["active"] == 1
        catalog.activate(session, "bolt", 2, "ann")
    assert "knows all 18 training images" in station.run(station.add("update"))[0].error
    assert not (station.settings.data / "jobs").exists() or not any((station.settings.data / "jobs").iterdir())


def test_an_exported_version_cannot_learn(station, model_file):
    with station.database.session() as session:
        station.models.add(session, "bolt", model_file, "uploaded", "ann")
        catalog.activate(session, "bolt", 1, "ann")
    (job,) = station.run(station.add("update"))
    assert (job.state, job.attempts) == ("failed", 1)
    assert "is an exported file, which cannot learn" in job.error


def test_too_few_images_are_one_sentence(station):
    with station.database.session() as session:
        catalog.create_product(session, "nut", "Nut", "ann")
        empty = queue.enqueue(session, "train", "nut", {}, "ann").id
    few = station.add("train", settings={"short_side": 64, "false_alarm_rate": 0.001})
    empty, few = station.run(empty, few)
    assert empty.error == "product 'nut' has no training image; add images of good parts"
    assert "needs at least 999" in few.error
    with station.database.session() as session:
        assert session.query(ModelVersion).count() == 0


def test_a_killed_job_is_started_again_and_gives_up_after_three_times(station):
    job_id = station.add("train", **TRAIN)
    runner, killed = station.runner(), set()

    def kill():
        for pid in runner.processes.values():
            if pid not in killed:
                os.kill(pid, signal.SIGKILL)
                killed.add(pid)

    follow(runner, lambda: station.job(job_id).state not in queue.OPEN, each=kill)
    job = station.job(job_id)
    assert len(killed) == queue.MOST_ATTEMPTS
    assert (job.state, job.attempts) == ("failed", 3)
    assert job.error == "the process of the job was ended by SIGKILL 3 times; check the memory of the machine"


def test_a_job_killed_once_is_done_by_the_next_process_and_shows_its_progress(station):
    job_id = station.add("train", **SLOW)
    runner, killed, seen = station.runner(), [], []

    def kill():
        job = station.job(job_id)
        seen.append(job.progress)
        if job.progress and not killed:
            killed.extend(runner.processes.values())
            os.kill(killed[0], signal.SIGKILL)

    async def watch():
        events = []
        async with station.events.follow() as followed:
            task = asyncio.create_task(collect(followed, events))
            await runner.start()
            async with asyncio.timeout(LIMIT):
                while station.job(job_id).state in queue.OPEN:
                    kill()
                    await asyncio.sleep(0.05)
            await runner.stop()
            task.cancel()
        return events

    async def collect(followed, events):
        async for event in followed:
            events.append(event.data)

    events = asyncio.run(watch())
    job = station.job(job_id)
    assert (job.state, job.attempts, job.result["version"]) == ("done", 2, 1)
    assert any(one.get("total") for one in seen)
    assert {event["state"] for event in events} >= {"running"}
    with station.database.session() as session:
        assert session.query(ModelVersion).count() == 1


def test_a_running_job_is_canceled_within_seconds(station):
    job_id, waiting = station.add("train", **TRAIN), station.add("train", **TRAIN)
    runner, asked = station.runner(), []

    def cancel():
        if runner.processes and not asked:
            asked.append(time.monotonic())
            with station.database.session() as session:
                queue.cancel(session, waiting, "ann")
                queue.cancel(session, job_id, "ann")

    follow(runner, lambda: station.job(job_id).state not in queue.OPEN, each=cancel)
    assert time.monotonic() - asked[0] < 8
    assert [station.job(one).state for one in (job_id, waiting)] == ["canceled", "canceled"]
    assert runner.processes == {}


def test_a_stopping_station_puts_its_job_back_without_counting(station):
    job_id = station.add("train", **TRAIN)
    runner, pids = station.runner(), []
    follow(runner, lambda: pids.extend(runner.processes.values()) or pids)
    job = station.job(job_id)
    assert (job.state, job.attempts) == ("queued", 0)
    assert not is_alive(pids[0])


STATION = """
import asyncio, os
from hyperspot.service.database import Database
from hyperspot.service.events import Events
from hyperspot.service.jobs.runner import JobRunner
from hyperspot.service.settings import StationSettings

async def main():
    settings = StationSettings.model_validate_json(os.environ["STATION"])
    runner = JobRunner(settings, Database(settings.database_address), Events())
    await runner.start()
    while True:
        await asyncio.sleep(0.05)
        for pid in runner.processes.values():
            print(pid, flush=True)

asyncio.run(main())
"""


def test_a_job_ends_with_its_killed_station_and_the_next_station_does_it(station):
    job_id = station.add("train", **TRAIN)
    environment = {**os.environ, "STATION": station.settings.model_dump_json()}
    fake = subprocess.Popen([sys.executable, "-c", STATION], env=environment, stdout=subprocess.PIPE)
    with fake:
        pid = int(fake.stdout.readline())
        assert is_alive(pid)
        fake.kill()
    until = time.monotonic() + 30
    while is_alive(pid):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert station.job(job_id).state == "running"
    (job,) = station.run(job_id, stale_seconds=1.0)
    assert (job.state, job.attempts, job.result["version"]) == ("done", 2, 1)


def test_a_job_that_no_station_follows_fails_after_three_attempts(station):
    job_id = station.add("train", **TRAIN)
    with station.database.session() as session:
        job = session.get(Job, job_id)
        job.state, job.attempts, job.heartbeat_at = "running", 3, job.created_at - timedelta(minutes=1)
    station.runner().step()
    job = station.job(job_id)
    assert job.error == "the process of the job ended 3 times without a result; check the station's log"


def test_the_runner_waits_for_a_database_that_is_away(station, caplog):
    class Away(JobRunner):
        steps = 0

        def step(self):
            self.steps += 1
            if self.steps < 3:
                raise OperationalError("", {}, Exception("away"))
            super().step()

    runner = Away(station.settings, station.database, station.events)
    follow(runner, lambda: runner.notify() or runner.steps > 3)
    assert [record.message.count("jobs wait") for record in caplog.records if "away" in record.message] == [1]


def test_no_secret_stands_on_the_command_line(station):
    secret = station.settings.model_copy(update={"database": "postgresql+psycopg://u:pass-word@127.0.0.1:1/x"})
    runner = JobRunner(secret, station.database, station.events)
    station.add("train", **TRAIN)
    runner.step()
    (pid,) = runner.processes.values()
    command, environment = (Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
    asyncio.run(runner.stop())
    assert b"pass-word" not in command
    assert SETTINGS.encode() in environment


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
def test_a_job_works_on_postgresql(database, tmp_path, good_pixels):
    with database.engine.connect() as connection:
        address = connection.engine.url.render_as_string(hide_password=False)
    settings = StationSettings(data=tmp_path / "station", database=address, threads=1)
    with database.session() as session:
        session.add(Product(id="bolt", name="Bolt"))
        session.flush()
        for pixels in good_pixels[:8]:
            training_images.add(session, ImageStore(settings.data), "bolt", encoded(pixels), "ann")
        job_id = queue.enqueue(session, "train", "bolt", {**TRAIN, "activate": True}, "ann").id

    def state():
        with database.session() as session:
            return session.get(Job, job_id).state

    follow(JobRunner(settings, database, Events()), lambda: state() not in queue.OPEN)
    with database.session() as session:
        assert (session.get(Job, job_id).error, session.get(Job, job_id).state) == (None, "done")
        assert catalog.active_version(session, "bolt").number == 1


@pytest.mark.parametrize("name", ["../out.png", "/abs.png", "a/../../out.png", "C:/x.png", "..\\out.png", "con.png"])
def test_names_that_lead_out_of_the_folder_are_refused(station, name):
    upload = keep_archive(station.settings.data, archive_of({name: b"x", "good/1.png": b"y"}), 1000)
    (job,) = station.run(station.add("import", upload=upload))
    assert "leads out of its folder" in job.error
    assert not list(station.settings.data.parent.rglob("out.png"))


def test_what_is_no_archive_of_images_is_refused(station):
    data = station.settings.data
    for content, message in [(b"no zip", "no ZIP archive"), (b"x" * 2000, "more than 1,000 bytes")]:
        with pytest.raises(DataError, match=message):
            keep_archive(data, io.BytesIO(content), 1000)
    assert [path.name for path in (data / "uploads").iterdir()] == []
    for files, options, message in [
        ({"readme.txt": b""}, {}, "holds no image"),
        ({f"{n}.png": b"" for n in range(5)}, {"most_files": 4}, "5 files"),
        ({"big.png": b"0" * 10_000}, {"most_bytes": 5000}, "unpacks to more than 5,000 bytes"),
    ]:
        digest = keep_archive(data, archive_of(files), 10**6)
        with pytest.raises(DataError, match=message):
            unpack(archive_path(data, digest), data / message.split()[0], **options)
    with pytest.raises(DataError, match="named by its SHA-256"):
        archive_path(data, "../../x")


def test_old_uploads_are_removed_when_the_station_starts(station):
    old = keep_archive(station.settings.data, archive_of({"1.png": b"x"}), 1000)
    new = keep_archive(station.settings.data, archive_of({"2.png": b"x"}), 1000)
    os.utime(archive_path(station.settings.data, old), (0, 0))
    follow(station.runner(), lambda: True)
    assert not archive_path(station.settings.data, old).exists()
    assert archive_path(station.settings.data, new).exists()


def test_a_link_in_an_archive_is_refused(station):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        link = zipfile.ZipInfo("good/1.png")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    content.seek(0)
    digest = keep_archive(station.settings.data, content, 10**6)
    with pytest.raises(DataError, match="holds a link"):
        unpack(archive_path(station.settings.data, digest), station.settings.data / "x")


def test_a_table_cannot_name_files_of_the_station(station, good_pixels, tmp_path):
    (tmp_path / "secret.png").write_bytes(encoded(good_pixels[22]))
    files = {"1.png": encoded(good_pixels[20]), "2.png": encoded(good_pixels[21])}
    for secret in (tmp_path / "secret.png", "../../../../../secret.png"):
        table = f"path,label,split\n1.png,good,train\n{secret},good,train\n"
        upload = keep_archive(station.settings.data, archive_of({**files, "parts.csv": table}), 10**6)
        with pytest.raises(DataError, match="outside of the archive"):
            read_archive(station, upload)


def test_a_table_says_which_images_are_good(station, good_pixels):
    files = {f"set/{number}.png": encoded(good_pixels[20 + number]) for number in range(3)}
    files["set/parts.csv"] = "path,label,split\n0.png,good,train\n1.png,good,train\n2.png,defect,test\n"
    upload = keep_archive(station.settings.data, archive_of(files), 10**6)
    with station.database.session() as session:
        result = read_archive(station, upload)(session)
    assert (result["layout"], result["training_images"], result["labeled_without_a_model"]) == ("csv", 2, 1)


def read_archive(station, upload):
    """Run an import in this process."""
    folder = station.settings.data / "jobs" / "0"
    folder.mkdir(parents=True, exist_ok=True)
    context = JobContext(
        job_id=0,
        product_id="bolt",
        who="ann",
        parameters=ImportParameters(upload=upload, layout="auto"),
        settings=station.settings,
        database=station.database,
        images=station.images,
        models=station.models,
        progress=JobProgress(),
        folder=Path(tempfile.mkdtemp(dir=folder)),
    )
    return run_import(context)


def test_a_broken_archive_is_one_sentence(station, good_pixels):
    content = bytearray(archive_of({"1.png": encoded(good_pixels[0])}).getvalue())
    content[60:200] = bytes(140)
    upload = keep_archive(station.settings.data, io.BytesIO(bytes(content)), 10**6)
    with pytest.raises(DataError, match="cannot be unpacked"):
        read_archive(station, upload)


def test_the_end_of_a_job_waits_for_the_database_and_takes_another_number(station, monkeypatch):
    monkeypatch.setattr(process.time, "sleep", lambda seconds: None)
    claimed, errors = (
        queue.Claim(1, 1),
        [OperationalError("", {}, Exception("away")), IntegrityError("", {}, Exception())],
    )

    def write(session):
        if errors:
            raise errors.pop(0)
        written.append(session)

    written = []
    process._write(station.database, claimed, write)
    assert len(written) == 1
    monkeypatch.setattr(process, "PATIENCE", -1)
    errors.append(OperationalError("", {}, Exception("away")))
    with pytest.raises(OperationalError):
        process._write(station.database, claimed, write)


def test_damaged_images_of_an_archive_are_listed_not_fatal(station, good_pixels):
    files = {"good/0.png": encoded(good_pixels[20]), "good/1.png": b"<html>", "notes.pdf": b"%PDF"}
    upload = keep_archive(station.settings.data, archive_of(files), 10**6)
    (job,) = station.run(station.add("import", upload=upload))
    assert (job.error, job.result["training_images"]) == (None, 1)
    assert any("good/1.png" in problem or "1.png" in problem for problem in job.result["problems"])
    assert str(station.settings.data) not in json.dumps(job.result)
    with station.database.session() as session:
        assert session.query(TrainingImage).count() == 15
