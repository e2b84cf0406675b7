"""Every table from the same lines: nothing is run here."""

from collections.abc import Callable, Sequence

from hyperspot.benchmark import accuracy_tables, cost_tables
from hyperspot.benchmark.accuracy_tables import Body
from hyperspot.benchmark.plans import TIMED, TITLES, Absent, recipes_for
from hyperspot.benchmark.published import published
from hyperspot.benchmark.records import Line
from hyperspot.benchmark.selection import absences, development, failures, one_set_of_photos, reductions
from hyperspot.benchmark.table import Table
from hyperspot.errors import SettingsError
from hyperspot.methods import METHODS

BODIES: dict[int, Callable[[Sequence[Line], Sequence[Absent]], Body]] = {
    1: cost_tables.complexity,
    2: accuracy_tables.by_group,
    3: accuracy_tables.randomized,
    4: accuracy_tables.by_category,
    5: accuracy_tables.ablation,
    6: cost_tables.compression,
    7: accuracy_tables.backbones,
    8: cost_tables.latency,
    9: accuracy_tables.oracle,
    10: accuracy_tables.promises,
    11: accuracy_tables.fusion,
}
PROTOCOL = (
    "Ours: the last checkpoint, mean ± deviation over seeds, per cent; pixel metrics in the pixels that the detector "
    "sees (the 224 crop in the papers' geometry), or at the photo's own where it says so; AUPRO up to 0.30."
)


def draw(number: int, lines: Sequence[Line], absent: Sequence[Absent] = ()) -> Table:
    """Return a table drawn from lines, ours beside the published figures.

    Args:
        number: 1 to 11.
        lines: As `records.read` gives them.
        absent: What was asked for and is not there; the table says so.

    Raises:
        SettingsError: Where there is no such table.

    """
    if number not in BODIES:
        raise SettingsError(f"there is no table {number}; choose one of {', '.join(map(str, BODIES))}")
    meant, notes = one_set_of_photos([line for line in lines if _belongs(line, number)])
    columns, rows, found = BODIES[number](meant, absent)
    recipes = recipes_for(number, METHODS)
    notes = (
        *(() if number == 1 else (PROTOCOL,)),
        *(cost_tables.timing_notes(found) if number in TIMED else ()),
        *_sources(number),
        *development(category for group in found for category in group.categories),
        *reductions(found, number),
        *failures(meant, recipes),
        *absences(absent),
        *notes,
    )
    return Table(number, TITLES[number], columns, tuple(rows), notes)


def _belongs(line: Line, number: int) -> bool:
    """Whether a line is of the kind that a table is made of: photos as they are, unless it says otherwise."""
    cost = line.get("measure") == "cost"
    if number == 1:
        return cost
    randomized = line.get("version") is not None
    return (number == 8 or not cost) and randomized == (number == 3)


def _sources(number: int) -> tuple[str, ...]:
    printed = published().tables.get(str(number))
    return () if printed is None else (f"CFA paper: {published().sources[printed.source]}, table {number}.",)
