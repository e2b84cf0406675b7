"""The JSON lines: one for each run, from which every table can be drawn and every run found again."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hyperspot.benchmark.protocol import Run, key, settings_of
from hyperspot.errors import DataError, SettingsError

FORMAT = 2
"""Of the lines. The first, of before the command, had no number and named its settings alone."""

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
            lines.append(line if line.get("format") == FORMAT else _modern(line, where, problems))
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
            _same_weights(line, run)
            and (not run.oracle or line.get("watched", False))
            and (not timed or (line.get("jobs") == 1 and "latency_ms" in line))
            for line in self._made.get(key(run.to_dict()), ())
        )


def _same_weights(line: Line, run: Run) -> bool:
    """Old lines do not tell their weights; they were all made with real ones."""
    known = line.get("weights")
    return known == run.weights if known is not None else not (run.weights or "").startswith("random:")


def _modern(old: Line, where: str, problems: list[str]) -> Line:
    """Return a line of the first format as the second has it."""
    line = {
        "format": 1,
        "budget": "full",
        "measure": "accuracy",
        "method": "cfa",
        "backbone": "resnet18",
        "watched": "oracle" in old,
        **old,
        "recipe": f"cfa {old['recipe']}",
        "changes": old.get("changes", {}),
    }
    try:
        settings = settings_of(line["recipe"], backbone="resnet18", seed=line["seed"], changes=line["changes"])
        line["settings"] = settings.model_dump(mode="json")
    except SettingsError as error:
        problems.append(f"{where}, has a recipe that is no longer known ({error}); no table shows it")
    return line


def _ends_a_line(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read(1) == b"\n"
