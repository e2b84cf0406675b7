"""The command line of `hyperspot`: commands, exit codes and errors.

Exit codes: 0 done; 1 an error, in one sentence on stderr; 2 wrong usage; 3 anomalies with `--fail-on-anomaly`.
Commands import heavy libraries when they run, so that help answers at once.
"""

import os
import sys
from typing import Annotated

import typer

from hyperspot import __version__
from hyperspot.cli import console
from hyperspot.cli.benchmark import HELP as BENCHMARK_HELP
from hyperspot.cli.benchmark import benchmark
from hyperspot.cli.demo import demo
from hyperspot.cli.evaluate import evaluate
from hyperspot.cli.export import export
from hyperspot.cli.info import info
from hyperspot.cli.part import part
from hyperspot.cli.predict import predict
from hyperspot.cli.recalibrate import recalibrate
from hyperspot.cli.roi import roi
from hyperspot.cli.serve import serve
from hyperspot.cli.train import train
from hyperspot.cli.update import update
from hyperspot.errors import HyperspotError
from hyperspot.utils.optional_packages import explain

WRONG_USAGE = 2
INTERRUPTED = 130
"""Exit code of typer on Ctrl-C, as of shells."""

app = typer.Typer(
    name="hyperspot",
    help="Visual inspection from images of good parts only: train in seconds, then find, score and outline defects, "
    "with a promised false-alarm rate.\n\n"
    "    hyperspot train images/good -o part.safetensors\n\n"
    "    hyperspot predict part.safetensors new.png --out results\n\n"
    "Exit codes: 0 done, 1 an error, 2 wrong usage, 3 anomalies with --fail-on-anomaly.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=lambda wanted: _version(wanted), is_eager=True),
    ] = False,
) -> None: ...


def _version(wanted: bool) -> bool:
    if wanted:
        console.print_line(f"hyperspot {__version__}")
        raise typer.Exit
    return wanted


app.command(short_help="Train on images of good parts.")(train)
app.command(short_help="Predict images.")(predict)
app.command(short_help="Evaluate a model on labeled images and write a report.")(evaluate)
app.command(short_help="Draw the region of interest, zones and the scale.")(roi)
app.command(short_help="Set the thresholds of a model with other good images.")(recalibrate)
app.command(short_help="Learn more images of good parts without those before.")(update)
app.add_typer(part, name="part", short_help="Inspect parts that are seen in several views.")
app.command(help=BENCHMARK_HELP, short_help="Measure methods and print the papers' tables.")(benchmark)
app.add_typer(serve, name="serve", short_help="Run the inspection station: pages, REST, cameras, outputs.")
app.command(short_help="Export a model to a file that needs no torch.")(export)
app.command(short_help="Describe a model file, a data set or this machine.")(info)
app.command(short_help="Show all of it on a synthetic product.")(demo)


def main() -> None:
    """Run the command line; an error ends with exit code 1 and one sentence."""
    if sys.argv[1:2] != ["benchmark"]:
        # Threads that wait by spinning slow training down several times when another program keeps a core busy. A
        # benchmark has the machine for itself.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    console.open_streams()
    if "" in sys.argv[1:]:
        console.print_error("an argument is empty; is a variable in the command not set?")
        sys.exit(WRONG_USAGE)
    try:
        with console.image_warnings():
            app()
    except HyperspotError as error:
        console.print_error(str(error))
        sys.exit(1)
    except ModuleNotFoundError as error:
        console.print_error(str(explain(error, "this command")))
        sys.exit(1)
    except MemoryError:
        console.print_error("out of memory; use smaller images or a smaller --short-side")
        sys.exit(1)
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        console.print_error(
            f"{where}{(error.strerror or str(error)).lower()}; check the name, the permissions and the disk"
        )
        sys.exit(1)
    except SystemExit as ended:
        if ended.code == INTERRUPTED:
            console.print_error("interrupted; finished results are kept and existing files unchanged")
        raise
