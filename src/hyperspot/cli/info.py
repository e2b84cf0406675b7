"""`hyperspot info`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from hyperspot.cli import console, options, summaries
from hyperspot.cli.progress import Bars
from hyperspot.errors import HyperspotError


def info(
    path: Annotated[
        Path | None, typer.Argument(help="A model file, an exported file, or data.", show_default=False)
    ] = None,
    engines: Annotated[
        bool, typer.Option("--engines", help="Describe this machine: engines, device, precisions.")
    ] = False,
    layout: options.Layout = "auto",
    category: options.Category = None,
    check: Annotated[
        bool, typer.Option("--check", help="Decode every image and mask; exit with 1 if one is damaged.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Describe a model file and how it was made, what was recognized in a data set, or this machine.

    A folder of several products gives one line per product. Without --check only headers and
    thumbnails are read.
    """
    if engines:
        from hyperspot.runtime.machine import describe_machine

        _print("Engines", describe_machine(), json=json)
        return
    if path is None:
        raise typer.BadParameter("give a model file or data, or --engines")
    from hyperspot.data.layouts import is_data_file

    if path.is_file() and not is_data_file(path):
        if check:
            raise typer.BadParameter("--check is for data, not for a model file")
        from hyperspot.cli.models import read_metadata

        metadata = read_metadata(path)
        if json:
            console.print_json({"model": str(path), **metadata})
        else:
            summaries.print_model(str(path), metadata)
        return
    from hyperspot.data import describe_each

    found: list[dict[str, Any]] = []
    failed = False
    for described in describe_each(path, layout, category, check=check, progress=Bars()):
        if isinstance(described, HyperspotError):
            console.print_error(str(described))
            failed = True
            continue
        found.append(described)
        if json:
            console.print_json(described)
    if not json:
        summaries.print_data(str(path), found)
    if failed or any(described.get("damaged") for described in found):
        raise typer.Exit(1)


def _print(title: str, values: dict[str, Any], *, json: bool) -> None:
    if json:
        console.print_json(values)
    else:
        console.table(title, values)
