"""What a person sees in the terminal: bars, tables and one-sentence errors, all on stderr but results."""

import contextlib
import io
import json
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, Literal, TextIO, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from hyperspot.errors import DeviceWarning, ImageWarning

T = TypeVar("T")

out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def open_streams() -> None:
    """Make the standard streams take any text, whatever the locale, also where the caller closed them."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, io.StringIO())
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def plain(text: object) -> str:
    """Return text on one line, safe to print: file names may hold anything, line breaks and escape codes too."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in str(text)
    )


def say(*parts: str | tuple[str, str]) -> None:
    """Print one line of text on stdout: plain parts, and pairs of a part and its style."""
    styled = [part if isinstance(part, tuple) else (part, "") for part in parts]
    out.print(Text.assemble(*((plain(text), style) for text, style in styled)))


class Bars:
    """Progress bars, one per stage, with the latest numbers and the seconds left."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[numbers]}"),
            console=err,
            disable=not err.is_terminal,
        )
        self._depth = 0
        self._numbers = ""

    def track(self, items: Iterable[T], stage: str, total: int | None = None) -> Iterator[T]:
        """Yield `items` while a bar shows how many of `total` are done."""
        if total is None and isinstance(items, Sized):
            total = len(items)
        self._numbers = ""
        task = self._progress.add_task(stage, total=total, numbers="")
        if not err.is_terminal:
            err.print(f"{stage} ({total})" if total else stage)
        self._depth += 1
        if self._depth == 1:
            self._progress.start()
        try:
            for item in items:
                yield item
                self._progress.update(task, advance=1, numbers=self._numbers)
        finally:
            self._depth -= 1
            if self._depth == 0:
                self._progress.stop()

    def note(self, **values: int | float) -> None:
        """Show the latest numbers of the running stage."""
        self._numbers = "  ".join(f"{name} {value:.4g}" for name, value in values.items() if name != "step")


def say_json(values: Mapping[str, Any]) -> None:
    """Print one JSON object on one line of stdout."""
    sys.stdout.write(json.dumps(values, allow_nan=False) + "\n")
    sys.stdout.flush()


def complain(message: str) -> None:
    """Print one sentence about a mistake on stderr."""
    err.print(Text.assemble(("error:", "bold red"), " ", plain(message)))


def warn(message: str) -> None:
    """Print one loud sentence on stderr about something the result suffers from."""
    err.print(Text.assemble(("warning:", "bold yellow"), " ", plain(message)))


@contextlib.contextmanager
def image_warnings() -> Iterator[None]:
    """Print warnings of ours as one sentence: on a device each, on photos one a kind, as a folder gives thousands."""
    told: set[type[Warning]] = set()
    telling = threading.Lock()
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if issubclass(category, DeviceWarning):
                warn(str(message))
            elif not issubclass(category, ImageWarning):
                usual(message, category, filename, lineno, file, line)
            else:
                # Photos are read side by side, and whichever comes first is named.
                with telling:
                    first = category not in told
                    told.add(category)
                if first:
                    warn(f"{message}; told of one such photo only")

        warnings.showwarning = show
        yield


def table(title: str, rows: Mapping[str, Any]) -> None:
    """Print names and values in two columns; what is inside a value of several parts gets rows of its own."""
    drawn = Table(
        title=Text(plain(title)), title_justify="left", title_style="bold", show_header=False, box=None, pad_edge=False
    )
    drawn.add_column(style="cyan", no_wrap=True)
    drawn.add_column(overflow="fold")
    for name, value in _rows(rows):
        drawn.add_row(Text(plain(name)), Text(plain(_readable(value))))
    out.print(drawn)


def grid(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows that have the same names, under which their values stand: numbers to the right, the last may fold."""
    drawn = Table(
        title=Text(plain(title)),
        title_justify="left",
        title_style="bold",
        header_style="cyan",
        box=None,
        pad_edge=False,
    )
    last = len(rows[0]) - 1
    for place, (name, value) in enumerate(rows[0].items()):
        header = Text("\n".join(plain(word) for word in name.split(" ")))
        side: Literal["left", "right"] = "right" if isinstance(value, int) else "left"
        drawn.add_column(header, justify=side, no_wrap=place != last, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(plain(_readable(value))) for value in row.values()))
    out.print(drawn)


def _rows(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield before + name, "" if value else None
            yield from _rows(value, before + "  ")
        else:
            yield before + name, value


def percent(value: float | None) -> str:
    """Return a rate as per cent, or a dash where it is undefined."""
    return "–" if value is None else f"{100 * value:.2f} %"


def _readable(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_readable(part) for part in value)
    return str(value)
