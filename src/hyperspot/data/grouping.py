"""Groups of images that belong together, such as lots, days or bursts, from a rule (`--group-by`).

Images of one group are held out together in calibration, so that the promise holds for a new group.
"""

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path

from hyperspot.errors import DataError

FOLDER, PATTERN = "folder", "pattern:"
TABLE = re.compile(r"(?P<table>.+\.csv):(?P<column>.+)", re.IGNORECASE)
IMAGE_COLUMNS = ("image", "path", "file", "filename")
"""Names of the column that holds the images."""


def groups_of(paths: Sequence[Path], rule: str) -> list[str]:
    """Return the group of each image.

    Args:
        paths: Image files.
        rule: `folder` for the folder of each image; a regular expression whose first group, or whole match, found in
            the file name, names the group (`pattern:` may stand before it); or `TABLE.csv:COLUMN` for a column of a
            CSV table with a column `image` of paths relative to the table, or of file names in any folder.

    Raises:
        DataError: The rule is malformed, the table or a column is missing, or an image has no group.

    Examples:
        >>> groups_of([Path("lot7_001.png"), Path("lot7_002.png"), Path("lot8_001.png")], r"(lot\\d+)_")
        ['lot7', 'lot7', 'lot8']
        >>> groups_of([Path("monday/1.png"), Path("tuesday/1.png")], "folder")
        ['monday', 'tuesday']

    """
    if rule == FOLDER:
        return _folders(paths)
    table = None if rule.startswith(PATTERN) else TABLE.fullmatch(rule)
    if table is not None:
        return _from_table(paths, Path(table["table"]), table["column"])
    return _from_pattern(paths, rule.removeprefix(PATTERN))


def _folders(paths: Sequence[Path]) -> list[str]:
    """Return the folder of each image, relative to the folder that holds them all, which is `.` itself."""
    folders = [path.resolve().parent for path in paths]
    if not folders:
        return []
    root = Path(os.path.commonpath(folders))
    return [folder.relative_to(root).as_posix() for folder in folders]


def _from_pattern(paths: Sequence[Path], pattern: str) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(
            f"--group-by '{pattern}' is no regular expression ({error}); "
            "give folder, a regular expression with one group, or TABLE.csv:COLUMN"
        ) from None
    if not pattern or compiled.groups > 1:
        raise DataError(
            f"--group-by '{pattern}' has {compiled.groups} groups; put parentheses around the name of the lot, once"
        )
    groups = []
    for path in paths:
        match = compiled.search(path.name)
        name = match[compiled.groups] if match else None
        if not name:
            raise DataError(f"{path} does not match --group-by '{pattern}'; change the pattern or rename the image")
        groups.append(name)
    return groups


def _from_table(paths: Sequence[Path], table: Path, column: str) -> list[str]:
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            columns, rows = reader.fieldnames or [], list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise DataError(f"{table} cannot be read ({reason}); check the table of --group-by") from None
    images = next((name for name in columns if name.strip().lower() in IMAGE_COLUMNS), None)
    if images is None:
        raise DataError(f"{table} has no column 'image'; its columns are {', '.join(columns) or 'none'}")
    if column not in columns:
        raise DataError(f"{table} has no column '{column}'; its columns are {', '.join(columns)}")
    by_path: dict[Path, set[str]] = {}
    by_name: dict[str, set[str]] = {}
    for row in rows:
        name, group = (row[images] or "").strip(), (row[column] or "").strip()
        by_path.setdefault((table.parent / name).resolve(), set()).add(group)
        if Path(name).name == name:  # a row with a folder is that image alone
            by_name.setdefault(name, set()).add(group)
    groups = []
    for path in paths:
        named = by_path.get(path.resolve()) or by_name.get(path.name, set())
        found = next(iter(named)) if len(named) == 1 else ""
        if not found:
            several = f"has several rows named {path.name}" if len(named) > 1 else f"has no '{column}' for {path}"
            raise DataError(f"{table} {several}; give each image one row with its path and its group")
        groups.append(found)
    return groups
