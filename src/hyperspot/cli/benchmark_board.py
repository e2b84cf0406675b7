"""Progress of benchmark runs on stderr: live lines on a terminal, one line per start and end elsewhere."""

import time
from types import TracebackType

from rich.live import Live
from rich.table import Table

from hyperspot.benchmark.protocol import Run
from hyperspot.benchmark.records import Line
from hyperspot.cli import console

KEPT = 8
"""Finished runs that stay visible."""


class Board:
    """Shows running and finished runs; implements `benchmark.runner.Board`."""

    def __init__(self, *, live: bool | None = None) -> None:
        self._running: dict[str, tuple[str, float]] = {}
        self._ended: list[tuple[str, str, str]] = []
        self._todo = self._done = self._failed = 0
        self.live = console.err.is_terminal if live is None else live
        self._live = Live(console=console.err, get_renderable=self.drawn, refresh_per_second=4)

    def __enter__(self) -> "Board":
        """Start showing."""
        if self.live:
            self._live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stop, and leave the last state visible."""
        self._live.stop()

    def planned(self, todo: int, made: int) -> None:
        """Show the number of runs to do and of those already recorded."""
        self._todo = todo
        self._print(f"{todo} {'run' if todo == 1 else 'runs'} to do, {made} already recorded")

    def started(self, run: Run) -> None:
        """Show a run that starts."""
        self._running[run.label] = "starting", time.monotonic()
        if not self.live:
            self._print(f"started: {run.label}")

    def moved(self, run: Run, stage: str, done: int, total: int | None) -> None:
        """Show the stage of a run; on terminals only."""
        _, started = self._running[run.label]
        self._running[run.label] = f"{stage} {done}/{total}" if total else f"{stage} {done}", started

    def finished(self, run: Run, line: Line) -> None:
        """Show the result of a run."""
        _, started = self._running.pop(run.label)
        self._done += 1
        self._failed += "error" in line
        self._ended = [*self._ended, (run.label, result(line), _clock(started))][-KEPT:]
        if not self.live:
            outcome = "failed" if "error" in line else "done"
            self._print(f"{outcome}: {run.label}: {result(line)} ({self._todo - self._done} left)")

    def drawn(self) -> Table:
        """Return the running and the last finished runs as a table."""
        failed = f", {self._failed} failed" if self._failed else ""
        table = Table(title=f"{self._done} of {self._todo} runs{failed}", title_justify="left", box=None)
        for title in ("run", "", "time"):
            table.add_column(title, overflow="fold")
        for label, text, took in self._ended:
            table.add_row(label, text.replace("[", "\\["), took)
        for label, (stage, started) in self._running.items():
            table.add_row(label, stage, _clock(started), style="cyan")
        return table

    def _print(self, text: str) -> None:
        console.err.print(text, markup=False)


def result(line: Line) -> str:
    """Return the figures of a run, or its error."""
    if "error" in line:
        return str(line["error"])
    last = line.get("last", {})
    at_input = last.get("at_input", last)
    figures = {
        "I-AUROC": last.get("image_auroc"),
        "P-AUROC": at_input.get("pixel_auroc"),
        "AUPRO": at_input.get("aupro_30"),
    }
    known = [f"{title} {100 * figure:.2f}" for title, figure in figures.items() if figure is not None]
    return ", ".join(known) or f"modeling {line['training_seconds']} s, memory {line['bank_mb']} MB"


def _clock(started: float) -> str:
    seconds = int(time.monotonic() - started)
    return f"{seconds // 60}:{seconds % 60:02}"
