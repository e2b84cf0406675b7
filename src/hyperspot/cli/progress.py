"""Progress bars on a terminal, and one line per stage elsewhere."""

from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from hyperspot.cli import console

T = TypeVar("T")


class Bars:
    """Bars of the stages that run now, with the latest numbers and the time left.

    A stage inside another, such as a step of a fold, has its bar below. A finished stage leaves no line behind.
    """

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<26}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[numbers]}"),
            console=console.err,
            disable=not console.err.is_terminal,
            transient=True,
        )
        self._depth = 0
        self._numbers = ""

    def track(self, items: Iterable[T], stage: str, total: int | None = None) -> Iterator[T]:
        """Yield `items` while a bar shows how many of `total` are done."""
        if total is None and isinstance(items, Sized):
            total = len(items)
        self._numbers = ""
        task = self._progress.add_task(stage, total=total, numbers="")
        if not console.err.is_terminal and self._depth == 0:
            console.err.print(f"{stage} ({total})" if total else stage)
        self._depth += 1
        if self._depth == 1:
            self._progress.start()
        try:
            for item in items:
                yield item
                self._progress.update(task, advance=1, numbers=self._numbers)
        finally:
            self._progress.remove_task(task)
            self._depth -= 1
            if self._depth == 0:
                self._progress.stop()

    def note(self, **values: int | float) -> None:
        """Show the latest numbers of the running stage."""
        self._numbers = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
