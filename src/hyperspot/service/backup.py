"""Backup of a station into one file, while it runs, and its restoration into an empty folder and any database.

The file is a TAR archive: `station.json`, the rows as `tables/NAME.jsonl`, the files of `images/`, `results/` and
`models/`, and last `SHA256SUMS` of all of them.
"""

import hashlib
import io
import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from alembic.migration import MigrationContext
from sqlalchemy.exc import SQLAlchemyError

from hyperspot import __version__
from hyperspot.errors import DataError
from hyperspot.service.database import Database
from hyperspot.service.database.rows import TABLES, begin_snapshot, dump, is_empty, load
from hyperspot.service.database.tables import now
from hyperspot.service.serving import LOCK, UNFINISHED, locked
from hyperspot.service.settings import StationSettings
from hyperspot.utils.atomic_files import replacing

FORMAT = 1
ABOUT, SUMS = "station.json", "SHA256SUMS"
IMAGES, MODELS = ("images", "results"), ("models",)
FILE_NAME = re.compile(r"(images|results|models)/[0-9a-f]{2,64}/[\w.-]{1,120}", re.ASCII)
"""Of files in a backup; a name that leads elsewhere is refused."""
TABLE_NAME = re.compile(r"tables/(\w+)\.jsonl", re.ASCII)


@runtime_checkable
class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """Return the next bytes, at most `size` of them; all if that is negative."""
        ...


@dataclass(frozen=True)
class Backup:
    """What a backup holds.

    Attributes:
        rows: In all tables.
        files: Of images, anomaly maps and models.
        size: Bytes of the file.
        removed: Files that retention removed while the backup was made.
    """

    rows: int
    files: int
    size: int
    removed: int = 0

    def to_dict(self) -> dict[str, int]:
        """Return JSON values."""
        return asdict(self)


def back_up(settings: StationSettings, output: Path, *, images: bool = True) -> Backup:
    """Write all of a station into a file, which appears whole or not at all; the station may run.

    Args:
        settings: Folder and database of the station.
        output: File to write; an existing one is replaced.
        images: Also the images and anomaly maps, which are most of the size.

    Raises:
        DataError: If there is no station, or the file cannot be written.
        SettingsError: If the database cannot be opened.
    """
    is_station = settings.data.is_dir() if settings.database else (settings.data / "station.sqlite").is_file()
    if not is_station:
        # An empty database would be made, and its backup look like one of the station.
        raise DataError(f"{settings.data} is no folder of a station; check the name, or give its --database")
    database = Database(settings.database_address)
    try:
        database.migrate()
        with replacing(output) as partial:
            # It holds hashes of passwords, and the passwords of brokers.
            partial.chmod(0o600)
            with tarfile.open(partial, "w", format=tarfile.PAX_FORMAT) as archive:
                made = _write(_Writer(archive), settings, database, images)
            size = partial.stat().st_size
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise DataError(f"{output} cannot be written: {reason}; check the folder and its space") from None
    finally:
        database.close()
    return Backup(made.rows, made.files, size, made.removed)


class _Writer:
    """Adds members to an archive and keeps their SHA-256."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self._sums: list[str] = []

    def add(self, name: str, stream: Readable, size: int) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = size, 0o600
        hashing = _Hashing(stream)
        self._archive.addfile(member, hashing)
        self._sums.append(f"{hashing.digest.hexdigest()}  {name}\n")

    def finish(self) -> None:
        self.add(SUMS, io.BytesIO("".join(self._sums).encode()), sum(map(len, self._sums)))


class _Hashing:
    """A stream that hashes what is read."""

    def __init__(self, stream: Readable) -> None:
        self._stream, self.digest = stream, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        content = self._stream.read(size)
        self.digest.update(content)
        return content


def _write(writer: _Writer, settings: StationSettings, database: Database, images: bool) -> Backup:
    rows = files = removed = 0
    with database.engine.connect() as connection:
        begin_snapshot(connection)
        about = {
            "format": FORMAT,
            "hyperspot": __version__,
            "schema": MigrationContext.configure(connection).get_current_revision(),
            "made_at": now().isoformat(),
            "images": images,
        }
        content = json.dumps(about).encode()
        writer.add(ABOUT, io.BytesIO(content), len(content))
        for table in TABLES:
            with tempfile.TemporaryFile() as lines:
                for line in dump(connection, table):
                    lines.write(line)
                    rows += 1
                size = lines.tell()
                lines.seek(0)
                writer.add(f"tables/{table.name}.jsonl", lines, size)
        connection.rollback()
    # After the rows: a file is written before the row that names it.
    for path in _files(settings.data, MODELS + IMAGES if images else MODELS):
        try:
            stream = path.open("rb")
        except FileNotFoundError:
            removed += 1
            continue
        with stream:
            writer.add(path.relative_to(settings.data).as_posix(), stream, path.stat().st_size)
            files += 1
    writer.finish()
    return Backup(rows, files, 0, removed)


def _files(data: Path, folders: tuple[str, ...]) -> Iterator[Path]:
    """Yield whole files; those that are being written begin with a dot."""
    for folder in folders:
        for inner in sorted((data / folder).glob("[!.]*")):
            yield from sorted(path for path in inner.glob("[!.]*") if path.is_file())


def restore(file: Path, settings: StationSettings) -> Backup:
    """Make a station of a backup; all or nothing.

    Args:
        file: Made by `back_up`.
        settings: Folder, which is empty or missing, and database, which is empty, of the new station.

    Raises:
        DataError: If the file is damaged or of another version, or the folder or the database is not empty.
        SettingsError: If the database cannot be opened, or a station runs in the folder.
    """
    if not file.is_file():
        raise DataError(f"{file} does not exist; check the name")
    with locked(settings.data):
        _empty(settings.data)
        (settings.data / UNFINISHED).touch()
        database = Database(settings.database_address)
        try:
            database.migrate()
            restored = _read(file, settings.data, database)
        except BaseException:
            database.close()
            _remove_all(settings.data)
            (settings.data / UNFINISHED).unlink()
            raise
        database.close()
        (settings.data / UNFINISHED).unlink()
    return restored


def _empty(data: Path) -> None:
    """Remove what a killed restoration left; raises DataError if the folder holds anything else."""
    if (data / UNFINISHED).exists():
        _remove_all(data)
    if any(path.name not in (LOCK, UNFINISHED) for path in data.iterdir()):
        raise DataError(f"{data} is not empty; choose a new folder, so that nothing is lost")


def _remove_all(data: Path) -> None:
    for path in data.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in (LOCK, UNFINISHED):
            path.unlink()


def _read(file: Path, data: Path, database: Database) -> Backup:
    rows = files = 0
    sums: list[str] = []
    listed: list[str] | None = None
    tables = {table.name: table for table in TABLES}
    try:
        with tarfile.open(file, "r:") as archive, database.engine.begin() as connection:
            if not is_empty(connection):
                raise DataError("the database is not empty; give an empty one, so that nothing is lost")
            for member in archive:
                stream = archive.extractfile(member) if member.isreg() else None
                if stream is None:
                    raise ValueError(f"{member.name[:100]} is no file")
                hashing = _Hashing(stream)
                if member.name == SUMS:
                    listed = hashing.read().decode().splitlines()
                    continue
                if member.name == ABOUT:
                    _check_about(file, json.loads(hashing.read()), connection)
                elif match := TABLE_NAME.fullmatch(member.name):
                    rows += load(connection, tables[match[1]], _lines(hashing))
                elif FILE_NAME.fullmatch(member.name):
                    _extract(hashing, data / member.name)
                    files += 1
                else:
                    raise ValueError(f"{member.name[:100]} does not belong in a backup")
                sums.append(f"{hashing.digest.hexdigest()}  {member.name}")
            if listed is None or sums != listed:
                raise ValueError("its checksums differ" if listed else "its end is missing")
    except (tarfile.TarError, ValueError, KeyError, EOFError, SQLAlchemyError) as error:
        reason = str(getattr(error, "orig", error)).strip().splitlines()[:1]
        raise DataError(
            f"{file} is no whole backup ({''.join(reason)}); copy it again, or use an earlier one"
        ) from None
    return Backup(rows, files, file.stat().st_size)


def _check_about(file: Path, about: dict[str, Any], connection: Any) -> None:
    schema = MigrationContext.configure(connection).get_current_revision()
    if about["format"] != FORMAT or about["schema"] != schema:
        raise DataError(
            f"{file} was made by hyperspot {about['hyperspot']}, whose database differs; restore it with that version, "
            "then update"
        )


def _lines(stream: _Hashing) -> Iterator[bytes]:
    rest = b""
    while content := stream.read(1 << 20):
        *lines, rest = (rest + content).split(b"\n")
        yield from lines
    if rest:
        raise ValueError("a row is cut off")


def _extract(stream: _Hashing, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as sink:
        shutil.copyfileobj(stream, sink)
