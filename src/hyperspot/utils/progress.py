"""How long work tells a person where it is, without knowing who listens."""

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar, runtime_checkable

T = TypeVar("T")


@runtime_checkable
class Progress(Protocol):
    """A listener for long work; the command line shows bars, tests and scripts pass `SILENT`."""

    def track(self, items: Iterable[T], stage: str, total: int | None = None) -> Iterator[T]:
        """Yield `items` unchanged while showing how many of `total` are done in `stage`."""
        ...

    def note(self, **values: int | float) -> None:
        """Show the latest numbers of the running stage, such as a loss or a radius."""
        ...


class Silent:
    """A listener that shows nothing."""

    def track(self, items: Iterable[T], stage: str, total: int | None = None) -> Iterator[T]:  # noqa: ARG002
        """Yield `items` unchanged."""
        yield from items

    def note(self, **values: int | float) -> None:
        """Ignore the numbers."""


SILENT = Silent()
