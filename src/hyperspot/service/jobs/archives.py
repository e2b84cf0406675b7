"""Uploaded ZIP archives of images: kept by content, unpacked safely."""

import hashlib
import re
import secrets
import stat
import time
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Protocol, runtime_checkable

from hyperspot.errors import DataError
from hyperspot.images.finding import is_image_file
from hyperspot.utils.atomic_files import sync
from hyperspot.utils.zip_damage import DAMAGED, damage_of

MOST_FILES = 200_000
MOST_BYTES = 50_000_000_000
"""Unpacked."""
DATA_FILES = (".csv", ".json", ".jsonl", ".manifest", ".txt", ".yaml", ".yml")
"""Beside images, what layouts are described by."""
CHUNK = 2**20
KEEP_DAYS = 7.0
"""That an upload stays for imports; its images are kept by themselves."""
DIGEST = re.compile("[0-9a-f]{64}")
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)


@runtime_checkable
class Readable(Protocol):
    """An upload: a binary file, or what reads a request."""

    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes; none at the end."""
        ...


def keep_archive(data: Path, content: Readable, most_bytes: int) -> str:
    """Store an uploaded archive in the folder of the station and return its SHA-256, the parameter of the import.

    Args:
        data: Folder of the station.
        content: Read to its end, in pieces.
        most_bytes: Of the upload.

    Raises:
        DataError: If it is too large or no ZIP archive.
        OSError: If it cannot be written.

    Examples:
        >>> import io, tempfile, zipfile
        >>> from pathlib import Path
        >>> from hyperspot.service.jobs.archives import archive_path, keep_archive
        >>> content = io.BytesIO()
        >>> with zipfile.ZipFile(content, "w") as archive:
        ...     archive.writestr("good/1.png", b"...")
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = content.seek(0)
        ...     archive_path(Path(folder), keep_archive(Path(folder), content, 1000)).exists()
        True

    """
    folder = data / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{secrets.token_hex(8)}.partial"
    digest, size = hashlib.sha256(), 0
    try:
        with partial.open("xb") as file:
            while chunk := content.read(CHUNK):
                size += len(chunk)
                if size > most_bytes:
                    raise DataError(f"the archive has more than {most_bytes:,} bytes; upload it in parts")
                digest.update(chunk)
                file.write(chunk)
        if not zipfile.is_zipfile(partial):
            raise DataError("the upload is no ZIP archive; pack the folder of images as ZIP")
        sync(partial)
        partial.replace(archive_path(data, digest.hexdigest()))
    finally:
        partial.unlink(missing_ok=True)
    return digest.hexdigest()


def archive_path(data: Path, sha256: str) -> Path:
    """Return where an archive is kept; raises DataError if the text is no SHA-256."""
    if not DIGEST.fullmatch(sha256):
        raise DataError("an upload is named by its SHA-256, 64 hexadecimal digits; upload the archive first")
    return data / "uploads" / f"{sha256}.zip"


def remove_old(data: Path, days: float = KEEP_DAYS) -> int:
    """Remove the uploads that are older than so many days, also those that broke off, and return their number."""
    oldest, removed = time.time() - days * 86400, 0
    for path in (data / "uploads").glob("*"):
        if path.stat().st_mtime < oldest:
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def unpack(
    archive: Path,
    folder: Path,
    *,
    most_files: int = MOST_FILES,
    most_bytes: int = MOST_BYTES,
    track: Callable[[list[zipfile.ZipInfo]], "list[zipfile.ZipInfo]"] = list,
) -> None:
    """Unpack images and the files that describe them into a folder; everything else is left out.

    Args:
        archive: ZIP.
        folder: Nothing is written outside of it.
        most_files: In the archive.
        most_bytes: Unpacked; counted while they are written, because the header of an archive may lie.
        track: Wraps the files, for progress.

    Raises:
        DataError: If a name leads out of the folder, the archive is too large, damaged or encrypted, or holds no image.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [one for one in opened.infolist() if not one.is_dir()]
            if len(members) > most_files:
                raise DataError(f"the archive holds {len(members):,} files, more than {most_files:,}; divide it")
            targets = {one.filename: _target(folder, one) for one in members}
            wanted = [one for one in members if _is_wanted(PurePosixPath(one.filename.replace("\\", "/")))]
            if not any(is_image_file(targets[one.filename]) for one in wanted):
                raise DataError("the archive holds no image; pack PNG, JPEG, TIFF, BMP or WebP files")
            left = most_bytes
            for one in track(wanted):
                target = targets[one.filename]
                target.parent.mkdir(parents=True, exist_ok=True)
                with opened.open(one) as source, target.open("xb") as sink:
                    while chunk := source.read(CHUNK):
                        left -= len(chunk)
                        if left < 0:
                            raise DataError(f"the archive unpacks to more than {most_bytes:,} bytes; divide it")
                        sink.write(chunk)
    except FileExistsError:
        raise DataError("the archive holds a file twice; pack it again") from None
    except DAMAGED as error:
        if (damage := damage_of(error)) is None:
            raise
        raise DataError(f"the archive cannot be unpacked ({damage}); pack it again, without a password") from None


def _is_wanted(name: PurePosixPath) -> bool:
    if name.name.startswith(("._", ".")) or "__MACOSX" in name.parts:
        return False
    return is_image_file(Path(name.name)) or name.suffix.lower() in DATA_FILES


def _target(folder: Path, member: zipfile.ZipInfo) -> Path:
    """Return where a file of an archive is written; raises DataError if that is not inside the folder."""
    name = member.filename.replace("\\", "/")
    parts = PurePosixPath(name).parts
    is_link = stat.S_ISLNK(member.external_attr >> 16)
    unsafe = not parts or name.startswith("/") or ".." in parts or any(_is_odd(part) for part in parts)
    target = folder.joinpath(*parts)
    if is_link or unsafe or not target.resolve().is_relative_to(folder.resolve()):
        raise DataError(
            "the archive holds a link or a name that leads out of its folder; pack plain files with plain names"
        )
    return target


def _is_odd(part: str) -> bool:
    """Whether a part of a path means something else to a system: a drive, a device, a stream, a control character."""
    return ":" in part or bool(RESERVED.match(part)) or any(ord(character) < 32 for character in part)
