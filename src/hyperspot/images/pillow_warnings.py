"""Keeps Pillow's own warnings, which name no photo, away from people while a thread of ours decodes."""

import contextlib
import threading
import warnings
from collections.abc import Iterator
from typing import Any


class _PillowHere:
    """Stands in a filter of `warnings` for the pattern of a module's name; matches Pillow in threads that decode.

    Filters belong to the process and `warnings.catch_warnings` swaps them for every thread at once. A pattern is
    asked in the thread that warns, so that one filter is enough for all and nothing else in the process is touched.
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
        """How many warnings were kept away in this thread."""
        return getattr(self._thread, "heard", 0)

    @contextlib.contextmanager
    def decoding(self) -> Iterator[None]:
        before = getattr(self._thread, "decodes", False)
        self._thread.decodes = True
        try:
            yield
        finally:
            self._thread.decodes = before


_pillow = _PillowHere()
_FILTER = ("ignore", None, Warning, _pillow, 0)


@contextlib.contextmanager
def pillow_hushed() -> Iterator[None]:
    """Keep Pillow's warnings of this thread away; what it raises, and what others warn of, is as ever."""
    filters: list[Any] = warnings.filters  # type: ignore[assignment]
    # Whoever enters or leaves `catch_warnings` or sets filters of their own may put others before it.
    if not filters or filters[0] is not _FILTER:
        filters.insert(0, _FILTER)
    with _pillow.decoding():
        yield


def heard() -> int:
    """Return how many of Pillow's warnings were kept away in this thread so far."""
    return _pillow.heard
