"""Suppresses Pillow's own warnings, which name no file, in threads that decode for us."""

import contextlib
import threading
import warnings
from collections.abc import Iterator
from typing import Any


class _PillowInThisThread:
    """Stands for the pattern of a module's name in a filter of `warnings`; matches Pillow in decoding threads.

    Filters belong to the process, and `warnings.catch_warnings` replaces them for every thread at once. The pattern is
    matched in the thread that warns, so that one filter serves all threads and changes nothing else.
    """

    def __init__(self) -> None:
        self._thread = threading.local()

    def match(self, module: str) -> bool:
        if not getattr(self._thread, "decodes", False) or module.partition(".")[0] != "PIL":
            return False
        self._thread.heard = self.heard + 1
        return True

    @property
    def heard(self) -> int:
        """Number of warnings suppressed in this thread."""
        return getattr(self._thread, "heard", 0)

    @contextlib.contextmanager
    def decoding(self) -> Iterator[None]:
        before = getattr(self._thread, "decodes", False)
        self._thread.decodes = True
        try:
            yield
        finally:
            self._thread.decodes = before


_pillow = _PillowInThisThread()
_FILTER = ("ignore", None, Warning, _pillow, 0)


@contextlib.contextmanager
def pillow_hushed() -> Iterator[None]:
    """Suppress Pillow's warnings in this thread; its exceptions and all other warnings are unchanged."""
    filters: list[Any] = warnings.filters  # type: ignore[assignment]
    # Other filters may have been put before it; moved, not added, so that the list does not grow.
    if not filters or filters[0] is not _FILTER:
        with contextlib.suppress(ValueError):
            filters.remove(_FILTER)
        filters.insert(0, _FILTER)
    with _pillow.decoding():
        yield


def heard() -> int:
    """Return how many of Pillow's warnings were suppressed in this thread so far."""
    return _pillow.heard
