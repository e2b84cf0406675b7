"""Makes the runs: several at a time where memory and cores allow, each in a process of its own, each kept at once."""

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
from hyperspot.benchmark.protocol import Run
from hyperspot.benchmark.records import Ledger, Line
from hyperspot.benchmark.tasks import Task
from hyperspot.hardware.cpu import cores

EXPECTED_MB = 4096
"""Memory a run is expected to take where no earlier one of its kind tells."""
WORKER = (sys.executable, "-m", "hyperspot.benchmark.worker")
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@runtime_checkable
class Board(Protocol):
    """Who is told how the runs go."""

    def planned(self, todo: int, made: int) -> None:
        """Learn how many runs there are to make, and how many were made before."""
        ...

    def started(self, run: Run) -> None:
        """Learn that a run begins."""
        ...

    def moved(self, run: Run, stage: str, done: int, total: int | None) -> None:
        """Learn where a run is."""
        ...

    def finished(self, run: Run, line: Line) -> None:
        """Learn what a run gave; its line holds `error` where it failed."""
        ...


@dataclass
class Resources:
    """What the runs may take together.

    Attributes:
        jobs: Runs at a time at most.
        cores: Shared out among them.
        memory_mb: Free when the benchmark began; none where the system does not tell.

    """

    jobs: int
    cores: int
    memory_mb: int | None

    @property
    def threads(self) -> int:
        """How many threads each run may use."""
        return max(1, self.cores // self.jobs)

    def fits(self, wanted_mb: int, running_mb: Sequence[int]) -> bool:
        """Return whether a run may start beside those running; one alone always may."""
        if not running_mb:
            return True
        if len(running_mb) >= self.jobs:
            return False
        return self.memory_mb is None or sum(running_mb) + wanted_mb <= self.memory_mb


def resources(jobs: int | None, runs: int, *, timed: bool) -> Resources:
    """Return what may be taken on this machine.

    Args:
        jobs: Asked for; none decides by cores, of which every run has one at least.
        runs: How many there are to make.
        timed: Where times are measured, runs are made one after the other unless jobs are asked for.

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
    """Make the runs that do not stand in `lines` yet and return their lines, which also go to `out` one by one.

    A run that fails, or whose process is killed, gets a line with `error`; the others go on. Where it is interrupted
    all runs that had ended are kept.

    Args:
        tasks: What is to be done.
        out: The file of JSON lines.
        lines: Those that exist.
        board: Told how it goes.
        jobs: Runs at a time; none decides by cores and memory.
        table: Named in the command of each line.
        worker: The command of a run's process.

    Raises:
        DataError: Where `out` cannot be written to.

    """
    ledger = Ledger(lines)
    todo = [task for task in tasks if not ledger.has(task.run, timed=task.timed)]
    board.planned(len(todo), len(tasks) - len(todo))
    allowed = resources(jobs, len(todo), timed=any(task.timed for task in tasks))
    expected = _expectations(lines)
    events: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
    running: dict[int, _Running] = {}
    made: list[Line] = []
    number = 0
    try:
        while todo or running:
            while todo:
                task = todo[0]
                wanted = expected.get(_kind(task.run), EXPECTED_MB)
                if not allowed.fits(wanted, [one.expected_mb for one in running.values()]):
                    break
                todo.pop(0)
                board.started(task.run)
                running[number] = _start(task, number, wanted, allowed.threads, events, worker)
                number += 1
            which, message = events.get()
            one = running[which]
            if message is None:
                del running[which]
                line = _line(one, allowed, table)
                records.append(out, line)
                made.append(line)
                board.finished(one.task.run, line)
            elif "stage" in message:
                board.moved(one.task.run, message["stage"], message["done"], message["total"])
            else:
                one.answer = message
    finally:
        for one in running.values():
            one.process.kill()
            one.process.wait()
            one.errors.close()
    return made


def _start(
    task: Task,
    number: int,
    expected_mb: int,
    threads: int,
    events: "queue.Queue[tuple[int, dict[str, Any] | None]]",
    worker: Sequence[str],
) -> _Running:
    errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed when the run ends
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
        # It stays open: a run whose stdin ends has lost whoever asked for it.
        process.stdin.write(json.dumps(task.message(threads)) + "\n")
        process.stdin.flush()
    threading.Thread(target=_listen, args=(process, number, events), daemon=True).start()
    return _Running(task, process, errors, expected_mb)


def _listen(
    process: "subprocess.Popen[str]", number: int, events: "queue.Queue[tuple[int, dict[str, Any] | None]]"
) -> None:
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
    task = one.task
    line: Line = {
        "format": records.FORMAT,
        **task.run.to_dict(),
        "command": task.command(table),
        "jobs": allowed.jobs,
        "seconds": round(time.monotonic() - one.started, 2),
    }
    one.errors.seek(0)
    said = [text for text in one.errors.read().splitlines() if text.strip()]
    one.errors.close()
    if "result" in one.answer and one.process.returncode == 0:
        return {**line, **one.answer["result"]}
    if "error" in one.answer:
        return {**line, "error": one.answer["error"]}
    last = f": {said[-1]}" if said else ""
    code = one.process.returncode
    ended = f"was killed by signal {-code}, as where memory runs out" if code < 0 else f"ended with exit code {code}"
    return {**line, "error": f"the process of the run {ended}{last}"}


def _kind(run: Run) -> tuple[str, str, str]:
    return run.recipe, run.settings.backbone, run.settings.crops


def _expectations(lines: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str, str], int]:
    """Return the largest memory that earlier runs of each kind took, with a quarter to spare."""
    largest: dict[tuple[str, str, str], int] = {}
    for line in lines:
        if line.get("peak_memory_mb") and "settings" in line:
            kind = line["recipe"], line["backbone"], line["settings"]["crops"]
            largest[kind] = max(largest.get(kind, 0), line["peak_memory_mb"] * 5 // 4)
    return largest


def _free_mb() -> int | None:
    """Return the memory that is free; the whole of it where the system tells only that."""
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for text in meminfo.read_text().splitlines():
            if text.startswith("MemAvailable:"):
                return int(text.split()[1]) // 1024
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20
    return None
