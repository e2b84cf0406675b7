"""`hyperspot benchmark`: make the runs of a table and print it, or draw it from recorded runs.

Heavy libraries are imported inside the command, as in the rest of the command line.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from hyperspot.cli import console
from hyperspot.errors import DataError, SettingsError
from hyperspot.utils.optional_packages import require

if TYPE_CHECKING:
    from hyperspot.benchmark.plans import Absent, Asked
    from hyperspot.benchmark.records import Line
    from hyperspot.benchmark.render import Table

HELP = """Measure methods by the protocol of the papers' tables, and print ours beside the published figures.

Figures are those of the last checkpoint, over several seeds; nothing is chosen on test images. Each run is one JSON
line in --out and is not repeated: an interrupted benchmark resumes. Missing categories, methods and weights are listed
below the table; the run continues.

\b
    hyperspot benchmark DATA --table 4 --category bottle --method patchcore,padim
    hyperspot benchmark DATA --table 2 --budget quick
    hyperspot benchmark --from hyperspot-runs.jsonl --table 8 --plot latency.svg

\b
The tables, 1 to 7 as in the CFA paper:
     1  modeling time and memory against the number of images
     2  methods, by group of categories
     3  RD-MVTec AD: images rotated and cropped, five frozen versions
     4  methods, by category
     5  ablation of the losses and of the radius
     6  compression: pixel AUROC against throughput
     7  backbones
     8  accuracy against latency on the CPU
     9  oracle minus last checkpoint: the gain of choosing on the test images
    10  promised and observed false alarms
    11  CFA++ as a fusion, against each of its crops
    12  overview: one row per method

Exit code 1 if a run failed; the others are made.
"""


PIPE_WIDTH = 10_000


class BudgetChoice(StrEnum):
    """Length of the training."""

    FULL = "full"
    QUICK = "quick"


@dataclass(frozen=True)
class Selection:
    """The categories, methods and backbones that were named; empty: all."""

    categories: tuple[str, ...]
    methods: tuple[str, ...]
    backbones: tuple[str, ...]

    def has(self, line: "Line") -> bool:
        """Return whether a line is selected."""
        named = ((self.categories, "category"), (self.methods, "method"), (self.backbones, "backbone"))
        return all(not names or line.get(field) in names for names, field in named)

    def missing(self, lines: "Sequence[Line]", absent: "Sequence[Absent]") -> "list[Absent]":
        """Return what was named and has no line, beside what is absent already; and the methods not named."""
        from hyperspot.benchmark.plans import Absent
        from hyperspot.benchmark.protocol import PAPER_METHODS

        known = {(one.kind, one.name) for one in absent}
        listed = [("category", name) for name in self.categories] + [("backbone", name) for name in self.backbones]
        found = {(kind, line.get(kind)) for line in lines for kind in ("category", "backbone")}
        other = [name for name in PAPER_METHODS if self.methods and name not in self.methods]
        lacking = [Absent(kind, name, "") for kind, name in listed if (kind, name) not in known | found]
        return [*absent, *lacking, *(Absent("unasked", name, "") for name in other)]


Data = Annotated[
    Path | None,
    typer.Argument(help="A data set, or a folder of several (MVTec AD); not with --from.", show_default=False),
]
Tables = Annotated[
    list[int] | None,
    typer.Option("--table", help="Table, 1 to 12; may be repeated. Default: 2.", show_default=False),
]
Categories = Annotated[
    list[str] | None, typer.Option(help="Categories: bottle,screw. Default: all in DATA.", show_default=False)
]
Methods = Annotated[list[str] | None, typer.Option(help="Methods: cfa,patchcore. Default: all.", show_default=False)]
Backbones = Annotated[
    list[str] | None,
    typer.Option(help="Backbones. Default: resnet18; in table 7 all of the paper.", show_default=False),
]
Weights = Annotated[
    str | None,
    typer.Option(
        help="Safetensors file or folder of backbone weights, or random:SEED (untrained; for tests of the code).",
        show_default=False,
    ),
]
Seeds = Annotated[str | None, typer.Option(help="Seeds. Default: 0,1,2; in tables 1 and 3 only 0.", show_default=False)]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Change a setting of the one method named.", show_default=False),
]
OracleFlag = Annotated[
    bool, typer.Option("--oracle", help="Also report the best of 10 checkpoints on the test images, as oracle.")
]
BudgetOption = Annotated[
    BudgetChoice,
    typer.Option(help="quick: a tenth of the training steps, or 32 training images; the table lists the reductions."),
]
MaxTrain = Annotated[
    int | None, typer.Option(min=1, help="Most training images of a run. Default: all.", show_default=False)
]
MaxTest = Annotated[
    int | None, typer.Option(min=2, help="Most test images of a run. Default: all.", show_default=False)
]
Jobs = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Runs at a time. Default: as cores and memory allow; 1 in tables 1, 6 and 8, which show times.",
        show_default=False,
    ),
]
DeviceOption = Annotated[
    str,
    typer.Option(metavar="auto|cpu|cuda|cuda:N", help="Device; tables 1, 6 and 8 show times of the CPU and need cpu."),
]
Out = Annotated[Path, typer.Option(help="File of JSON lines that runs are appended to.")]
From = Annotated[
    list[Path] | None,
    typer.Option("--from", help="Draw from these lines and run nothing; may be repeated.", show_default=False),
]
Plot = Annotated[
    Path | None,
    typer.Option(help="Write the picture of table 1, 6 or 8 as .svg or .png.", show_default=False),
]
MarkdownFlag = Annotated[bool, typer.Option("--markdown", help="Print Markdown on stdout.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object per row on stdout, nothing else.")]


def benchmark(
    data: Data = None,
    table: Tables = None,
    category: Categories = None,
    method: Methods = None,
    backbone: Backbones = None,
    weights: Weights = None,
    seeds: Seeds = None,
    setting: Changes = None,
    oracle: OracleFlag = False,
    budget: BudgetOption = BudgetChoice.FULL,
    max_train_images: MaxTrain = None,
    max_test_images: MaxTest = None,
    jobs: Jobs = None,
    device: DeviceOption = "cpu",
    out: Out = Path("hyperspot-runs.jsonl"),
    lines_from: From = None,
    plot: Plot = None,
    markdown: MarkdownFlag = False,
    json: JsonFlag = False,
) -> None:
    """Make the runs of some tables and print them; `--help` shows HELP."""
    numbers = table or [2]
    _check(numbers, plot, device, both=json and markdown)
    selection = Selection(_split(category), _split(method), _split(backbone))
    absent: list[Absent] = []
    failed = 0
    if lines_from:
        if data is not None:
            raise SettingsError("--from runs nothing: leave out DATA, or leave out --from to run")
        lines = _read(lines_from)
    elif data is None:
        raise DataError("there is no data; name a folder of data sets, or recorded runs with --from")
    else:
        asked, absent = _asked(data, selection, setting or [], weights, seeds, device)
        asked = replace(asked, oracle=oracle, budget=budget.value)
        asked = replace(asked, max_train_images=max_train_images, max_test_images=max_test_images)
        lines, failed = _run(numbers, asked, absent, selection.backbones, out, jobs)
    lines = [line for line in lines if selection.has(line)]
    for number in numbers:
        _show(number, lines, selection.missing(lines, absent), markdown=markdown, json=json, plot=plot)
    if failed:
        runs = "1 run" if failed == 1 else f"{failed} runs"
        console.print_error(f"{runs} failed; the reasons are in {out}, and the next call repeats them")
        raise typer.Exit(1)


def _asked(
    data: Path, selection: Selection, assignments: list[str], weights: str | None, seeds: str | None, device: str
) -> "tuple[Asked, list[Absent]]":
    """Return the options of the runs without backbones, and the categories and methods that are missing."""
    from hyperspot.benchmark import plans
    from hyperspot.detector.settings import parse_assignments
    from hyperspot.hardware.devices import resolve

    if assignments and len(selection.methods) != 1:
        raise SettingsError("--set changes the settings of one method; name it with --method")
    categories, absent = plans.find_categories(data, selection.categories)
    methods, lacking = plans.find_methods(selection.methods)
    if not methods:
        raise SettingsError(f"{', '.join(one.name for one in lacking)}: not in this version; name another --method")
    asked = plans.Asked(
        data=data,
        categories=tuple(categories),
        methods=tuple(methods),
        backbones={},
        weights=weights,
        seeds=_seeds(seeds),
        changes=parse_assignments(assignments),
        device="cpu" if device == "cpu" else str(resolve(device)),
    )
    return asked, [*absent, *lacking]


def _run(
    numbers: Sequence[int],
    asked: "Asked",
    absent: "list[Absent]",
    backbones: Sequence[str],
    out: Path,
    jobs: int | None,
) -> "tuple[list[Line], int]":
    """Make the runs of some tables; return all lines and the number of failed runs, and extend `absent`."""
    from hyperspot.benchmark import plans, runner
    from hyperspot.cli.benchmark_board import Board

    lines = _read([out]) if out.exists() else []
    made: list[Line] = []
    planned = 0
    for number in numbers:
        names = backbones or (plans.TABLE_BACKBONES if number == 7 else ("resnet18",))
        found, without = plans.find_backbones(names, asked.weights)
        absent += [one for one in without if one not in absent]
        tasks = plans.plan(number, replace(asked, backbones=found))
        planned += len(tasks)
        # How many runs fit into the memory of a GPU is unknown.
        at_a_time = 1 if asked.device != "cpu" and jobs is None else jobs
        with Board() as board:
            made += runner.make(tasks, out, [*lines, *made], board, jobs=at_a_time, table=number)
    if not planned:
        reasons = "; ".join(f"{one.name}: {one.reason}" for one in absent if one.kind == "backbone")
        why = reasons or "the tables have none for these methods"
        raise DataError(f"there is no run to make ({why}); --backbone compact needs no weights")
    return [*lines, *made], sum("error" in line for line in made)


def _show(
    number: int, lines: "Sequence[Line]", absent: "Sequence[Absent]", *, markdown: bool, json: bool, plot: Path | None
) -> None:
    from hyperspot.benchmark.tables import draw

    table = draw(number, lines, absent)
    if json:
        for row in table.json_rows():
            console.print_json(row)
    elif markdown:
        typer.echo(table.markdown())
    else:
        _print(table)
    if plot is not None:
        from hyperspot.benchmark import plots

        plots.plot(table, plot)


def _print(table: "Table") -> None:
    # A file or a pipe has room for whole rows; a terminal has its width.
    page = console.out if console.out.is_terminal else Console(width=PIPE_WIDTH, highlight=False)
    drawn, notes = table.terminal(page.width)
    page.print(drawn)
    for note in notes:
        page.print(note, markup=False, style="dim", soft_wrap=False)
    page.print()


def _check(numbers: Sequence[int], plot: Path | None, device: str, *, both: bool) -> None:
    """Refuse options that do not fit together."""
    for package in ("pandas", *(["matplotlib"] if plot else [])):
        require(package, "benchmark", "the benchmark")
    from hyperspot.benchmark.plans import TIMED, TITLES

    if both:
        raise SettingsError("--json and --markdown exclude each other; leave one out")
    for number in numbers:
        if number not in TITLES:
            raise SettingsError(f"there is no table {number}; choose one of {', '.join(map(str, TITLES))}")
        if number in TIMED and device != "cpu":
            raise SettingsError(f"table {number} shows times of the CPU; leave out --device")
    if plot is not None and (len(numbers) != 1 or numbers[0] not in TIMED):
        raise SettingsError("--plot draws one table with a picture; ask for --table 1, 6 or 8 alone")


def _read(paths: Sequence[Path]) -> "list[Line]":
    from hyperspot.benchmark import records

    lines, problems = records.read(paths)
    for problem in problems:
        console.print_warning(problem)
    return lines


def _split(given: Sequence[str] | None) -> tuple[str, ...]:
    return tuple(part.strip() for one in given or () for part in one.split(",") if part.strip())


def _seeds(given: str | None) -> tuple[int, ...] | None:
    if given is None:
        return None
    parts = _split([given])
    if not parts or not all(part.isascii() and part.isdigit() for part in parts):
        raise SettingsError(f"the seeds '{given}' are not whole numbers separated by commas, like 0,1,2")
    return tuple(dict.fromkeys(map(int, parts)))
