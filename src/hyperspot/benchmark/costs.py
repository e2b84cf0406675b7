"""The tables of times and memory: 1, 6, 8 and 12."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from hyperspot.benchmark.columns import (
    ACCURACY,
    BACKBONE,
    COUNT,
    METHOD,
    PAPER,
    PAPER_BACKBONE,
    TIMES,
    Body,
    cells,
    metric_column,
    printed,
)
from hyperspot.benchmark.plans import GAMMAS, recipes_for
from hyperspot.benchmark.published import published
from hyperspot.benchmark.records import Line
from hyperspot.benchmark.render import Cells, Column, Given, Spread
from hyperspot.benchmark.runs import (
    IMAGE,
    PIXEL,
    PRO,
    RATES,
    Row,
    in_order,
    pick,
    rows,
    select,
    shared_categories,
    shown,
    spread,
)
from hyperspot.methods import METHODS


def complexity(runs: pd.DataFrame) -> Body:
    """Table 1: time and memory by number of images, beside the formulas of the CFA paper."""
    columns = (
        METHOD,
        BACKBONE,
        Column("images", "images"),
        Column("seconds", "modeling, s", decimals=1),
        Column("bank_mb", "memory kept, MB"),
        Column("peak_mb", "peak while fitting, MB", decimals=0),
        Column("growth", "grows as |X|^"),
        Column("formula_mb", "by the formula, MB"),
        Column("modeling", "CFA paper", words=True),
        Column("bank", "formula", words=True),
    )
    found = rows(runs, recipes_for(1, METHODS))
    drawn: list[Cells] = []
    for row in found:
        paper = next(iter(published().rows(1, row.method)), None)
        by_count = row.runs.assign(count=[line["train_images"] for line in row.runs.line]).groupby("count")
        for count, own in by_count:
            one: Cells = {
                "images": int(count),
                "seconds": spread(pick(alone(own), "training_seconds")),
                "bank_mb": spread(pick(own, "bank_mb")),
                "peak_mb": spread(pick(own, "peak_memory_mb")),
                "growth": _growth(by_count) if count == max(by_count.groups) else None,
                "formula_mb": formula_mb(own.line.iloc[-1]),
                "modeling": Given(paper.modeling) if paper and paper.modeling else None,
                "bank": Given(paper.bank) if paper and paper.bank else None,
            }
            drawn.append(cells(columns, row, [], **one))
    return columns, drawn, found


def compression(runs: pd.DataFrame) -> Body:
    """Table 6: P-AUROC and throughput against the compression of memory and vectors."""
    columns = (
        Column("gamma", "gamma_d = gamma_c", words=True),
        BACKBONE,
        COUNT,
        metric_column(PIXEL),
        Column("throughput", "images / s", decimals=1),
        Column("speedup", "faster by"),
        PAPER[1],
        PAPER_BACKBONE,
        Column("paper_throughput", "CFA paper, images / s", decimals=1),
        Column("paper_speedup", "CFA paper, faster by"),
    )
    found = rows(runs, list(GAMMAS))
    papers = {entry.gamma: entry for entry in published().rows(6)}
    slowest = papers[1].images_per_second
    drawn: list[Cells] = []
    for row in found:
        gamma, rate = GAMMAS[row.recipe], papers[GAMMAS[row.recipe]].images_per_second
        base = next((one for one in found if one.recipe == "cfa released" and one.backbone == row.backbone), None)
        shared, missing = shared_categories(found, row)
        names = [] if missing else shared
        speed, slow = _throughput(row, names), None if base is None else _throughput(base, names)
        one: Cells = {
            "gamma": row.label.replace(row.recipe, "1" if gamma == 1 else f"1/{gamma}"),
            "categories": f"lacks {missing} of {len(shared)}" if missing else str(len(shared) or "none shared"),
            "throughput": speed,
            "speedup": speed.mean / slow.mean if speed and slow else None,
            **printed(papers[gamma]),
            "paper_throughput": Given(rate) if rate else None,
            "paper_speedup": rate / slowest if rate and slowest else None,
        }
        drawn.append(cells(columns, row, names, **one))
    return columns, drawn, found


def latency(runs: pd.DataFrame) -> Body:
    """Table 8: accuracy, and milliseconds from a decoded image to its verdict."""
    timed_on = Column("timed_on", "timed on", words=True), Column("threads", "threads")
    columns = (METHOD, BACKBONE, COUNT, *ACCURACY, *TIMES, *timed_on)
    found = rows(select(runs, _is_accuracy), recipes_for(8, METHODS))
    return columns, [cells(columns, row, row.categories, **times(row, runs)) for row in found], found


def overview(runs: pd.DataFrame) -> Body:
    """Table 12: one row per method: detection rate, image AUROC by category, means, latency, memory."""
    found = rows(select(runs, _is_accuracy), recipes_for(12, METHODS))
    names = in_order(name for row in found if not row.departs for name in row.categories)
    by_name = (Column(f"image_auroc {name}", shown(name)) for name in names)
    means = [metric_column(name) for name in (*RATES[:2], IMAGE)]
    columns = (METHOD, BACKBONE, *means, TIMES[0], TIMES[2], *by_name, metric_column(PIXEL), metric_column(PRO))
    drawn = []
    for row in found:
        own: Cells = {f"image_auroc {name}": row.mean(IMAGE, [name]) for name in names}
        drawn.append(cells(columns, row, names, **own, **times(row, runs)))
    return columns, drawn, found


def times(row: Row, runs: pd.DataFrame) -> Cells:
    """Return latency, throughput and memory of a row, and what they were timed on."""
    own = timed(row, runs)
    threads = sorted({str(line["threads"]) for line in own.line})
    return {
        "latency_ms": spread(pick(own, "latency_ms")),
        "throughput": spread(pick(own, "images_per_second")),
        "bank_mb": spread(pick(own, "bank_mb")),
        "timed_on": ", ".join(in_order(own.category)) or None,
        "threads": ", ".join(threads) or None,
    }


def timed(row: Row, runs: pd.DataFrame) -> pd.DataFrame:
    """Return the timed runs of a row: its own, and cost runs of its recipe whatever their training.

    Only cost runs with the most images of a category count: with fewer, some methods predict faster than in use.
    """
    first = row.runs.line.iloc[0]
    like = ("recipe", "backbone", "changes")
    costs = select(runs, lambda line: line.get("measure") == "cost" and all(line[name] == first[name] for name in like))
    costs = costs[pick(costs, "latency_ms").notna()]
    most = costs.groupby("category").train_images.transform("max") if len(costs) else None
    both = pd.concat([costs[costs.train_images == most] if most is not None else costs, row.runs])
    return alone(both[pick(both, "latency_ms").notna()])


def alone(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs that had the machine for themselves, or all if none had."""
    mine = runs[runs.timed]
    return mine if len(mine) else runs


def _throughput(row: Row, categories: Sequence[str]) -> Spread | None:
    own = row.runs[row.runs.category.isin(categories) & pick(row.runs, "images_per_second").notna()]
    return spread(pick(alone(own), "images_per_second"))


def _growth(by_count: "pd.api.typing.DataFrameGroupBy") -> float | None:
    """Return the exponent of a power law through the modeling times; None for a single number of images."""
    means = {count: pick(alone(own), "training_seconds").mean() for count, own in by_count}
    points = [(count, seconds) for count, seconds in means.items() if seconds > 0]
    if len(points) < 2:
        return None
    counts, seconds = np.log(np.array(points, dtype=np.float64)).T
    return float(np.polyfit(counts, seconds, 1)[0])


def formula_mb(line: Line) -> float | None:
    """Return the memory in MB of 32-bit floats by the formula of Table 1 of the CFA paper.

    H and W are those of the finest level that the method uses, D the features it keeps per patch. None for methods that
    are not in the paper's table.
    """
    inner, pyramid = line["settings"]["method_settings"], line["pyramid"]
    if not pyramid or line["method"] not in ("spade", "padim", "patchcore", "cfa"):
        return None
    levels = [pyramid[level - 2] for level in inner.get("levels", (2, 3, 4))]
    patches = max(height * width for _, height, width in levels)
    channels = sum(level[0] for level in levels)
    images = line["train_images"]
    floats = {
        "spade": lambda: images * patches * channels,
        "padim": lambda: patches * line["kept"]["mean"][-1] ** 2,
        "patchcore": lambda: images * inner["ratio"] * patches * inner["dimensions"],
        "cfa": lambda: patches / inner["gamma_c"] * (channels // inner["gamma_d"]),
    }[line["method"]]()
    return float(floats * 4 / 1e6)


def _is_accuracy(line: Line) -> bool:
    return bool(line.get("measure", "accuracy") == "accuracy")
