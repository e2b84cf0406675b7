"""The process of one run: a task comes on stdin, in one line; progress and the result go to stdout as JSON lines.

Stdin stays open as long as whoever wants the result lives; where it ends, so does the run.

A process for each run gives a peak memory that is the run's own, hands everything back to the system, and lets the
others go on where one is killed.
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

SECONDS_BETWEEN_NOTES = 0.3


class Telling:
    """A listener that tells where the work is, a few times a second at most."""

    def __init__(self, out: Any) -> None:
        self._out = out
        self._last = 0.0

    def track(self, items: Iterable[T], stage: str, total: int | None = None) -> Iterator[T]:
        """Yield `items` and tell how many of `total` are done."""
        if total is None and isinstance(items, Sized):
            total = len(items)
        for done, item in enumerate(items):
            if time.monotonic() - self._last > SECONDS_BETWEEN_NOTES:
                self._last = time.monotonic()
                say(self._out, {"stage": stage, "done": done, "total": total})
            yield item

    def note(self, **values: int | float) -> None:
        """Leave the numbers of a stage to those who train alone."""


def say(out: Any, message: dict[str, Any]) -> None:
    """Write one message on one line."""
    out.write(json.dumps(message, allow_nan=False) + "\n")
    out.flush()


def main() -> None:
    """Make the run that stdin tells of."""
    # Messages keep the real stdout to themselves: what a library prints there goes to stderr.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    task = json.loads(sys.stdin.readline())
    threading.Thread(target=_leave_with_the_asker, daemon=True).start()
    try:
        import torch

        from hyperspot.benchmark.measuring import circumstances, measure
        from hyperspot.benchmark.tasks import run_of

        torch.set_num_threads(task["threads"])
        place = Path(task["data"]), task["chosen"], task["weights"]
        found = measure(run_of(task), *place, Telling(out), device=task["device"])
        say(out, {"result": {**found, **circumstances(task["device"])}})
    except HyperspotError as error:
        say(out, {"error": str(error)})
    except Exception as error:
        # A fault of ours: the line names it, the traceback goes to stderr, and the other runs go on.
        say(out, {"error": f"{type(error).__name__}: {error}"})
        raise


def _leave_with_the_asker() -> None:
    """End this process when stdin ends: however the asker was killed, nobody would read the result."""
    # By the descriptor: a buffered reader that waits holds a lock which the end of an ordinary run would stumble on.
    while os.read(0, 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
