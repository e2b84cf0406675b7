"""The JSON lines: one for each run, from which every table can be drawn and every run found again."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hyperspot.benchmark.protocol import Run, key
from hyperspot.errors import DataError

FORMAT = 2
"""Of the lines. Lines of the first named settings that have changed since."""

Line = dict[str, Any]


def read(paths: Iterable[Path]) -> tuple[list[Line], list[str]]:
    """Return the lines of some files in order, and what is wrong with those that had to be left out.

    Raises DataError where a file cannot be read or was written by a newer version.
    """
    lines: list[Line] = []
    problems: list[str] = []
    for path in paths:
        try:
            texts = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not text"
            raise DataError(f"{path} cannot be read ({reason}); give a file of lines made by `benchmark`") from None
        for number, text in enumerate(texts, 1):
            if not text.strip():
                continue
            where = f"{path}, line {number}"
            try:
                line = json.loads(text)
            except ValueError:
                problems.append(f"{where}, is not whole, as after an interruption; it is left out")
                continue
            if not isinstance(line, dict) or not {"recipe", "category", "seed"} <= line.keys():
                problems.append(f"{where}, is not a run; it is left out")
                continue
            if line.get("format", 1) > FORMAT:
                raise DataError(f"{where}, was written by a newer hyperspot; update this one")
            if line.get("format", 1) < FORMAT:
                problems.append(f"{where}, was written by an older hyperspot; it is left out and has to be run again")
                continue
            lines.append(line)
    return lines, problems


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Add one line at the end; raises DataError where that cannot be done."""
    text = json.dumps(line, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            # What an interruption cut short must not swallow the next line.
            if file.tell() and not _ends_a_line(path):
                text = "\n" + text
            file.write(text.encode())
    except OSError as error:
        raise DataError(f"{path} cannot be written to ({error.strerror}); choose another --out") from None


class Ledger:
    """Which runs stand in the lines already."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._made: dict[str, list[Line]] = {}
        for line in lines:
            self.add(line)

    def add(self, line: Line) -> None:
        """Count a line; one that tells of a failure does not count."""
        if "error" not in line:
            self._made.setdefault(key(line), []).append(line)

    def has(self, run: Run, *, timed: bool = False) -> bool:
        """Return whether a run was made, with checkpoints where it asks for them.

        Args:
            run: What is asked for.
            timed: Whether it must have been timed, with no other run beside it.

        """
        return any(
            line.get("weights") == run.weights
            and (not run.oracle or line.get("watched", False))
            and (not timed or (line.get("jobs") == 1 and "latency_ms" in line))
            for line in self._made.get(key(run.to_dict()), ())
        )


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"
