"""The notes below a table: times, sources, reductions, failures, what is missing."""

from collections.abc import Iterable, Sequence

import pandas as pd

from hyperspot.benchmark.costs import timed
from hyperspot.benchmark.plans import TABLE_BACKBONES, Absent
from hyperspot.benchmark.protocol import DEVELOPMENT, PAPER_METHODS, label_of
from hyperspot.benchmark.published import published
from hyperspot.benchmark.runs import Row, in_order


def development(categories: Iterable[str]) -> tuple[str, ...]:
    """Return a note on the categories that choices were made on, if there are any."""
    chosen = [name for name in in_order(categories) if name in DEVELOPMENT]
    return (f"Development categories, on which choices were made: {', '.join(chosen)}.",) if chosen else ()


def timing(runs: pd.DataFrame, found: Sequence[Row]) -> tuple[str, ...]:
    """Return the circumstances of the times in a table."""
    lines = [line for row in found for line in timed(row, runs).line]
    if not lines:
        return ()
    precisions = dict.fromkeys(sorted({line.get("precision", "f32") for line in lines}))
    notes = [
        f"Times: torch engine, backbone in {' or '.join(precisions)}, on the machine of the run; latency is the median "
        "for one image."
    ]
    beside = sum(line.get("jobs") != 1 for line in lines)
    if beside:
        notes.append(f"{beside} of the timed runs ran beside others: their times are too long.")
    machines = sorted({f"{line['processor']}, {line['threads']} thread(s)" for line in lines if "processor" in line})
    return (*notes, *([f"Machines: {'; '.join(machines)}."] if machines else []))


def sources(number: int) -> tuple[str, ...]:
    """Return the source of the printed figures of a table of the CFA paper."""
    printed = published().tables.get(str(number))
    return () if printed is None else (f"CFA paper: {published().sources[printed.source]}, table {number}.",)


def reductions(number: int, found: Sequence[Row]) -> tuple[str, ...]:
    """Return a note on each row with shortened training or fewer images, with the command of the full run."""
    notes = []
    for row in found:
        cuts = [tuple(one) for line in row.runs.line for one in line.get("reduced", ())]
        if cuts:
            changed = ", ".join(f"{name} {new} instead of {old}" for name, old, new in dict.fromkeys(cuts))
            full = f"hyperspot benchmark DATA --table {number} --method {row.method} --backbone {row.backbone}"
            notes.append(f"{row.label}: reduced ({changed}); in full: `{full} --budget full`.")
    return tuple(notes)


def failures(runs: pd.DataFrame, recipes: Sequence[str]) -> tuple[str, ...]:
    """Return a note on each run that failed and was not repeated with success."""
    failed = runs[runs.failed & runs.recipe.isin(recipes) & ~runs.run.isin(runs.run[~runs.failed])]
    latest = failed.drop_duplicates("run", keep="last").line
    return tuple(f"Failed: {label_of(one)}, {one['category']}, seed {one['seed']}: {one['error']}" for one in latest)


def missing(number: int, found: Sequence[Row], absent: Sequence[Absent]) -> tuple[str, ...]:
    """Return one note on all methods, backbones and categories without runs."""
    reasons = {(one.kind, one.name): f" ({one.reason})" if one.reason else "" for one in absent}
    there = {row.method for row in found} | {name for kind, name in reasons if kind == "unasked"}
    wanted = [("method", name) for name in PAPER_METHODS if number not in (5, 6, 7, 10, 11) and name not in there]
    there |= {row.backbone for row in found}
    wanted += [("backbone", name) for name in TABLE_BACKBONES if number == 7 and name not in there]
    wanted += [one for one in reasons if one[0] in ("category", "backbone") and one not in wanted]
    listed = "; ".join(f"{kind} {name}{reasons.get((kind, name), '')}" for kind, name in wanted)
    return (f"No run of: {listed}.",) if listed else ()
