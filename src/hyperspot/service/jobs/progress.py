"""The progress of a job, for the database."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass
class _Stage:
    name: str
    total: int | None
    started: float
    done: int = 0

    def seconds_left(self, now: float) -> float | None:
        if not self.done or not self.total:
            return None
        return (now - self.started) / self.done * max(0, self.total - self.done)


class JobProgress:
    """Follows the stages of a job; one thread works, another asks.

    Examples:
        >>> from hyperspot.service.jobs.progress import JobProgress
        >>> times = iter([0.0, 10.0, 10.0])
        >>> progress = JobProgress(clock=lambda: next(times))
        >>> images = progress.track(["a", "b", "c"], "scoring")
        >>> next(images), next(images), progress.snapshot()
        ('a', 'b', {'stage': 'scoring', 'done': 1, 'total': 3, 'seconds_left': 20.0})

    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stages: list[_Stage] = []
        self._numbers: dict[str, float] = {}
        self._lock = threading.Lock()

    def track(self, items: Iterable[T], stage: str, total: int | None = None) -> Iterator[T]:
        """Yield `items` and count them."""
        if total is None and isinstance(items, Sized):
            total = len(items)
        current = _Stage(stage, total, self._clock())
        with self._lock:
            self._stages.append(current)
            self._numbers = {}
        try:
            for item in items:
                yield item
                current.done += 1
        finally:
            with self._lock:
                self._stages.remove(current)

    def note(self, **values: int | float) -> None:
        """Keep the latest numbers of the running stage."""
        with self._lock:
            self._numbers = dict(values)

    def snapshot(self) -> dict[str, Any]:
        """Return `stage`, `done`, `total` and `seconds_left` of the innermost stage; empty between stages.

        The time left is that of the outermost stage that has begun to count.
        """
        with self._lock:
            if not self._stages:
                return {}
            now = self._clock()
            left = next((one for stage in self._stages if (one := stage.seconds_left(now)) is not None), None)
            inner = self._stages[-1]
            numbers = {"numbers": dict(self._numbers)} if self._numbers else {}
            return {
                "stage": inner.name,
                "done": inner.done,
                "total": inner.total,
                "seconds_left": None if left is None else round(left, 1),
            } | numbers
