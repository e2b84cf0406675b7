"""How the runs go, on stderr: one live table on a terminal, plain lines elsewhere."""

import time
from dataclasses import dataclass, field
from types import TracebackType

from rich.live import Live
from rich.table import Table as Drawn

from hyperspot.benchmark.protocol import Run
from hyperspot.benchmark.records import Line
from hyperspot.benchmark.selection import METRICS, value
from hyperspot.cli import console

KEPT = 8
"""Ended runs that stay in view."""


class PlainBoard:
    """Says one line when a run begins and one when it ends."""

    def __enter__(self) -> "PlainBoard":
        """Begin."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End."""

    def planned(self, todo: int, made: int) -> None:
        """Say how many runs there are."""
        self._left = todo
        console.err.print(summary(todo, made), markup=False)

    def started(self, run: Run) -> None:
        """Say which run begins."""
        console.err.print(f"begun: {run.label}", markup=False)

    def moved(self, run: Run, stage: str, done: int, total: int | None) -> None:
        """Say nothing: a log has no use for it."""

    def finished(self, run: Run, line: Line) -> None:
        """Say what a run gave."""
        self._left -= 1
        console.err.print(f"{outcome(line)}: {run.label}: {told(line)} ({self._left} left)", markup=False)


@dataclass
class _Shown:
    stage: str = "starting"
    started: float = field(default_factory=time.monotonic)


class LiveBoard:
    """A table of the runs under way and of the last that ended."""

    def __init__(self) -> None:
        self._running: dict[str, _Shown] = {}
        self._ended: list[tuple[str, str, str]] = []
        self._todo = self._done = self._failed = 0
        self._live = Live(console=console.err, get_renderable=self._drawn, refresh_per_second=4, transient=False)

    def __enter__(self) -> "LiveBoard":
        """Begin to show."""
        self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Leave the last state in view."""
        self._live.stop()

    def planned(self, todo: int, made: int) -> None:
        """Show how many runs there are."""
        self._todo = todo
        console.err.print(summary(todo, made), markup=False)

    def started(self, run: Run) -> None:
        """Show a run."""
        self._running[run.label] = _Shown()

    def moved(self, run: Run, stage: str, done: int, total: int | None) -> None:
        """Show where it is."""
        self._running[run.label].stage = f"{stage} {done}/{total}" if total else f"{stage} {done}"

    def finished(self, run: Run, line: Line) -> None:
        """Show what it gave."""
        shown = self._running.pop(run.label)
        self._done += 1
        self._failed += "error" in line
        self._ended.append((run.label, told(line), _clock(time.monotonic() - shown.started)))
        self._ended = self._ended[-KEPT:]

    def _drawn(self) -> Drawn:
        failed = f", {self._failed} failed" if self._failed else ""
        drawn = Drawn(title=f"{self._done} of {self._todo} runs{failed}", title_justify="left", box=None)
        for title in ("run", "", "time"):
            drawn.add_column(title, overflow="fold")
        for label, gave, took in self._ended:
            drawn.add_row(label, gave.replace("[", "\\["), took)
        for label, shown in self._running.items():
            drawn.add_row(label, shown.stage, _clock(time.monotonic() - shown.started), style="cyan")
        return drawn


def board() -> PlainBoard | LiveBoard:
    """Return what suits where stderr goes."""
    return LiveBoard() if console.err.is_terminal else PlainBoard()


def summary(todo: int, made: int) -> str:
    """Return how many runs there are to make, and how many stand in the file."""
    return f"{todo} runs to make, {made} stand in the lines already"


def outcome(line: Line) -> str:
    """Return whether a run succeeded, in one word."""
    return "failed" if "error" in line else "done"


def told(line: Line) -> str:
    """Return the figures of a run, or why it failed."""
    if "error" in line:
        return str(line["error"])
    parts = []
    for metric, title in METRICS.items():
        figure = value(line.get("last"), metric)
        if figure is not None:
            parts.append(f"{title} {100 * figure:.2f}")
    if not parts:
        parts.append(f"modeling {line['training_seconds']} s, memory {line['bank_mb']} MB")
    return ", ".join(parts)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
