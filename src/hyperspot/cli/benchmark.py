"""`hyperspot benchmark`: make the runs that a table needs and print it, or redraw it from lines.

Like the rest of the command line this imports heavy libraries inside the command alone.
"""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from hyperspot.cli import console
from hyperspot.errors import DataError, SettingsError

if TYPE_CHECKING:
    from hyperspot.benchmark.plans import Absent
    from hyperspot.benchmark.records import Line
    from hyperspot.benchmark.table import Table

HELP = """Measure methods as the papers' tables do, honestly, and print ours beside the published figures.

The last checkpoint counts, over several seeds; nothing is chosen on test photos. Every run becomes one JSON line in
--out, and a run that stands there is not made again: an interrupted benchmark goes on where it stopped. What is not
there (categories, methods, weights) is told in the table.

\b
    hyperspot benchmark DATA --table 4 --category bottle --method patchcore,padim
    hyperspot benchmark DATA --table 2 --budget quick
    hyperspot benchmark --from hyperspot-runs.jsonl --table 8 --plot latency.svg

\b
The tables, 1 to 7 as in the CFA paper:
     1  modeling time and memory against the number of photos
     2  methods, by group of categories
     3  RD-MVTec AD: photos turned and cropped, five frozen versions
     4  methods, by category
     5  ablation of the losses and of the radius
     6  compression: pixel AUROC against throughput
     7  backbones
     8  accuracy against latency on the CPU
     9  oracle minus last checkpoint: what choosing on the test photos adds
    10  promised and observed false alarms
    11  CFA++ as a fusion, against each of its views

Exit code 1 where a run failed; the others are made all the same.
"""


class BudgetChoice(StrEnum):
    """How long methods train."""

    FULL = "full"
    QUICK = "quick"


def benchmark(
    data: Annotated[
        Path | None,
        typer.Argument(
            help="A data set, or a folder of several such as MVTec AD; not needed with --from.", show_default=False
        ),
    ] = None,
    table: Annotated[
        list[int] | None,
        typer.Option(
            "--table", help="Which table, 1 to 11; may be repeated; 2 where none is named.", show_default=False
        ),
    ] = None,
    category: Annotated[
        list[str] | None,
        typer.Option(help="Categories, as bottle,screw; all in DATA where none is named.", show_default=False),
    ] = None,
    method: Annotated[
        list[str] | None, typer.Option(help="Methods, as cfa,patchcore; all where none is named.", show_default=False)
    ] = None,
    backbone: Annotated[
        list[str] | None,
        typer.Option(help="Feature extractors; resnet18, in Table 7 all of the paper's.", show_default=False),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="A safetensors file or folder of backbone weights, or random:SEED (which measures nothing but code).",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(help="Seeds; 0,1,2 where none is named, in tables 1 and 3 only 0.", show_default=False),
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Change a setting of the one method named.", show_default=False
        ),
    ] = None,
    oracle: Annotated[
        bool, typer.Option("--oracle", help="Also tell the best of 10 checkpoints on the test photos, as oracle.")
    ] = False,
    budget: Annotated[
        BudgetChoice, typer.Option(help="quick trains for a tenth of the steps, and the table says so.")
    ] = BudgetChoice.FULL,
    jobs: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Runs at a time; as many as cores and memory allow, but 1 in tables 1, 6 and 8, which show times.",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            metavar="auto|cpu|cuda|cuda:N",
            help="Where to compute. Times are of the CPU, so that tables 1, 6 and 8 take no other.",
        ),
    ] = "cpu",
    out: Annotated[Path, typer.Option(help="The file of JSON lines that runs are added to.")] = Path(
        "hyperspot-runs.jsonl"
    ),
    lines_from: Annotated[
        list[Path] | None,
        typer.Option("--from", help="Draw from these lines and run nothing; may be repeated.", show_default=False),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option(help="Write the picture of Table 1, 6 or 8 as SVG.", show_default=False)
    ] = None,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print Markdown on stdout.")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per row on stdout, nothing else.")
    ] = False,
) -> None:
    """Make the runs of some tables and print them; a person reads HELP instead of this."""
    numbers = table or [2]
    if json and markdown:
        raise SettingsError("--json and --markdown cannot both be printed; leave one out")
    _check_tables(numbers, plot, device)
    failed = 0
    absent: list[Absent] = []
    if lines_from:
        if data is not None:
            raise SettingsError("with --from nothing is run, so leave DATA out, or leave --from out to run")
        lines = _read(lines_from)
    elif data is None:
        raise DataError("no data was given; name a folder of data sets, or lines of earlier runs with --from")
    else:
        lines, absent, failed = _run(
            numbers,
            data,
            out,
            wanted={"category": _split(category), "method": _split(method), "backbone": _split(backbone)},
            weights=weights,
            seeds=_seeds(seeds),
            assignments=setting or [],
            oracle=oracle,
            budget=budget.value,
            jobs=jobs,
            device=device,
        )
    lines = [line for line in lines if _kept(line, _split(category), _split(method), _split(backbone))]
    absent += _unasked(_split(method))
    for number in numbers:
        _show(number, lines, absent, markdown=markdown, json=json, plot=plot)
    if failed:
        console.print_error(f"{failed} runs failed; their lines in {out} name the reasons, and they are tried again")
        raise typer.Exit(1)


def _run(
    numbers: Sequence[int],
    data: Path,
    out: Path,
    *,
    wanted: dict[str, list[str]],
    weights: str | None,
    seeds: tuple[int, ...] | None,
    assignments: list[str],
    oracle: bool,
    budget: Any,
    jobs: int | None,
    device: str,
) -> "tuple[list[Line], list[Absent], int]":
    """Make the runs of some tables; returns all lines, what is absent and how many runs failed."""
    from hyperspot.benchmark import plans, runner
    from hyperspot.benchmark.board import board
    from hyperspot.detector.settings import parse_assignments
    from hyperspot.hardware.devices import resolve

    chosen = "cpu" if device == "cpu" else str(resolve(device))
    if chosen != "cpu" and jobs is None:
        # Nobody knows how many runs the memory of a GPU holds.
        jobs = 1

    if assignments and len(wanted["method"]) != 1:
        raise SettingsError("--set changes the settings of one method; name it with --method")
    categories, absent = plans.find_categories(data, wanted["category"])
    methods, lacking = plans.find_methods(wanted["method"])
    if not methods:
        raise SettingsError(f"{', '.join(one.name for one in lacking)}: not in this version; name another --method")
    absent += lacking
    lines = _read([out]) if out.exists() else []
    made: list[Line] = []
    planned = 0
    for number in numbers:
        names = wanted["backbone"] or (plans.TABLE_BACKBONES if number == 7 else ("resnet18",))
        backbones, without = plans.find_backbones(names, weights)
        absent += [one for one in without if one not in absent]
        asked = plans.Asked(
            data=data,
            categories=tuple(categories),
            methods=tuple(methods),
            backbones=backbones,
            weights=weights,
            seeds=seeds,
            budget=budget,
            oracle=oracle,
            changes=parse_assignments(assignments),
            device=chosen,
        )
        tasks = plans.plan(number, asked)
        planned += len(tasks)
        with board() as shown:
            made += runner.make(tasks, out, [*lines, *made], shown, jobs=jobs, table=number)
    if not planned:
        reasons = "; ".join(f"{one.name}: {one.reason}" for one in absent if one.kind == "backbone")
        why = reasons or "the tables asked for have none for these methods"
        raise DataError(f"no run can be made ({why}); --backbone compact needs no weights")
    return [*lines, *made], absent, sum("error" in line for line in made)


def _show(
    number: int, lines: "Sequence[Line]", absent: "Sequence[Absent]", *, markdown: bool, json: bool, plot: Path | None
) -> None:
    from hyperspot.benchmark.tables import draw

    drawn = draw(number, lines, absent)
    if json:
        for row in drawn.json_rows():
            console.print_json(row)
    elif markdown:
        typer.echo(drawn.markdown())
    else:
        table, page = drawn.drawn(), console.out
        if not page.is_terminal:
            # A file or a pipe has room for whole rows; a terminal has its own width.
            wide = page.measure(table, options=page.options.update(max_width=1000)).maximum
            page = Console(width=wide, highlight=False)
        page.print(table)
        for note in drawn.footnotes():
            console.out.print(note, markup=False, style="dim")
        console.out.print()
    if plot is not None:
        _write_plot(drawn, plot)


def _write_plot(drawn: "Table", path: Path) -> None:
    from hyperspot.benchmark.plots import plot

    picture = plot(drawn)
    try:
        path.write_text(picture, encoding="utf-8")
    except OSError as error:
        raise DataError(f"the picture {path} cannot be written ({error.strerror}); choose another --plot") from None


def _check_tables(numbers: Sequence[int], plot: Path | None, device: str) -> None:
    from hyperspot.benchmark.plans import TIMED, TITLES

    for number in numbers:
        if number not in TITLES:
            raise SettingsError(f"there is no table {number}; choose one of {', '.join(map(str, TITLES))}")
        if number in TIMED and device != "cpu":
            raise SettingsError(f"table {number} shows times, which are those of the CPU; leave --device out")
    if plot is not None and (len(numbers) != 1 or numbers[0] not in TIMED):
        raise SettingsError("--plot draws one table with a picture; ask for --table 1, 6 or 8 alone")


def _read(paths: Sequence[Path]) -> "list[Line]":
    from hyperspot.benchmark import records

    lines, problems = records.read(paths)
    for problem in problems:
        console.print_warning(problem)
    return lines


def _kept(line: "Line", categories: Sequence[str], methods: Sequence[str], backbones: Sequence[str]) -> bool:
    """Whether a line is of what was asked for."""
    asked = ((categories, "category"), (methods, "method"), (backbones, "backbone"))
    return all(not names or line.get(name) in names for names, name in asked)


def _unasked(methods: Sequence[str]) -> "list[Absent]":
    from hyperspot.benchmark.plans import Absent
    from hyperspot.benchmark.protocol import PAPER_METHODS

    return [Absent("unasked", name, "not asked for") for name in PAPER_METHODS if methods and name not in methods]


def _split(given: Sequence[str] | None) -> list[str]:
    return [part.strip() for one in given or () for part in one.split(",") if part.strip()]


def _seeds(given: str | None) -> tuple[int, ...] | None:
    if given is None:
        return None
    parts = _split([given])
    if not parts or not all(part.isascii() and part.isdigit() for part in parts):
        raise SettingsError(f"the seeds '{given}' are not whole numbers with commas between, as 0,1,2")
    return tuple(dict.fromkeys(map(int, parts)))
