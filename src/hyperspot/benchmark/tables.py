"""Every table from the same lines; nothing is run here. Those of times and memory are in `costs`."""

import itertools
from collections.abc import Callable, Sequence

import pandas as pd

from hyperspot.benchmark import costs, notes
from hyperspot.benchmark.columns import (
    ACCURACY,
    BACKBONE,
    CATEGORY,
    COUNT,
    METHOD,
    PAPER,
    PAPER_BACKBONE,
    PUBLISHED,
    SEEDS,
    THEIR_BACKBONE,
    Body,
    cells,
    metric_column,
    metric_title,
    printed,
)
from hyperspot.benchmark.plans import ABLATION, TABLE_BACKBONES, TIMED, TITLES, Absent, recipes_for
from hyperspot.benchmark.protocol import FUSED
from hyperspot.benchmark.published import published
from hyperspot.benchmark.records import Line
from hyperspot.benchmark.render import Cells, Column, Given, Table
from hyperspot.benchmark.runs import (
    IMAGE,
    METRICS,
    PIXEL,
    RATES,
    frame,
    in_order,
    mean_over,
    one_fingerprint,
    rows,
    select,
    shared_categories,
    shown,
    spread,
)
from hyperspot.errors import SettingsError
from hyperspot.methods import METHODS

GOOD = Column("good", "good test images", "good")
PROTOCOL = (
    "Ours: last checkpoint, mean ± deviation over seeds, per cent; pixel metrics at the detector's input (the center "
    "crop in the papers' geometry) unless the title says original; AUPRO up to 0.30."
)


def draw(number: int, lines: Sequence[Line], absent: Sequence[Absent] = ()) -> Table:
    """Return a table drawn from lines, ours beside the published figures.

    Args:
        number: 1 to 12.
        lines: From `records.read`.
        absent: Categories, methods and backbones without runs, listed below the table.

    Raises:
        SettingsError: If there is no such table.

    """
    if number not in BODIES:
        raise SettingsError(f"there is no table {number}; choose one of {', '.join(map(str, BODIES))}")
    runs, others = one_fingerprint(frame([line for line in lines if _belongs(line, number)]))
    columns, drawn, found = BODIES[number](runs)
    below = (
        *(() if number == 1 else (PROTOCOL,)),
        *(notes.timing(runs, found) if number in (*TIMED, 12) else ()),
        *notes.sources(number),
        *notes.development(category for row in found for category in row.categories),
        *notes.reductions(number, found),
        *notes.failures(runs, recipes_for(number, METHODS)),
        *notes.missing(number, found, absent),
        *(f"Lines on other images of {shown(name)} are left out." for name in others),
    )
    return Table(number, TITLES[number], columns, tuple(drawn), below)


def _belongs(line: Line, number: int) -> bool:
    """Return whether a table takes a line: costs, randomized images and others are kept apart."""
    cost = line.get("measure") == "cost"
    if number == 1:
        return cost
    return (number in (8, 12) or not cost) and (line.get("version") is not None) == (number == 3)


def by_group(runs: pd.DataFrame) -> Body:
    """Table 2: textures, objects, all of MVTec AD, and other products; published figures of the same categories."""
    original = Column("original_pixel", "P-AUROC, original"), Column("original_pro", "AUPRO, original")
    group = Column("group", "group", words=True)
    columns = (METHOD, BACKBONE, group, COUNT, *ACCURACY, *PUBLISHED, THEIR_BACKBONE, *PAPER, PAPER_BACKBONE, *original)
    found = rows(runs, recipes_for(2, METHODS))
    drawn: list[Cells] = []
    for row in found:
        paper = next(iter(published().rows(2, row.published_as)), None)
        known = published().groups
        others = tuple(name for name in row.categories if name not in known["all"])
        for title, names in {**known, **({"other": others} if others else {})}.items():
            present = [name for name in names if name in row.categories]
            count = f"{len(present)} of {len(names)}" if title in known else str(len(present))
            if present or title == "all":
                one = cells(columns, row, present, group=title, categories=count)
                drawn.append({**one, **printed(paper, title)})
    return columns, drawn, found


def randomized(runs: pd.DataFrame) -> Body:
    """Table 3: mean and deviation over the frozen versions."""
    paper_pro = Column("paper_pro", "CFA paper, AUPRO", optional=True)
    columns = (METHOD, BACKBONE, CATEGORY, Column("versions", "versions"), *ACCURACY, PAPER[0], paper_pro)
    found = rows(runs, recipes_for(3, METHODS))
    drawn: list[Cells] = []
    for row in found:
        values = {name: row.values(name, by=["seed", "version"]) for name in (*RATES, *METRICS)}
        values = {name: one.groupby("version").mean() for name, one in values.items()}
        named = {"mean": row.categories} if len(row.categories) > 1 else {}
        for title, names in {**{name: [name] for name in row.categories}, **named}.items():
            figures: Cells = {name: mean_over(one, names) for name, one in values.items()}
            title = f"mean of {len(names)}" if title == "mean" else shown(title)
            drawn.append(cells(columns, row, names, category=title, versions=str(len(values[IMAGE])), **figures))
    for paper in published().rows(3):
        about: Cells = {"what": f"published {paper.label}", "backbone": paper.backbone, "category": "mean of 15"}
        drawn.append({**about, **printed(paper)})
    return columns, drawn, found


def by_category(runs: pd.DataFrame) -> Body:
    """Table 4: every category by itself."""
    oracle = Column("oracle", "oracle I-AUROC (best checkpoint)", "oracle", optional=True)
    difference = Column("difference", "difference, I-AUROC", "difference", optional=True)
    columns = (CATEGORY, METHOD, BACKBONE, SEEDS, *ACCURACY, *PUBLISHED, THEIR_BACKBONE, difference, oracle)
    found = rows(runs, recipes_for(4, METHODS))
    drawn = [
        cells(columns, row, [category], category=shown(category))
        for category in in_order(name for row in found for name in row.categories)
        for row in found
        if row.mean(IMAGE, [category])
    ]
    return columns, drawn, found


def ablation(runs: pd.DataFrame) -> Body:
    """Table 5: which losses, and whether the radius is learned."""
    columns = (METHOD, BACKBONE, Column("losses", "losses", words=True), CATEGORY, SEEDS, *ACCURACY, *PAPER)
    found = rows(runs, list(ABLATION))
    drawn: list[Cells] = []
    for row in found:
        losses = ABLATION[row.recipe]
        drawn += [cells(columns, row, [name], losses=losses, category=shown(name)) for name in row.categories]
        matching = [one for one in published().rows(5) if one.losses == losses and one.backbone == row.backbone]
        # The released code learns the radius, so only those variants have a published counterpart.
        paper = matching[0] if matching and "fixed" not in row.recipe and row.recipe != "cfa paper" else None
        shared, missing = shared_categories(found, row)
        title = f"mean of {len(shared)} shared" if shared else "none shared by all variants"
        title = f"lacks {missing} of {len(shared)} shared" if missing else title
        mean = cells(columns, row, [] if missing else shared, losses=losses, category=title, seeds=None)
        drawn.append({**mean, **printed(paper)})
    return columns, drawn, found


def backbones(runs: pd.DataFrame) -> Body:
    """Table 7: one method on several backbones."""
    columns = (BACKBONE, METHOD, COUNT, *ACCURACY, *PAPER)
    found = rows(runs, recipes_for(7, METHODS))
    drawn: list[Cells] = []
    for backbone in (*TABLE_BACKBONES, *sorted({row.backbone for row in found} - set(TABLE_BACKBONES))):
        drawn += [cells(columns, row, row.categories) for row in found if row.backbone == backbone]
        for paper in published().rows(7):
            if paper.backbone == backbone:
                about: Cells = {"backbone": backbone, "what": f"published {paper.label}", "categories": "15"}
                drawn.append({**about, **printed(paper)})
    return columns, drawn, found


def oracle(runs: pd.DataFrame) -> Body:
    """Table 9: the same runs at their last and at their best checkpoint."""
    columns = (
        CATEGORY,
        METHOD,
        BACKBONE,
        Column("metric", "metric", words=True),
        SEEDS,
        Column("last", "last checkpoint"),
        Column("best", "best checkpoint (oracle)", "best"),
        Column("adds", "oracle adds"),
        Column("published", "published", optional=True),
        THEIR_BACKBONE,
        Column("checkpoints", "checkpoints", "chk."),
    )
    found = rows(select(runs, lambda line: bool(line.get("watched"))), recipes_for(9, METHODS))
    drawn: list[Cells] = []
    for row in found:
        lengths = [len(line["history"]) for line in row.runs.line if "oracle" in line]
        if not lengths:
            drawn.append(cells([METHOD, BACKBONE], row, [], category="all", metric="reports no checkpoints"))
            continue
        for metric, key in zip(METRICS, ("published_image", "published_pixel", "published_pro"), strict=True):
            best = row.values(metric, part="oracle")
            last = row.values(metric).reindex_like(best).where(best.notna())
            title = metric_title(metric)
            for name in in_order(best.columns):
                theirs = cells([Column(key, ""), THEIR_BACKBONE], row, [name])
                one: Cells = {
                    "seeds": str(int(best[name].count())),
                    "last": spread(last[name]),
                    "best": spread(best[name]),
                    "adds": spread(best[name] - last[name]),
                    "published": theirs[key],
                    "published_backbone": theirs["published_backbone"] if theirs[key] else None,
                    "checkpoints": str(max(lengths)),
                }
                drawn.append(cells([METHOD, BACKBONE], row, [name], category=shown(name), metric=title, **one))
            if len(best.columns) > 1:
                mean, of = mean_over(best - last, list(best.columns)), f"mean of {len(best.columns)}"
                drawn.append(cells([METHOD, BACKBONE], row, [], category=of, metric=title, adds=mean))
    return columns, drawn, found


def promises(runs: pd.DataFrame) -> Body:
    """Table 10: detection rate and false alarms at the default rate and at others, by category, and their means."""
    figures = (*RATES, IMAGE, "seg_f1", "mask_area_ratio")
    others = tuple(
        Column(f"{name}_{percent}", f"{title} {percent} %", optional=True)
        for percent in (1, 2, 5)
        for name, title in (("detection", "detected at"), ("false_alarms", "false alarms at"))
    )
    columns = (CATEGORY, METHOD, BACKBONE, *map(metric_column, figures), *others, SEEDS, GOOD)
    found = rows(runs, recipes_for(10, METHODS))
    drawn: list[Cells] = []
    for row in found:
        good = {line["category"]: str(line["last"]["good_images"]) for line in row.runs.line}
        many = {f"mean of {len(row.categories)}": row.categories} if len(row.categories) > 1 else {}
        for title, names in {**{shown(name): [name] for name in row.categories}, **many}.items():
            at = {one.key: mean_over(row.values(f"at_rates.{one.key}"), names) for one in others}
            count = str(sum(int(good[name]) for name in names))
            more: Cells = {"mask_area_ratio": mean_over(row.values("mask_area_ratio"), names)}
            drawn.append(cells(columns, row, names, category=title, good=count, **more, **at))
    return columns, drawn, found


def fusion(runs: pd.DataFrame) -> Body:
    """Table 11: the fused map against each crop alone, from the same runs."""
    metrics, crop_column = map(metric_column, METRICS), Column("crop", "crop", words=True)
    columns = (CATEGORY, METHOD, BACKBONE, crop_column, SEEDS, *metrics, *PUBLISHED, THEIR_BACKBONE)
    found = rows(runs, [FUSED])
    drawn: list[Cells] = []
    kinds = (("center", "center", "cfa"), ("full", "full", "cfa_resize"), ("last", "fused", "cfa++"))
    for row in found:
        for name, (part, crop, known) in itertools.product(row.categories, kinds):
            ours = {metric: mean_over(row.values(metric, part=part), [name]) for metric in METRICS}
            image = ours[IMAGE]
            count = str(image.count if image else 0)
            theirs: Cells = {}
            for entry in published().categories:
                if entry.method == known and name in entry.figures[IMAGE]:
                    footnotes = published().texts(entry.notes)
                    theirs["published_image"] = Given(entry.figures[IMAGE][name], footnotes)
                    theirs["published_pixel"] = Given(entry.figures[PIXEL][name], footnotes)
                    theirs["published_backbone"] = entry.backbone
            about = cells(columns[:3], row, [name], category=shown(name), crop=crop, seeds=count)
            drawn.append({**about, **ours, **theirs})
    return columns, drawn, found


BODIES: dict[int, Callable[[pd.DataFrame], Body]] = {
    1: costs.complexity,
    2: by_group,
    3: randomized,
    4: by_category,
    5: ablation,
    6: costs.compression,
    7: backbones,
    8: costs.latency,
    9: oracle,
    10: promises,
    11: fusion,
    12: costs.overview,
}
