"""The process of one run: a task comes by stdin in one line, progress and result go to stdout as JSON lines.

A process per run measures the peak memory of that run, returns all memory to the system, and survives the death of the
others. It exits when its stdin ends.
"""

import json
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from pathlib import Path
from typing import Any, TypeVar

from hyperspot.errors import HyperspotError

T = TypeVar("T")

SECONDS_BETWEEN_MESSAGES = 0.3


class Reporter:
    """Progress as messages, a few per second at most."""

    def __init__(self, out: Any) -> None:
        self._out = out
        self._last = 0.0

    def track(self, items: Iterable[T], stage: str, total: int | None = None) -> Iterator[T]:
        """Yield `items` and report how many of `total` are done."""
        if total is None and isinstance(items, Sized):
            total = len(items)
        for done, item in enumerate(items):
            if time.monotonic() - self._last > SECONDS_BETWEEN_MESSAGES:
                self._last = time.monotonic()
                send(self._out, {"stage": stage, "done": done, "total": total})
            yield item

    def note(self, **values: int | float) -> None:
        """Ignore the numbers of a stage."""


def send(out: Any, message: dict[str, Any]) -> None:
    """Write one message on one line."""
    out.write(json.dumps(message, allow_nan=False) + "\n")
    out.flush()


def main() -> None:
    """Make the run of the task on stdin."""
    # Messages get the real stdout; what libraries print there goes to stderr.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    task = json.loads(sys.stdin.readline())
    try:
        import torch

        from hyperspot.benchmark.measuring import circumstances, measure
        from hyperspot.benchmark.protocol import run_of

        # After the imports: on Windows a blocked read of stdin stops libraries from loading.
        threading.Thread(target=_exit_with_stdin, daemon=True).start()

        torch.set_num_threads(task["threads"])
        place = Path(task["data"]), task["chosen"], task["weights"]
        found = measure(run_of(task), *place, Reporter(out), device=task["device"])
        send(out, {"result": {**found, **circumstances(task["device"])}})
    except HyperspotError as error:
        send(out, {"error": str(error)})
    except Exception as error:
        # A bug: the line names it, the traceback goes to stderr, and the other runs continue.
        send(out, {"error": f"{type(error).__name__}: {error}"})
        raise


def _exit_with_stdin() -> None:
    """Exit when stdin ends: nobody would read the result."""
    # By the descriptor: a blocked buffered reader holds a lock that the end of an ordinary run needs.
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
