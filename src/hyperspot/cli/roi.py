"""`hyperspot roi`: a local page on which a person draws the region of interest."""

import webbrowser
from pathlib import Path
from typing import Annotated

import typer

from hyperspot.cli import console


def roi(
    image: Annotated[
        Path, typer.Argument(help="An image of a good part; polygons are in its pixels.", show_default=False)
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="JSON file to write; an existing one is shown and replaced.")
    ] = Path("roi.json"),
    port: Annotated[int, typer.Option(help="Port of the page on this machine; 0 takes a free one.", min=0)] = 0,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in the browser, or only print its address.")
    ] = True,
) -> None:
    """Draw the region of interest, zones and the scale on an image, in the browser.

    The page is served to this machine only, at an address with a secret. Saving writes the file and ends the command.
    """
    from hyperspot.cli.roi_server import RoiServer
    from hyperspot.decision.inspection_plan import InspectionPlan
    from hyperspot.errors import DataError
    from hyperspot.images import read_image
    from hyperspot.utils.atomic_files import check_writable

    if output.suffix.lower() != ".json":
        raise typer.BadParameter("the file of a region of interest ends in .json")
    try:
        check_writable(output)
    except OSError as error:
        raise DataError(
            f"{output} cannot be written: {(error.strerror or str(error)).lower()}; choose another"
        ) from None
    pixels = read_image(image)
    plan = InspectionPlan.read(output) if output.exists() else InspectionPlan()
    with RoiServer(pixels, plan, output, port) as server:
        console.print_line(f"draw at {server.url}")
        if browser:
            webbrowser.open(server.url)
        server.wait()
    console.print_line(f"region of interest: {output}")
