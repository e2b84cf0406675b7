"""Terminal output: tables and results on stdout, errors and warnings on stderr."""

import contextlib
import io
import json
import sys
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from hyperspot.errors import CalibrationWarning, DeviceWarning, ImageWarning

out = Console(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


def open_streams() -> None:
    """Make the standard streams accept any text in any locale, even if the caller closed them."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, io.StringIO())
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def plain(text: object) -> str:
    """Return text on one line, safe to print: file names may contain line breaks and escape codes."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode() for character in str(text)
    )


def print_line(*parts: str | tuple[str, str]) -> None:
    """Print one line on stdout: plain parts, and pairs of a part and its style."""
    styled = [part if isinstance(part, tuple) else (part, "") for part in parts]
    out.print(Text.assemble(*((plain(text), style) for text, style in styled)))


def print_json(values: Mapping[str, Any]) -> None:
    """Print one JSON object on one line of stdout."""
    sys.stdout.write(json.dumps(values, allow_nan=False) + "\n")
    sys.stdout.flush()


def print_error(message: str) -> None:
    """Print an error on stderr."""
    err.print(Text.assemble(("error:", "bold red"), " ", plain(message)))


def print_warning(message: str) -> None:
    """Print a warning on stderr."""
    err.print(Text.assemble(("warning:", "bold yellow"), " ", plain(message)))


@contextlib.contextmanager
def image_warnings() -> Iterator[None]:
    """Print our warnings as one sentence each; of those on images only the first per kind."""
    seen: set[type[Warning]] = set()
    lock = threading.Lock()
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
            if issubclass(category, (DeviceWarning, CalibrationWarning)):
                print_warning(str(message))
            elif not issubclass(category, ImageWarning):
                usual(message, category, filename, lineno, file, line)
            else:
                # Images are read in parallel; the first one is named.
                with lock:
                    first = category not in seen
                    seen.add(category)
                if first:
                    print_warning(f"{message}; further images of this kind are not reported")

        warnings.showwarning = show
        yield


def table(title: str, rows: Mapping[str, Any]) -> None:
    """Print names and values in two columns; nested values get indented rows."""
    drawn = Table(
        title=Text(plain(title)), title_justify="left", title_style="bold", show_header=False, box=None, pad_edge=False
    )
    drawn.add_column(style="cyan", no_wrap=True)
    drawn.add_column(overflow="fold")
    for name, value in _rows(rows):
        drawn.add_row(Text(plain(name)), Text(plain(_readable(value))))
    out.print(drawn)


def grid(title: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rows with equal keys as a table: numbers right-aligned, the last column may fold."""
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
    """Return a rate as a percentage, or a dash if it is undefined."""
    return "–" if value is None else f"{100 * value:.2f} %"


def _readable(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_readable(part) for part in value)
    return str(value)
