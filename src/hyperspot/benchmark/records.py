"""The JSON lines, one per run: every table is drawn from them, and finished runs are found in them."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hyperspot.benchmark.protocol import Run, key
from hyperspot.errors import DataError

FORMAT = 2
"""Format of the lines; those of format 1 name settings that have changed since."""

Line = dict[str, Any]


def read(paths: Iterable[Path]) -> tuple[list[Line], list[str]]:
    """Return the lines of some files in order, and a sentence on each line that was skipped.

    Raises DataError if a file cannot be read or was written by a newer version.
    """
    lines: list[Line] = []
    problems: list[str] = []
    for path in paths:
        try:
            texts = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not a text file"
            raise DataError(f"cannot read {path} ({reason}); give a file of lines written by `benchmark`") from None
        for number, text in enumerate(texts, 1):
            if text.strip():
                line, problem = _parsed(text, f"{path}, line {number}")
                lines += [line] if line is not None else []
                problems += [problem] if problem else []
    return lines, problems


def _parsed(text: str, where: str) -> tuple[Line | None, str]:
    try:
        line = json.loads(text)
    except ValueError:
        return None, f"{where}: incomplete, as after an interruption; skipped"
    if not isinstance(line, dict) or not {"recipe", "category", "seed"} <= line.keys():
        return None, f"{where}: not a run; skipped"
    if line.get("format", 1) > FORMAT:
        raise DataError(f"{where}: written by a newer hyperspot; update this one")
    if line.get("format", 1) < FORMAT:
        return None, f"{where}: written by an older hyperspot; skipped, run it again"
    return line, ""


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Append one line; raises DataError if the file cannot be written."""
    text = json.dumps(line, allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            # A line that an interruption cut short must not swallow this one.
            if file.tell() and not _ends_a_line(path):
                text = "\n" + text
            file.write(text.encode())
    except OSError as error:
        raise DataError(f"cannot write {path} ({error.strerror}); choose another --out") from None


class Ledger:
    """The runs that are already recorded."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self._made: dict[str, list[Line]] = {}
        for line in lines:
            if "error" not in line:
                self._made.setdefault(key(line), []).append(line)

    def has(self, run: Run, *, timed: bool = False) -> bool:
        """Return whether a run is recorded, with checkpoints if it asks for them.

        Args:
            run: The run.
            timed: Whether it must have been timed with no other run beside it.

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
