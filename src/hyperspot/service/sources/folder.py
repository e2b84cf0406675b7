"""A watched folder: each complete image file is inspected once."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import watchfiles
from pydantic import Field, field_validator
from sqlalchemy import select

from hyperspot.service.database.tables import SourceFile
from hyperspot.service.finishing import in_thread
from hyperspot.service.form_settings import FormSettings
from hyperspot.service.problems import Problem
from hyperspot.service.sources.base import Capture, Inspect, Source, SourceContext, SourceError
from hyperspot.service.sources.folder_files import (
    FAILED,
    PROCESSED,
    FoundFile,
    RefusedFileError,
    WatchedFolder,
    digest_of,
)
from hyperspot.service.sources.patience import IMAGE_PROBLEMS, inspect_patiently
from hyperspot.service.sources.serial_numbers import SerialNumbers, TooSlowError, check_pattern

SECOND_LOOK = 5
"""An unreadable file may be half written: it is read again after this many times `steady_seconds`."""
AT_ONCE = 500
"""Paths in one query."""
FileKey = tuple[str, int, int]
log = logging.getLogger(__name__)


class FolderSettings(FormSettings):
    """Settings of a watched folder."""

    folder: Path = Field(title="Folder", description="Full path of the folder that images are written to")
    subfolders: bool = Field(False, title="Sub-folders", description="Watch the sub-folders, too")
    steady_seconds: float = Field(
        1.0, ge=0, le=600, title="Steady for", description="Seconds without a change after which a file is complete"
    )
    rescan_seconds: float = Field(
        10.0, gt=0, le=3600, title="Look every", description="Seconds between two looks at a network share"
    )
    after: Literal["leave", "move", "delete"] = Field(
        "leave",
        title="Afterward",
        description="Leave inspected files, move them to the sub-folder processed, or delete them; "
        "files that fail are moved to failed unless files are left",
    )
    duplicates: Literal["skip", "inspect"] = Field(
        "skip", title="Same content again", description="Skip a file with the content of an earlier one, or inspect it"
    )
    serial_number: str | None = Field(
        None,
        max_length=200,
        title="Serial number",
        description="Regular expression that finds the serial number in the file name, for example SN([0-9]+)",
    )
    max_megabytes: float = Field(200.0, gt=0, title="Largest file", description="Megabytes; larger files fail")

    @field_validator("folder")
    @classmethod
    def _absolute(cls, folder: Path) -> Path:
        if not folder.is_absolute():
            raise ValueError("give the full path of the folder")
        return folder

    @field_validator("serial_number")
    @classmethod
    def _pattern(cls, pattern: str | None) -> str | None:
        return pattern if pattern is None else check_pattern(pattern)


@dataclass
class _Waiting:
    """A file that may still be written.

    Attributes:
        file: As it was seen last.
        steady_at: Monotonic time when it is complete if it does not change.
        was_unreadable: The first attempt to read it failed.
    """

    file: FoundFile
    steady_at: float
    was_unreadable: bool = False


class Folder(Source):
    """Inspects the image files of a folder, the oldest first.

    The table `source_files` has a row for each file that was processed, skipped or failed. The idempotency key of an
    inspection follows from the file, so that a file whose inspection was recorded when the process ended, but not its
    row, is not inspected twice.
    """

    form = FolderSettings

    def __init__(self, settings: FolderSettings, context: SourceContext) -> None:
        super().__init__(settings, context)
        self._waiting: dict[str, _Waiting] = {}
        self._changed = asyncio.Event()
        self._numbers = SerialNumbers(settings.serial_number) if settings.serial_number else None

    async def run(self, inspect: Inspect) -> None:
        """Watch until canceled; raises SourceError if the folder is gone."""
        folder = await in_thread(WatchedFolder.open, self.settings.folder, self.settings.subfolders)
        identity = await in_thread(folder.identity)
        watching = asyncio.create_task(self._watch(folder))
        try:
            rescan_at = time.monotonic()
            while await in_thread(folder.identity) == identity:
                if time.monotonic() >= rescan_at:
                    await self._rescan(folder)
                    self.context.ready()
                    rescan_at = time.monotonic() + self.settings.rescan_seconds
                await self._take_complete(folder, inspect)
                await self._sleep(rescan_at)
        finally:
            watching.cancel()
            await asyncio.wait([watching])
            if self._numbers is not None:
                await self._numbers.close()
        raise SourceError("the folder was replaced by another one; watching starts again")

    async def _watch(self, folder: WatchedFolder) -> None:
        """Note changes as they happen; network shares tell of few, so that rescans find the rest."""
        try:
            async for changes in watchfiles.awatch(
                folder.root, watch_filter=None, recursive=folder.recursive, step=50, debounce=400, rust_timeout=1000
            ):
                for path in {path for change, path in changes if change != watchfiles.Change.deleted}:
                    self._note(await in_thread(folder.look, Path(path)))
        except (OSError, RuntimeError) as error:
            log.warning(
                "source '%s': changes of the folder are not told (%s); it is looked at every %g seconds",
                self.context.name,
                error,
                self.settings.rescan_seconds,
            )

    async def _rescan(self, folder: WatchedFolder) -> None:
        found = await in_thread(folder.scan)
        known = await in_thread(self._known, found)
        for file in found:
            state = known.get((file.path, file.size, file.modified_ns))
            if state is None:
                self._note(file)
            elif self.settings.after != "leave":
                # The process ended between the row and the move, or the setting changed.
                await in_thread(self._put_away, folder, file, state)

    def _note(self, file: FoundFile | None) -> None:
        if file is None:
            return
        waiting = self._waiting.get(file.path)
        if waiting is None or waiting.file != file:
            self._waiting[file.path] = _Waiting(file, time.monotonic() + self.settings.steady_seconds)
            self._changed.set()

    async def _sleep(self, until: float) -> None:
        """Sleep until the next file may be complete, or something changes."""
        self._changed.clear()
        until = min([until, *(waiting.steady_at for waiting in self._waiting.values())])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(until - time.monotonic(), 0)):
                await self._changed.wait()

    async def _take_complete(self, folder: WatchedFolder, inspect: Inspect) -> None:
        at = time.monotonic()
        complete = [waiting for waiting in self._waiting.values() if waiting.steady_at <= at]
        for waiting in sorted(complete, key=lambda one: one.file):
            now_file = await in_thread(folder.look, folder.root / waiting.file.path)
            if now_file == waiting.file:
                await self._take(folder, waiting, inspect)
            else:
                del self._waiting[waiting.file.path]
                self._note(now_file)

    async def _take(self, folder: WatchedFolder, waiting: _Waiting, inspect: Inspect) -> None:
        """Deal with a complete file; raises the Problem if not the file but the station is at fault."""
        file = waiting.file
        state = (await in_thread(self._known, [file])).get((file.path, file.size, file.modified_ns))
        if state is None:
            try:
                row = await self._inspect(folder, file, inspect)
            except FileNotFoundError:
                self._waiting.pop(file.path, None)
                return
            if row is None or (row.state == "failed" and not waiting.was_unreadable):
                delay = self.settings.steady_seconds * (1 if row is None else SECOND_LOOK)
                waiting.steady_at, waiting.was_unreadable = time.monotonic() + delay, row is not None
                return
            await in_thread(self._record, row)
            state = row.state
            if state == "failed":
                self.context.status.failed += 1
                self.context.status.note_error(f"{file.path}: {row.error}")
        await in_thread(self._put_away, folder, file, state)
        self._waiting.pop(file.path, None)

    async def _inspect(self, folder: WatchedFolder, file: FoundFile, inspect: Inspect) -> SourceFile | None:
        """Return the row of a file; None if it changed meanwhile."""
        row = SourceFile(
            source_id=self.context.id, path=file.path, size=file.size, modified_ns=file.modified_ns, state="failed"
        )
        try:
            content = await in_thread(folder.read, file, int(self.settings.max_megabytes * 1e6))
            if content is None:
                return None
            row.sha256 = await in_thread(digest_of, content)
            earlier = await in_thread(self._earlier, row.sha256) if self.settings.duplicates == "skip" else None
            if earlier is not None:
                row.state, row.inspection_number = "duplicate", earlier
                return row
            name = Path(file.path).name
            number = None if self._numbers is None else await self._numbers.find(name)
            key = digest_of(f"{row.source_id}|{file.path}|{file.size}|{file.modified_ns}|{row.sha256}".encode())
            capture = Capture(content, serial_number=number, idempotency_key=f"folder:{key}")
            inspection = await inspect_patiently(inspect, capture)
        except FileNotFoundError:
            raise
        except (RefusedFileError, TooSlowError) as error:
            row.error = str(error)
        except PermissionError:
            row.error = "the file cannot be read; give the user of the station the permission"
        except OSError as error:
            # The network share, not the file.
            raise SourceError(f"{file.path} cannot be read now ({error.strerror or error}); check the share") from None
        except Problem as problem:
            if problem.status not in IMAGE_PROBLEMS:
                raise
            row.error = problem.detail
        else:
            row.state, row.inspection_number = "processed", inspection.number
        return row

    def _known(self, files: Sequence[FoundFile]) -> dict[FileKey, str]:
        """Return the states of the files that have a row."""
        known: dict[FileKey, str] = {}
        with self.context.database.session() as session:
            for begin in range(0, len(files), AT_ONCE):
                query = select(SourceFile.path, SourceFile.size, SourceFile.modified_ns, SourceFile.state).where(
                    SourceFile.source_id == self.context.id,
                    SourceFile.path.in_([file.path for file in files[begin : begin + AT_ONCE]]),
                )
                known.update({(path, size, modified): state for path, size, modified, state in session.execute(query)})
        return known

    def _earlier(self, sha256: str) -> int | None:
        """Return the inspection of an earlier file with the same content."""
        query = (
            select(SourceFile.inspection_number)
            .where(
                SourceFile.source_id == self.context.id,
                SourceFile.sha256 == sha256,
                SourceFile.state == "processed",
            )
            .limit(1)
        )
        with self.context.database.session() as session:
            return session.scalar(query)

    def _record(self, row: SourceFile) -> None:
        with self.context.database.session() as session:
            session.add(row)

    def _put_away(self, folder: WatchedFolder, file: FoundFile, state: str) -> None:
        if self.settings.after == "leave":
            return
        if state == "failed":
            folder.move(file, FAILED)
        elif self.settings.after == "move":
            folder.move(file, PROCESSED)
        else:
            folder.remove(file)
