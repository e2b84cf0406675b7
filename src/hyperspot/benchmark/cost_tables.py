"""The tables that show what methods cost: 1, 6 and 8."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import replace

from hyperspot.benchmark.accuracy_tables import Body, mean_over
from hyperspot.benchmark.plans import GAMMAS, Absent, recipes_for
from hyperspot.benchmark.published import published
from hyperspot.benchmark.records import Line
from hyperspot.benchmark.selection import (
    METRICS,
    PIXEL,
    Group,
    groups,
    in_order,
    missing_methods,
    printed_cell,
    row,
    shared_categories,
)
from hyperspot.benchmark.table import Cell, Column, Given, Spread
from hyperspot.methods import METHODS

FLOAT = 4
"""Bytes."""


def complexity(lines: Sequence[Line], absent: Sequence[Absent]) -> Body:
    """Table 1: seconds and megabytes by number of photos, and how the formulas of the CFA paper would have it."""
    columns = (
        Column("what", "method"),
        Column("backbone", "backbone"),
        Column("photos", "photos"),
        Column("seconds", "modeling, s", 1),
        Column("growth", "grows as |X|^"),
        Column("modeling", "CFA paper"),
        Column("bank_mb", "memory kept, MB"),
        Column("formula_mb", "by the formula, MB"),
        Column("bank", "formula"),
        Column("peak_mb", "peak while fitting, MB", 0),
    )
    found = groups(lines, recipes_for(1, METHODS))
    rows: list[dict[str, Cell]] = []
    for group in found:
        paper = next(iter(published().rows(1, group.method)), None)
        for count in photo_counts(group):
            own = at_count(group, count)
            last = count == photo_counts(group)[-1]
            rows.append(
                row(
                    what=group.label,
                    backbone=group.backbone,
                    photos=count,
                    seconds=Spread.of(line["training_seconds"] for line in alone(own)),
                    growth=growth(group) if last else None,
                    modeling=Given(paper.modeling) if paper and paper.modeling else None,
                    bank_mb=Spread.of(line["bank_mb"] for line in own),
                    formula_mb=formula_mb(own[-1]),
                    bank=Given(paper.bank) if paper and paper.bank else None,
                    peak_mb=Spread.of(line["peak_memory_mb"] for line in own),
                )
            )
    rows += [row(what=name, photos=reason) for name, reason in missing_methods(found, absent)]
    return columns, rows, found


def compression(lines: Sequence[Line], absent: Sequence[Absent]) -> Body:  # noqa: ARG001
    """Table 6: what a smaller memory and shorter vectors cost in P-AUROC and give in throughput."""
    columns = (
        Column("gamma", "gamma_d = gamma_c"),
        Column("backbone", "backbone"),
        Column("categories", "categories"),
        Column(PIXEL, "P-AUROC"),
        Column("throughput", "photos / s", 1),
        Column("speedup", "faster by"),
        Column("paper_pixel", "CFA paper, P-AUROC"),
        Column("paper_throughput", "CFA paper, photos / s", 1),
        Column("paper_speedup", "CFA paper, faster by"),
    )
    found = groups(lines, list(GAMMAS))
    printed = {entry.gamma: entry for entry in published().rows(6)}
    slowest = printed[1].images_per_second
    rows: list[dict[str, Cell]] = []
    for group in found:
        gamma = GAMMAS[group.recipe]
        paper = printed[gamma]
        base = next((one for one in found if one.recipe == "cfa released" and one.backbone == group.backbone), None)
        shared, missing = shared_categories(found, group)
        names = [] if missing else shared
        speed, slow = throughput(group, names), None if base is None else throughput(base, names)
        rows.append(
            row(
                gamma=group.label.replace(group.recipe, "1" if gamma == 1 else f"1/{gamma}"),
                backbone=group.backbone,
                categories=f"lacks {missing} of {len(shared)}"
                if missing
                else str(len(shared) or "none shared by all rows"),
                pixel_auroc=mean_over(group, names, PIXEL),
                throughput=speed,
                speedup=None if speed is None or slow is None else speed.mean / slow.mean,
                paper_pixel=printed_cell(paper, PIXEL),
                paper_throughput=Given(paper.images_per_second) if paper.images_per_second else None,
                paper_speedup=paper.images_per_second / slowest if paper.images_per_second and slowest else None,
            )
        )
    return columns, rows, found


def latency(lines: Sequence[Line], absent: Sequence[Absent]) -> Body:
    """Table 8: accuracy, and milliseconds from a decoded photo to its verdict.

    Times come from any run of the same recipe that had the machine for itself, Table 1's with the most photos among
    them: how long was trained, and on which category, does not matter to them.
    """
    columns = (
        Column("what", "method"),
        Column("backbone", "backbone"),
        Column("categories", "categories"),
        *(Column(metric, title) for metric, title in METRICS.items()),
        Column("latency_ms", "ms per photo", 1),
        Column("throughput", "photos / s in batches", 1),
        Column("bank_mb", "memory kept, MB", 1),
        Column("timed_on", "timed on"),
        Column("threads", "threads"),
    )
    judged = groups([line for line in lines if line.get("measure", "accuracy") == "accuracy"], recipes_for(8, METHODS))
    found = [replace(group, lines=(*_timed_like(group, lines), *group.lines)) for group in judged]
    rows: list[dict[str, Cell]] = []
    for group, accurate in zip(found, judged, strict=True):
        timed = alone([line for line in group.lines if "latency_ms" in line])
        rows.append(
            row(
                what=group.label,
                backbone=group.backbone,
                categories=", ".join(accurate.categories),
                **{metric: mean_over(accurate, accurate.categories, metric) for metric in METRICS},
                latency_ms=Spread.of(line["latency_ms"] for line in timed),
                throughput=Spread.of(line["images_per_second"] for line in timed),
                bank_mb=Spread.of(line["bank_mb"] for line in timed),
                timed_on=", ".join(in_order(line["category"] for line in timed)) or None,
                threads=", ".join(sorted({str(line["threads"]) for line in timed})) or None,
            )
        )
    rows += [row(what=name, categories=reason) for name, reason in missing_methods(found, absent)]
    return columns, rows, found


def _timed_like(group: Group, lines: Sequence[Line]) -> list[Line]:
    """Return the lines that tell of costs alone and belong to the recipe of a row, whatever its training.

    Only those with the most photos of a category count: with fewer, some methods judge faster than in use.
    """
    same = ("recipe", "backbone", "changes")
    first = group.lines[0]
    costs = [
        line
        for line in lines
        if line.get("measure") == "cost" and "latency_ms" in line and all(line[name] == first[name] for name in same)
    ]
    most: dict[str, int] = {}
    for line in costs:
        most[line["category"]] = max(most.get(line["category"], 0), line["train_images"])
    return [line for line in costs if line["train_images"] == most[line["category"]]]


def timing_notes(found: Sequence[Group]) -> tuple[str, ...]:
    """Return what has to be said of the times in some rows."""
    timed = [line for group in found for line in group.lines if "latency_ms" in line]
    formats = in_order(line.get("precision", "f32") for line in timed)
    notes = [
        f"Times are of the torch engine, backbone in {' or '.join(formats)}, on the machine of the run; latency is the "
        "median for one photo."
    ]
    beside = sum(line.get("jobs") != 1 for line in alone(timed))
    if beside:
        notes.append(f"{beside} of the timed runs were made beside others: their times are too long.")
    processors = sorted({f"{line['processor']}, {line['threads']} thread(s)" for line in timed if "processor" in line})
    if processors:
        notes.append(f"Machines: {'; '.join(processors)}.")
    return tuple(notes)


def alone(lines: Sequence[Line]) -> list[Line]:
    """Return the lines of runs that had the machine for themselves, or all where none had."""
    return [line for line in lines if line.get("jobs") == 1] or list(lines)


def throughput(group: Group, categories: Sequence[str]) -> Spread | None:
    """Return photos a second over the timed runs of a row on some categories."""
    own = [line for line in group.lines if line["category"] in categories and "images_per_second" in line]
    return Spread.of(line["images_per_second"] for line in alone(own))


def photo_counts(group: Group) -> list[int]:
    """Return the numbers of training photos that a row was measured at, ascending."""
    return sorted({line["train_images"] for line in group.lines})


def at_count(group: Group, count: int) -> list[Line]:
    """Return the lines of a row at one number of training photos."""
    return [line for line in group.lines if line["train_images"] == count]


def growth(group: Group) -> float | None:
    """Return the exponent of a power law through the modeling times, by least squares of the logarithms.

    None where fewer than two numbers of photos were measured.
    """
    points = []
    for count in photo_counts(group):
        seconds = [one["training_seconds"] for one in alone(at_count(group, count)) if one["training_seconds"]]
        if seconds:
            points.append((math.log(count), math.log(statistics.mean(seconds))))
    if len(points) < 2:
        return None
    return statistics.linear_regression([x for x, _ in points], [y for _, y in points]).slope


def formula_mb(line: Line) -> float | None:
    """Return the memory that Table 1 of the CFA paper would have for a run, in MB of 32-bit floats.

    H and W are those of the finest level that the method uses, D the features it keeps per place. None for methods
    that the paper's table does not have.
    """
    inner, pyramid = line["settings"]["method_settings"], line["pyramid"]
    if not pyramid:
        return None
    levels = [pyramid[level - 2] for level in inner.get("levels", (2, 3, 4))]
    positions = max(height * width for _, height, width in levels)
    channels = sum(level[0] for level in levels)
    photos = line["train_images"]
    if line["method"] == "spade":
        floats = photos * positions * channels
    elif line["method"] == "padim":
        floats = positions * line["kept"]["mean"][-1] ** 2
    elif line["method"] == "patchcore":
        floats = photos * inner["ratio"] * positions * inner["dimensions"]
    elif line["method"] == "cfa":
        floats = positions / inner["gamma_c"] * (channels // inner["gamma_d"])
    else:
        return None
    return float(floats * FLOAT / 1e6)
