"""The lines that belong together in a row: one recipe, one backbone, one budget, all its categories and seeds."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hyperspot.benchmark.plans import Absent
from hyperspot.benchmark.protocol import DEVELOPMENT, PAPER_METHODS, key, label_of
from hyperspot.benchmark.published import Entry, published
from hyperspot.benchmark.records import Line
from hyperspot.benchmark.table import Cell, Given

Where = Literal["input", "photo"]
IMAGE, PIXEL, PRO = "image_auroc", "pixel_auroc", "aupro_30"
METRICS = {IMAGE: "I-AUROC", PIXEL: "P-AUROC", PRO: "AUPRO"}
PUBLISHED_AS = {"cfa released, fused": "cfa++", "cfa released, resize only": "cfa_resize"}
"""Recipes whose published counterpart has another name than their method."""


@dataclass(frozen=True)
class Group:
    """The runs of one row.

    Attributes:
        label: How the row is called.
        recipe: The name of its settings.
        method: In the registry.
        backbone: The frozen feature extractor.
        lines: One for each run, the latest of the same ones last.

    """

    label: str
    recipe: str
    method: str
    backbone: str
    lines: tuple[Line, ...]

    @property
    def published_as(self) -> str:
        """The name of its published counterpart."""
        return PUBLISHED_AS.get(self.recipe, self.method)

    @property
    def categories(self) -> list[str]:
        """The categories it was run on, those for development last."""
        return in_order(line["category"] for line in self.lines)

    @property
    def departs(self) -> bool:
        """Whether it is its recipe with changed settings, shortened training or weights that were never trained."""
        line = self.lines[0]
        random = (line.get("weights") or "").startswith("random:")
        return bool(line["changes"]) or line.get("budget", "full") != "full" or random

    def of(self, category: str) -> list[Line]:
        """Return the lines of one category."""
        return [line for line in self.lines if line["category"] == category]

    def by_seed(
        self, category: str, metric: str, *, part: str = "last", where: Where = "input", by: str = "seed"
    ) -> dict[int, float]:
        """Return the values of a metric by seed, or by what else a line tells; the latest of the same runs counts."""
        found = {}
        for line in self.of(category):
            figure = value(line.get(part), metric, where)
            if figure is not None:
                found[int(line[by])] = figure
        return found


def value(figures: Mapping[str, Any] | None, metric: str, where: Where = "input") -> float | None:
    """Return a metric in 0..1 from the figures of a line; none where they lack it.

    Metrics over pixels are taken in the pixels that the detector sees, as published ones are, or at the `photo`'s own.
    """
    if figures is None:
        return None
    inside = figures.get("at_input", {}) if where == "input" else {}
    found: float | None = inside.get(metric, figures.get(metric))
    return found


def groups(lines: Iterable[Line], recipes: Sequence[str]) -> list[Group]:
    """Return the rows that some recipes have in the lines, in their order; failed runs are left out."""
    chosen = [line for line in lines if line["recipe"] in recipes and "error" not in line and "settings" in line]
    known = {line["backbone"]: set[str]() for line in chosen}
    for line in chosen:
        if line.get("weights") and not line["weights"].startswith("random:"):
            known[line["backbone"]].add(line["weights"])
    gathered: dict[tuple[str, ...], list[Line]] = {}
    for line in chosen:
        settings = {name: part for name, part in line["settings"].items() if name != "seed"}
        weights = line.get("weights") or (known[line["backbone"]] and min(known[line["backbone"]])) or ""
        changes = json.dumps(line["changes"], sort_keys=True)
        same = (line["recipe"], changes, line["backbone"], line.get("budget", "full"), weights)
        gathered.setdefault((*same, json.dumps(settings, sort_keys=True)), []).append(line)
    made: list[Group] = []
    for (recipe, changes, backbone, budget, weights, _), own in gathered.items():
        label = label_of(recipe, json.loads(changes), budget)
        label += f", {weights}" if weights.startswith("random:") else ""
        twins = sum(group.label.split(" (settings")[0] == label and group.backbone == backbone for group in made)
        label += f" (settings {twins + 1})" if twins else ""
        made.append(Group(label, recipe, own[0]["method"], backbone, tuple(_latest(own))))
    return sorted(made, key=lambda group: (recipes.index(group.recipe), group.backbone, group.label))


def shared_categories(found: Sequence[Group], group: Group) -> tuple[list[str], int]:
    """Return the categories that all rows of a row's backbone have, and how many of them the row itself lacks.

    Only over these can means be compared.

    Rows that depart from their recipe have no say unless there are no others, as one run of such a kind would take all
    but its own category from the rest.
    """
    own = [one for one in found if one.backbone == group.backbone]
    voices = [one for one in own if not one.departs] or own
    shared = set.intersection(*(set(one.categories) for one in voices))
    return in_order(shared), len(shared.difference(group.categories))


def one_set_of_photos(lines: Sequence[Line]) -> tuple[list[Line], tuple[str, ...]]:
    """Return the lines on the latest photos of each category, and a note on each category that had others."""
    latest = {line["category"]: line.get("fingerprint") for line in lines if "error" not in line}
    kept = [line for line in lines if line.get("fingerprint") == latest.get(line["category"], line.get("fingerprint"))]
    others = in_order(line["category"] for line in lines if line not in kept)
    return kept, tuple(f"Lines on other photos of {plain_name(name)} are left out." for name in others)


def in_order(categories: Iterable[str]) -> list[str]:
    """Return category names once each, by the alphabet, those for development last."""
    return sorted(set(categories), key=lambda name: (name in DEVELOPMENT, name))


def plain_name(category: str) -> str:
    """Return the name of a category as shown, marked where it is for development."""
    return f"{category} (dev.)" if category in DEVELOPMENT else category


def published_cell(group: Group, metric: str, names: Sequence[str]) -> Given | None:
    """Return the published mean over some categories, with all that has to be said of it."""
    entry = published().by_category(group.published_as)
    figure = None if entry is None else entry.mean(metric, names)
    if entry is None or figure is None:
        return None
    notes = published().texts(entry.notes)
    for name in names:
        notes += published().texts(entry.category_notes.get(name, ()))
    source = published().sources[entry.source] if entry.source else ""
    return Given(figure, (*notes, f"{entry.label}: {source}."))


def printed_cell(entry: Entry | None, metric: str, which: str = "all") -> Given | None:
    """Return a figure as the CFA paper prints it."""
    figure = None if entry is None else entry.figures.get(metric, {}).get(which)
    if entry is None or figure is None:
        return None
    notes = published().texts(entry.notes)
    return Given(figure, (*notes, *([f"Published with {entry.backbone}."] if entry.backbone else [])))


def missing_methods(found: Sequence[Group], absent: Sequence[Absent]) -> list[tuple[str, str]]:
    """Return the methods of the paper that were asked for and no row has, each with why."""
    there = {group.method for group in found} | {one.name for one in absent if one.kind == "unasked"}
    reasons = {one.name: one.reason for one in absent if one.kind == "method"}
    return [(name, reasons.get(name, "no run")) for name in PAPER_METHODS if name not in there]


def absences(absent: Sequence[Absent], kinds: Sequence[str] = ("category", "backbone")) -> tuple[str, ...]:
    """Return a note on everything of some kinds that was asked for and is not there."""
    return tuple(f"No {one.kind} {one.name}: {one.reason}." for one in absent if one.kind in kinds)


def failures(lines: Sequence[Line], recipes: Sequence[str]) -> tuple[str, ...]:
    """Return a note on each run that failed and was not made later."""
    made = {key(line) for line in lines if "error" not in line}
    latest = {key(line): line for line in lines if "error" in line and key(line) not in made}
    return tuple(
        f"Failed: {label_of(line['recipe'], line['changes'], line['budget'])}, {line['category']}, "
        f"seed {line['seed']}: {line['error']}"
        for line in latest.values()
        if line["recipe"] in recipes
    )


def reductions(found: Sequence[Group], table: int) -> tuple[str, ...]:
    """Return a note on each row whose training was shortened, with the command that has it in full."""
    notes = []
    for group in found:
        line = group.lines[-1]
        if line.get("budget") == "quick":
            changed = ", ".join(f"{name} {new} instead of {old}" for name, old, new in line["reduced"])
            full = f"hyperspot benchmark DATA --table {table} --method {group.method} --backbone {group.backbone}"
            full += " --budget full"
            notes.append(f"{group.label}: a reduced budget ({changed}); in full: `{full}`.")
    return tuple(notes)


def development(categories: Iterable[str]) -> tuple[str, ...]:
    """Return a note on the categories that choices were made on, if there are any."""
    chosen = [name for name in in_order(categories) if name in DEVELOPMENT]
    return (f"Development categories, on which choices were made: {', '.join(chosen)}.",) if chosen else ()


def row(**cells: Cell) -> dict[str, Cell]:
    """Return one row; a cell may be left out."""
    return cells


def _latest(lines: Sequence[Line]) -> list[Line]:
    """Return the lines, the same runs once each, but for those that tell of checkpoints or of times on top."""
    kept: dict[tuple[str, bool, bool], Line] = {}
    for line in lines:
        kept[key(line), "oracle" in line, "latency_ms" in line and line.get("jobs") == 1] = line
    return list(kept.values())
