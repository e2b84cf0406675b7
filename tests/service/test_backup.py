"""A backup is whole or absent, and gives the same station on any database."""

import asyncio
import io
import os
import signal
import subprocess
import sys
import tarfile
from datetime import UTC, datetime

import pytest
from sqlalchemy import select

from hyperspot.errors import DataError, SettingsError
from hyperspot.service.access import accounts, sessions, tokens
from hyperspot.service.backup import back_up, restore
from hyperspot.service.database import Database
from hyperspot.service.database.rows import TABLES
from hyperspot.service.database.tables import Label, Output, Product, SignIn
from hyperspot.service.inspecting import InspectionRequest
from hyperspot.service.records.image_store import ImageStore, key_of
from hyperspot.service.serving import LOCK, UNFINISHED, locked
from hyperspot.service.settings import StationSettings
from tests.service.clients import PASSWORD
from tests.service.conftest import running


@pytest.fixture(scope="module")
def filled(tmp_path_factory, model_file, good_image, bad_image):
    """A folder with a station that has inspected two images, and a label with bytes."""
    settings = StationSettings(data=tmp_path_factory.mktemp("filled") / "station", port=0, threads=1)

    async def fill():
        async with running(settings, model_file) as station:
            for number, image in enumerate((good_image, bad_image)):
                request = InspectionRequest("bolt", image, serial_number=f"Ü{number}")
                inspection = await station.inspector.inspect(request)
            with station.database.session() as session:
                user = accounts.create_user(session, "ann", PASSWORD, "admin", "tests")
                sessions.start_session(session, user)
                tokens.create_token(session, "press", "operator", "tests", datetime(2100, 1, 2, 3, tzinfo=UTC))
                session.add(Label(inspection_number=inspection.number, reviewer="ann", label="defect", mask=b"\0\xff"))
                session.add(Output(name="plc", kind="webhook", settings={"port": 502}))

    asyncio.run(fill())
    return settings


def rows_of(database):
    with database.engine.connect() as connection:
        return {
            table.name: [
                tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key.columns)).all()
            ]
            for table in TABLES
        }


def files_of(data):
    return {
        path.relative_to(data).as_posix(): path.read_bytes()
        for folder in ("images", "results", "models")
        for path in (data / folder).rglob("*")
        if path.is_file()
    }


def reading(settings):
    database = Database(settings.database_address)
    try:
        return rows_of(database)
    finally:
        database.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_backup_gives_the_same_station_on_any_database(request, filled, tmp_path, good_image, kind):
    address = request.getfixturevalue("postgresql") if kind == "postgresql" else None
    target = StationSettings(data=tmp_path / "restored", database=address)
    made = back_up(filled, tmp_path / "station.tar")
    restored = restore(tmp_path / "station.tar", target)
    assert made == restored
    assert made.rows > 10
    assert made.files == len(files_of(filled.data)) >= 5
    assert reading(target) == reading(filled)
    assert files_of(target.data) == files_of(filled.data)
    assert {path.name for path in target.data.iterdir()} >= {LOCK, "images", "results", "models"}
    assert not (target.data / UNFINISHED).exists()
    database = Database(target.database_address)
    try:
        with database.session() as session:
            assert session.scalars(select(SignIn)).all() == [], "everybody signs in again"
            assert accounts.get_user(session, "ann").password_hash
            # Numbers go on after the last one.
            session.add(Output(name="next", kind="webhook", settings={}))
        assert ImageStore(target.data).read(key_of(good_image)) == good_image
    finally:
        database.close()


def test_a_station_is_backed_up_while_it_runs(filled, tmp_path, model_file, good_image):
    """Each row of the snapshot has its file, although images keep coming."""
    settings = StationSettings(data=tmp_path / "station", port=0, threads=1)

    async def scenario():
        async with running(settings, model_file) as station:
            made = asyncio.create_task(asyncio.to_thread(back_up, settings, tmp_path / "station.tar"))
            count = 0
            while not made.done():
                await station.inspector.inspect(InspectionRequest("bolt", good_image, serial_number=str(count)))
                count += 1
            await made
            return count

    assert asyncio.run(scenario()) > 0
    target = StationSettings(data=tmp_path / "restored")
    restore(tmp_path / "station.tar", target)
    rows = reading(target)
    identifiers = [row[1] for row in rows["inspections"]]
    assert all((target.data / "results" / one[:2] / f"{one}.npz").is_file() for one in identifiers)


def test_a_backup_without_images(filled, tmp_path):
    made = back_up(filled, tmp_path / "small.tar", images=False)
    whole = back_up(filled, tmp_path / "whole.tar")
    assert made.rows == whole.rows
    assert 0 < made.files < whole.files
    restore(tmp_path / "small.tar", StationSettings(data=tmp_path / "restored"))
    assert {name.split("/")[0] for name in files_of(tmp_path / "restored")} == {"models"}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_others_cannot_read_a_backup(filled, tmp_path):
    back_up(filled, tmp_path / "station.tar", images=False)
    assert (tmp_path / "station.tar").stat().st_mode & 0o077 == 0


def changed(source, target, change):
    """Write an archive whose members `change` maps to others, or to None."""
    with tarfile.open(source) as old, tarfile.open(target, "w") as new:
        for member in old:
            pair = change(member.name, old.extractfile(member).read())
            if pair is not None:
                info = tarfile.TarInfo(pair[0])
                info.size = len(pair[1])
                new.addfile(info, io.BytesIO(pair[1]))
    return target


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda name, content: (name, content[:-1] + b"?" if name.startswith("images/") else content), "checksums"),
        (lambda name, content: (name, content.replace(b'"ann"', b'"eve"')), "checksums"),
        (lambda name, content: None if name == "SHA256SUMS" else (name, content), "end is missing"),
        (lambda name, content: None if name.startswith("results/") else (name, content), "checksums"),
        (lambda name, content: ("../../evil" if name.startswith("images/") else name, content), "does not belong"),
        (lambda name, content: ("images/ab/../../x" if name[:7] == "images/" else name, content), "does not belong"),
        (lambda name, content: (name, b"{}\n" if name == "tables/users.jsonl" else content), "other columns"),
        (lambda name, content: (name, content.replace(b'"format": 1', b'"format": 2')), "restore it with that version"),
    ],
)
def test_a_changed_backup_restores_nothing(filled, tmp_path, change, why):
    back_up(filled, tmp_path / "station.tar")
    changed(tmp_path / "station.tar", tmp_path / "changed.tar", change)
    target = StationSettings(data=tmp_path / "restored")
    with pytest.raises(DataError, match=why):
        restore(tmp_path / "changed.tar", target)
    assert {path.name for path in target.data.iterdir()} == {LOCK}
    assert not (tmp_path / "evil").exists()
    restore(tmp_path / "station.tar", target)


def test_a_link_in_a_backup_is_refused(filled, tmp_path):
    with tarfile.open(tmp_path / "evil.tar", "w") as archive:
        info = tarfile.TarInfo("images/ab/link")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(DataError, match="is no file"):
        restore(tmp_path / "evil.tar", StationSettings(data=tmp_path / "restored"))


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_backup_that_was_cut_off_restores_nothing(filled, tmp_path, share):
    back_up(filled, tmp_path / "station.tar")
    content = (tmp_path / "station.tar").read_bytes()
    (tmp_path / "cut.tar").write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match="no whole backup"):
        restore(tmp_path / "cut.tar", StationSettings(data=tmp_path / "restored"))


def test_only_empty_places_are_restored_into(filled, tmp_path):
    back_up(filled, tmp_path / "station.tar", images=False)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty"):
        restore(tmp_path / "station.tar", StationSettings(data=tmp_path / "full"))
    assert (tmp_path / "full" / "notes.txt").read_text() == "mine"
    address = f"sqlite:///{tmp_path / 'other.sqlite'}"
    other = Database(address)
    other.migrate()
    with other.session() as session:
        session.add(Product(id="bolt", name="Bolt"))
    other.close()
    with pytest.raises(DataError, match="database is not empty"):
        restore(tmp_path / "station.tar", StationSettings(data=tmp_path / "restored", database=address))
    with locked(tmp_path / "served"), pytest.raises(SettingsError, match="another station"):
        restore(tmp_path / "station.tar", StationSettings(data=tmp_path / "served"))


def test_mistakes_are_one_sentence(filled, tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(DataError, match="no folder of a station"):
        back_up(StationSettings(data=tmp_path / "other"), tmp_path / "out.tar")
    assert not list((tmp_path / "other").iterdir()), "nothing is made of a folder that was named by mistake"
    with pytest.raises(DataError, match="no folder of a station"):
        back_up(StationSettings(data=tmp_path / "missing"), tmp_path / "out.tar")
    with pytest.raises(DataError, match="cannot be written"):
        back_up(filled, tmp_path / "missing" / "out.tar")
    with pytest.raises(DataError, match="does not exist"):
        restore(tmp_path / "missing.tar", StationSettings(data=tmp_path / "restored"))
    (tmp_path / "text.tar").write_text("text")
    with pytest.raises(DataError, match="no whole backup"):
        restore(tmp_path / "text.tar", StationSettings(data=tmp_path / "restored"))


def killed(script, *arguments):
    """Run a script that kills itself in the middle."""
    done = subprocess.run([sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr


KILL_IN_THE_MIDDLE = """
import os, signal, sys
from pathlib import Path
from hyperspot.service import backup
from hyperspot.service.settings import StationSettings
usual, left = getattr(backup, sys.argv[1]), [3]
def counting(*arguments):
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    return usual(*arguments)
setattr(backup, sys.argv[1], counting)
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_backup_killed_in_the_middle_leaves_no_file(filled, tmp_path):
    script = KILL_IN_THE_MIDDLE + "backup.back_up(StationSettings(data=Path(sys.argv[2])), Path(sys.argv[3]))"
    killed(script, "dump", filled.data, tmp_path / "station.tar")
    assert not (tmp_path / "station.tar").exists()
    back_up(filled, tmp_path / "station.tar")


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_a_restoration_killed_in_the_middle_is_done_again(filled, tmp_path):
    from hyperspot.service.serving import serve

    back_up(filled, tmp_path / "station.tar")
    target = StationSettings(data=tmp_path / "restored", port=0)
    script = KILL_IN_THE_MIDDLE + "backup.restore(Path(sys.argv[2]), StationSettings(data=Path(sys.argv[3])))"
    killed(script, "_extract", tmp_path / "station.tar", target.data)
    assert (target.data / UNFINISHED).exists()
    with pytest.raises(SettingsError, match="not finished"):
        serve(target, print)
    restore(tmp_path / "station.tar", target)
    assert reading(target) == reading(filled)
    assert files_of(target.data) == files_of(filled.data)
