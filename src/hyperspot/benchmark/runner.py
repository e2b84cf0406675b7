"""Makes the runs: several at a time as memory and cores allow, each in its own process, each recorded at once."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from hyperspot.benchmark import records
from hyperspot.benchmark.protocol import Run, Task
from hyperspot.benchmark.records import Ledger, Line
from hyperspot.hardware.cpu import cores

EXPECTED_MB = 4096
"""Expected memory of a run if no earlier one of its kind is recorded."""
# -P: a file of the working folder that is named like a package is not run.
WORKER = (sys.executable, "-P", "-m", "hyperspot.benchmark.worker")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

Events = queue.Queue[tuple[int, dict[str, Any] | None]]
Kind = tuple[str, str, str]


@runtime_checkable
class Board(Protocol):
    """Shows the progress of the runs."""

    def planned(self, todo: int, made: int) -> None:
        """Show the number of runs to do and of those already recorded."""
        ...

    def started(self, run: Run) -> None:
        """Show a run that starts."""
        ...

    def moved(self, run: Run, stage: str, done: int, total: int | None) -> None:
        """Show the stage of a run."""
        ...

    def finished(self, run: Run, line: Line) -> None:
        """Show the result of a run; its line holds `error` if it failed."""
        ...


@dataclass
class Resources:
    """The shared resources of the runs.

    Attributes:
        jobs: Most runs at a time.
        cores: Shared by them.
        memory_mb: Free memory at the start; None if the system does not report it.

    """

    jobs: int
    cores: int
    memory_mb: int | None

    @property
    def threads(self) -> int:
        """Threads per run."""
        return max(1, self.cores // self.jobs)

    def fits(self, wanted_mb: int, running_mb: Sequence[int]) -> bool:
        """Return whether a run may start beside those running; a single run always may."""
        if not running_mb:
            return True
        if len(running_mb) >= self.jobs:
            return False
        return self.memory_mb is None or sum(running_mb) + wanted_mb <= self.memory_mb


def resources(jobs: int | None, runs: int, *, timed: bool) -> Resources:
    """Return the resources of this machine.

    Args:
        jobs: Runs at a time; None: one per core, or 1 if `timed`.
        runs: Number of runs to make.
        timed: Whether times are measured.

    """
    usable = cores()
    allowed = os.environ.get("OMP_NUM_THREADS", "")
    chosen = jobs if jobs is not None else (1 if timed else usable)
    share = min(usable, int(allowed) * max(1, chosen)) if allowed.isdigit() and int(allowed) else usable
    return Resources(max(1, min(chosen, runs or 1)), share, _free_mb())


@dataclass
class _Running:
    task: Task
    process: "subprocess.Popen[str]"
    errors: Any
    expected_mb: int
    started: float = field(default_factory=time.monotonic)
    answer: dict[str, Any] = field(default_factory=dict)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.errors.close()


def make(
    tasks: Sequence[Task],
    out: Path,
    lines: Sequence[Line],
    board: Board,
    *,
    jobs: int | None,
    table: int,
    worker: Sequence[str] = WORKER,
) -> list[Line]:
    """Make the runs that are not in `lines` and return their lines, which are also appended to `out` one by one.

    A failed or killed run gets a line with `error`; the others continue. An interruption keeps all finished runs.

    Args:
        tasks: The tasks.
        out: File of JSON lines.
        lines: The recorded lines.
        board: Shows the progress.
        jobs: Runs at a time; None: by cores and memory.
        table: Named in the command of each line.
        worker: Command of a run's process.

    Raises:
        DataError: If `out` cannot be written.

    """
    ledger = Ledger(lines)
    todo = [task for task in tasks if not ledger.has(task.run, timed=task.timed)]
    board.planned(len(todo), len(tasks) - len(todo))
    allowed = resources(jobs, len(todo), timed=any(task.timed for task in tasks))
    expected = _expectations(lines)
    events: Events = queue.Queue()
    running: dict[int, _Running] = {}
    made: list[Line] = []
    try:
        while todo or running:
            while todo and allowed.fits(
                wanted := expected.get(_kind(todo[0].run.to_dict()), EXPECTED_MB),
                [one.expected_mb for one in running.values()],
            ):
                board.started(todo[0].run)
                number = len(tasks) - len(todo)
                running[number] = _start(todo.pop(0), number, wanted, allowed.threads, events, worker)
            which, message = events.get()
            one = running[which]
            if message is None:
                del running[which]
                made.append(_line(one, allowed, table))
                records.append(out, made[-1])
                board.finished(one.task.run, made[-1])
            elif "stage" in message:
                board.moved(one.task.run, message["stage"], message["done"], message["total"])
            else:
                one.answer = message
    finally:
        for one in running.values():
            one.stop()
    return made


def _start(task: Task, number: int, expected_mb: int, threads: int, events: Events, worker: Sequence[str]) -> _Running:
    errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed with the run
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and module; the task goes by stdin
        list(worker),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        encoding="utf-8",
        env={**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads))},
    )
    with contextlib.suppress(BrokenPipeError):
        assert process.stdin is not None
        # It stays open: the worker exits when its stdin ends.
        process.stdin.write(json.dumps(task.message(threads)) + "\n")
        process.stdin.flush()
    threading.Thread(target=_listen, args=(process, number, events), daemon=True).start()
    return _Running(task, process, errors, expected_mb)


def _listen(process: "subprocess.Popen[str]", number: int, events: Events) -> None:
    assert process.stdout is not None
    with process.stdout as messages:
        for text in messages:
            with contextlib.suppress(ValueError):
                events.put((number, json.loads(text)))
    process.wait()
    with contextlib.suppress(BrokenPipeError):
        assert process.stdin is not None
        process.stdin.close()
    events.put((number, None))


def _line(one: _Running, allowed: Resources, table: int) -> Line:
    """Return the line of a run whose process has ended."""
    line: Line = {
        "format": records.FORMAT,
        **one.task.run.to_dict(),
        "command": one.task.command(table),
        "jobs": allowed.jobs,
        "seconds": round(time.monotonic() - one.started, 2),
    }
    one.errors.seek(0)
    printed = [text for text in one.errors.read().splitlines() if text.strip()]
    one.errors.close()
    code = one.process.returncode
    if "result" in one.answer and code == 0:
        return {**line, **one.answer["result"]}
    if "error" in one.answer:
        return {**line, "error": one.answer["error"]}
    last = f": {printed[-1]}" if printed else ""
    ended = f"was killed by signal {-code}, possibly out of memory" if code < 0 else f"ended with exit code {code}"
    return {**line, "error": f"the process of the run {ended}{last}"}


def _kind(line: Mapping[str, Any]) -> Kind:
    return line["recipe"], line["backbone"], line["settings"]["crops"]


def _expectations(lines: Sequence[Line]) -> dict[Kind, int]:
    """Return the peak memory of the recorded runs of each kind, plus a quarter."""
    largest: dict[Kind, int] = {}
    for line in lines:
        if line.get("peak_memory_mb") and "settings" in line:
            largest[_kind(line)] = max(largest.get(_kind(line), 0), line["peak_memory_mb"] * 5 // 4)
    return largest


def _free_mb() -> int | None:
    """Return the available memory, or the total memory if the system reports only that."""
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for text in meminfo.read_text().splitlines():
            if text.startswith("MemAvailable:"):
                return int(text.split()[1]) // 1024
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    return None
