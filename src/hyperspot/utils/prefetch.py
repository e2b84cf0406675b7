"""Background threads that prepare items ahead of the consumer: in order, a bounded number at a time."""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

MOST_WORKERS = 8


def prefetch_map(function: Callable[[Item], Result], items: Iterable[Item], *, ahead: bool = True) -> Iterator[Result]:
    """Yield `function(item)` in order, computed by worker threads a few items ahead.

    A result is yielded as soon as it and all before it are ready, even while `items` waits for more input. `items`
    is iterated in a background thread. With `ahead=False` each result is computed when it is asked for, so that one at
    a time is in memory.

    Examples:
        >>> list(prefetch_map(abs, [-1, 2, -3]))
        [1, 2, 3]

    """
    for batch in prefetch_batches(function, items, 1, ahead=ahead):
        yield from batch


def prefetch_batches(
    function: Callable[[Item], Result], items: Iterable[Item], batch_size: int, *, ahead: bool = True
) -> Iterator[list[Result]]:
    """Yield the results of `prefetch_map` in batches of 1 to `batch_size`.

    With a sized collection all batches but the last are full, so that equal inputs give equal batches. With an iterator
    a batch holds what is ready, so that a slow source is answered at once. With `ahead=False` a batch is one result.

    Raises ValueError if the batch size is below 1, and whatever `function` or `items` raises.

    Examples:
        >>> sum(prefetch_batches(abs, range(-3, 0), 2), [])
        [3, 2, 1]

    """
    if batch_size < 1:
        raise ValueError(f"a batch holds at least 1 item, not {batch_size}")
    if not ahead:
        yield from ([function(item)] for item in items)
        return
    full = isinstance(items, Sized)
    with _feeding(function, items, batch_size) as pending:
        while batch := pending.take(batch_size, full=full):
            yield batch


def latest(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the newest item available at each request and drop those that arrived in between.

    `items`, for example the frames of a camera, is iterated in a background thread that never waits for the consumer.

    Examples:
        >>> list(latest(iter([1, 2, 3])))[-1]
        3

    """
    slot = _Slot[Item]()
    threading.Thread(target=slot.fill, args=(items,), name="latest", daemon=True).start()
    try:
        yield from slot
    finally:
        slot.stop()


class _Pending(Generic[Result]):
    """Futures in order, at most `limit` of them; the feeder waits for room."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._futures: deque[Future[Result]] = deque()
        self._changed = threading.Condition()
        self._ended = False
        self.stopped = False

    def put(self, future: Future[Result]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._futures) < self._limit or self.stopped)
            if self.stopped:
                future.cancel()
            else:
                self._futures.append(future)
                self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self.stopped = True
            for future in self._futures:
                future.cancel()
            self._changed.notify_all()

    def take(self, most: int, *, full: bool) -> list[Result]:
        """Return the next results: `most` of them if `full`, else those that are ready; an empty list at the end."""
        results: list[Result] = []
        while len(results) < most:
            with self._changed:
                if full or not results:
                    self._changed.wait_for(lambda: self._futures or self._ended)
                if not self._futures or not (full or not results or self._futures[0].done()):
                    break
                first = self._futures[0]
            # Not popped before it is done: it still occupies its place in the bounded queue.
            if first.exception() is not None and results:
                break  # Raised by the next call, after the results before it were consumed.
            results.append(first.result())
            with self._changed:
                self._futures.popleft()
                self._changed.notify_all()
        return results


@contextmanager
def _feeding(function: Callable[[Item], Result], items: Iterable[Item], batch_size: int) -> Iterator[_Pending[Result]]:
    workers = max(2, min(MOST_WORKERS, os.cpu_count() or 2))
    pending: _Pending[Result] = _Pending(2 * workers + batch_size - 1)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="prefetch")

    def feed() -> None:
        try:
            for item in items:
                if pending.stopped:
                    return
                pending.put(pool.submit(function, item))
        except BaseException as error:  # noqa: BLE001 - raised in the consumer's thread
            failed: Future[Result] = Future()
            failed.set_exception(error)
            pending.put(failed)
        finally:
            pending.end()

    # A daemon: an input such as stdin may block forever after the consumer has left.
    threading.Thread(target=feed, name="prefetch-feed", daemon=True).start()
    try:
        yield pending
    finally:
        pending.stop()
        pool.shutdown(wait=False, cancel_futures=True)


class _Slot(Generic[Item]):
    """One place for the newest item; the end and an error of the source come through it as well."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: list[Item] = []
        self._ended = False
        self._error: BaseException | None = None

    def fill(self, items: Iterable[Item]) -> None:
        try:
            for item in items:
                with self._changed:
                    if self._ended:
                        return
                    self._waiting = [item]
                    self._changed.notify_all()
        except BaseException as error:  # noqa: BLE001 - raised in the consumer's thread
            self._error = error
        finally:
            self.stop()

    def stop(self) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                taken, self._waiting = self._waiting, []
            if not taken:
                if self._error is not None:
                    raise self._error
                return
            yield taken[0]
