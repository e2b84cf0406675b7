"""Progress of long work, reported to whatever shows it."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar, runtime_checkable

T = TypeVar("T")


@runtime_checkable
class Progress(Protocol):
    """Shows the progress of long work: bars on the command line, nothing with `SILENT`."""

    def track(self, items: Iterable[T], stage: str, total: int | None = None) -> Iterator[T]:
        """Yield `items` unchanged, showing how many of `total` are done in `stage`."""
        ...

    def note(self, **values: int | float) -> None:
        """Show the latest numbers of the running stage, for example the loss."""
        ...


class Silent:
    """Shows nothing."""

    def track(self, items: Iterable[T], stage: str, total: int | None = None) -> Iterator[T]:  # noqa: ARG002
        """Yield `items` unchanged."""
        yield from items

    def note(self, **values: int | float) -> None:
        """Ignore the numbers."""


SILENT = Silent()
