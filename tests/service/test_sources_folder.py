"""The watched folder."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from hyperspot.errors import SettingsError
from hyperspot.service.database.tables import Source, SourceFile
from hyperspot.service.problems import Problem
from hyperspot.service.sources import Sources
from hyperspot.service.sources.folder import FolderSettings
from tests.service.plant import plant_in, png, started, until

QUICK = {"steady_seconds": 0.15, "rescan_seconds": 0.3}


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    return folder


def play(tmp_path, scenario, folder, **settings):
    async def main():
        async with plant_in(tmp_path) as plant:
            if not plant.rows(Source):
                plant.add_source("folder", {"folder": str(folder), **QUICK, **settings})
            sources = Sources(plant.database, plant.events, plant.inspector.inspect, first_wait=0.05)
            await scenario(plant, sources)

    asyncio.run(main())


def states(plant):
    return {row.path: row.state for row in plant.rows(SourceFile)}


def write(path, content, age=0.0):
    path.write_bytes(content)
    at = time.time() - age
    os.utime(path, (at, at))


def test_files_are_inspected_once_and_in_order(tmp_path, folder):
    write(folder / "b.png", png(1), age=20)
    write(folder / "a.png", png(2), age=10)
    (folder / "notes.txt").write_text("no image")
    (folder / ".hidden.png").write_bytes(png(9))

    async def scenario(plant, sources):
        async with started(sources):
            await until(lambda: len(plant.inspections) == 2)
            write(folder / "c.png", png(3))
            await until(lambda: len(states(plant)) == 3)
            await asyncio.sleep(0.8)
        assert [request.image for request in plant.inspector.requests] == [png(1), png(2), png(3)]
        assert states(plant) == {"a.png": "processed", "b.png": "processed", "c.png": "processed"}
        assert [row.inspection_number for row in plant.rows(SourceFile)] == [1, 2, 3]

    play(tmp_path, scenario, folder)

    async def again(plant, sources):
        async with started(sources):
            await asyncio.sleep(0.8)
        assert plant.inspector.requests == []

    play(tmp_path, again, folder)


def test_a_file_is_taken_when_it_is_complete(tmp_path, folder):
    content = png(5, side=256)

    async def scenario(plant, sources):
        async with started(sources):
            with (folder / "slow.png").open("wb") as stream:
                for begin in range(0, len(content), len(content) // 5):
                    stream.write(content[begin : begin + len(content) // 5])
                    stream.flush()
                    await asyncio.sleep(0.1)
            await until(lambda: plant.inspections)
        assert [request.image for request in plant.inspector.requests] == [content]

    play(tmp_path, scenario, folder, steady_seconds=0.4)


def test_a_writer_that_pauses_loses_nothing(tmp_path, folder):
    content = png(5, side=256)

    async def scenario(plant, sources):
        async with started(sources):
            with (folder / "slow.png").open("wb") as stream:
                stream.write(content[:100])
                stream.flush()
                await until(lambda: plant.inspector.requests)
                stream.write(content[100:])
            await until(lambda: (folder / "processed" / "slow.png").exists())
        assert states(plant) == {"slow.png": "processed"}
        assert (folder / "processed" / "slow.png").read_bytes() == content

    play(tmp_path, scenario, folder, after="move")


@pytest.mark.parametrize("after", ["leave", "move", "delete"])
def test_afterward(tmp_path, folder, after):
    write(folder / "good.png", png(1))
    write(folder / "bad.png", b"\x89PNG\r\n\x1a\n broken")

    async def scenario(plant, sources):
        async with started(sources):
            await until(lambda: states(plant) == {"good.png": "processed", "bad.png": "failed"})
            await asyncio.sleep(0.8)
            status = sources.status()["camera"]
        # Looked at twice, as it might have been half written, and never again.
        assert len(plant.inspector.requests) == 3
        assert (status["images"], status["failed"]) == (1, 1)
        assert status["last_error"] == "bad.png: the image is damaged"
        assert {row.error for row in plant.rows(SourceFile)} == {None, "the image is damaged"}

    play(tmp_path, scenario, folder, after=after)
    left = {path.relative_to(folder).as_posix() for path in folder.rglob("*.png")}
    assert (
        left
        == {
            "leave": {"good.png", "bad.png"},
            "move": {"processed/good.png", "failed/bad.png"},
            "delete": {"failed/bad.png"},
        }[after]
    )


@pytest.mark.parametrize(("duplicates", "expected"), [("skip", "duplicate"), ("inspect", "processed")])
def test_the_same_content_again(tmp_path, folder, duplicates, expected):
    async def scenario(plant, sources):
        async with started(sources):
            write(folder / "a.png", png(1))
            await until(lambda: states(plant) == {"a.png": "processed"})
            write(folder / "b.png", png(1))
            await until(lambda: states(plant) == {"a.png": "processed", "b.png": expected})
        assert len(plant.inspections) == (1 if duplicates == "skip" else 2)
        assert plant.rows(SourceFile)[1].inspection_number == plant.inspections[-1].number

    play(tmp_path, scenario, folder, duplicates=duplicates)


def test_a_moved_file_replaces_no_other(tmp_path, folder):
    async def scenario(plant, sources):
        async with started(sources):
            for value in range(3):
                write(folder / "part.png", png(value), age=value)
                await until(lambda: not (folder / "part.png").exists())

    play(tmp_path, scenario, folder, after="move")
    moved = {path.name: path.read_bytes() for path in (folder / "processed").iterdir()}
    assert moved == {"part.png": png(0), "part-1.png": png(1), "part-2.png": png(2)}


def test_links_and_files_outside_are_not_read(tmp_path, folder):
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(1))
    other = tmp_path / "other"
    other.mkdir()
    (other / "c.png").write_bytes(png(2))
    (folder / "link.png").symlink_to(secret)
    (folder / "sub").symlink_to(other)
    os.mkfifo(folder / "pipe.png")
    # No text in UTF-8, which no database takes.
    Path(os.fsdecode(bytes(folder) + b"/\xff.png")).write_bytes(png(4))
    (folder / "real").mkdir()
    (folder / "real" / "d.png").write_bytes(png(3))

    async def scenario(plant, sources):
        async with started(sources):
            await until(lambda: plant.inspections)
            await asyncio.sleep(0.6)
        assert states(plant) == {"real/d.png": "processed"}

    play(tmp_path, scenario, folder, subfolders=True)


def test_a_full_queue_is_waited_for_in_order(tmp_path, folder):
    for value in range(3):
        write(folder / f"{value}.png", png(value), age=10 - value)

    async def scenario(plant, sources):
        plant.inspector.problems = [Problem(429, "full")] * 3
        async with started(sources):
            await until(lambda: len(plant.inspections) == 3)
            assert sources.status()["camera"]["last_error"] is None
        assert [request.image for request in plant.inspector.requests] == [png(0)] * 4 + [png(1), png(2)]

    play(tmp_path, scenario, folder)


def test_a_station_that_cannot_inspect_keeps_the_file(tmp_path, folder):
    write(folder / "a.png", png(1))

    async def scenario(plant, sources):
        plant.inspector.problems = [Problem(409, "no active version"), Problem(503, "no database")]
        async with started(sources):
            await until(lambda: states(plant))
            assert sources.status()["camera"]["last_error"] == "no database"
        assert states(plant) == {"a.png": "processed"}

    play(tmp_path, scenario, folder)


def test_a_folder_that_was_deleted_comes_back(tmp_path, folder):
    async def scenario(plant, sources):
        async with started(sources):
            await until(lambda: sources.status()["camera"]["state"] == "running")
            shutil.rmtree(folder)
            await until(lambda: sources.status()["camera"]["state"] == "failing")
            folder.mkdir()
            write(folder / "a.png", png(1))
            await until(lambda: plant.inspections)
            await until(lambda: sources.status()["camera"]["state"] == "running")

    play(tmp_path, scenario, folder)


def test_serial_numbers_are_found_in_file_names(tmp_path, folder):
    write(folder / "line3_SN0815.png", png(1), age=2)
    write(folder / "test.png", png(2), age=1)

    async def scenario(plant, sources):
        async with started(sources):
            await until(lambda: len(plant.inspections) == 2)
        assert [one.serial_number for one in plant.inspections] == ["0815", None]

    play(tmp_path, scenario, folder, serial_number="SN([0-9]+)")


def test_an_endless_expression_fails_one_file(tmp_path, folder):
    write(folder / ("a" * 60 + ".png"), png(1), age=2)
    write(folder / "aa!.png", png(2), age=1)

    async def scenario(plant, sources):
        async with started(sources):
            await until(lambda: len(states(plant)) == 2, 20)
        assert sorted(states(plant).values()) == ["failed", "processed"]
        assert "simplify it" in next(row.error for row in plant.rows(SourceFile) if row.state == "failed")

    play(tmp_path, scenario, folder, serial_number="^(a+)+!")


def test_a_clock_that_is_set_back_changes_nothing(tmp_path, folder, monkeypatch):
    offset = 0.0
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() - offset)

    async def scenario(plant, sources):
        nonlocal offset
        async with started(sources):
            write(folder / "a.png", png(1))
            await until(lambda: len(plant.inspections) == 1)
            offset = 86400.0
            write(folder / "b.png", png(2))
            await until(lambda: len(plant.inspections) == 2)

    play(tmp_path, scenario, folder)


KILLED = """
    import asyncio, os, signal, sys
    from pathlib import Path
    from hyperspot.service.sources import Sources
    from hyperspot.service.sources.folder import Folder
    from tests.service.plant import plant_in

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    # After the inspection was recorded: before the row of the file, or between the row and the move.
    setattr(Folder, sys.argv[2], die)

    async def main():
        async with plant_in(Path(sys.argv[1])) as plant:
            sources = Sources(plant.database, plant.events, plant.inspector.inspect)
            await sources.start()
            await asyncio.sleep(20)

    asyncio.run(main())
"""


@pytest.mark.parametrize("moment", ["_record", "_put_away"])
def test_a_kill_after_the_inspection_repeats_nothing(tmp_path, folder, moment):
    write(folder / "a.png", png(1))

    async def set_up(plant, sources):
        pass

    play(tmp_path, set_up, folder, after="move")
    program = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), moment]
    root = Path(__file__).parents[2]
    killed = subprocess.run(program, cwd=root, env={**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"})
    assert killed.returncode == -signal.SIGKILL
    assert (folder / "a.png").exists()

    async def scenario(plant, sources):
        assert len(plant.inspections) == 1
        async with started(sources):
            await until(lambda: (folder / "processed" / "a.png").exists())
        assert len(plant.inspections) == 1
        assert states(plant) == {"a.png": "processed"}
        assert plant.rows(SourceFile)[0].inspection_number == 1

    play(tmp_path, scenario, folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folder": "images"}, "Folder: give the full path"),
        ({"folder": "/images", "serial_number": "("}, "Serial number: this is no regular expression"),
        ({"folder": "/images", "after": "burn"}, "Afterward: "),
        ({"folder": "/images", "colour": 1}, "colour: "),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(SettingsError, match=message):
        FolderSettings.read(settings)
