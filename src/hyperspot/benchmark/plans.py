"""The runs that a table needs, from the categories, methods and backbone weights that are available."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hyperspot.backbones import NONE, create
from hyperspot.benchmark.protocol import (
    DEFAULT,
    FUSED,
    PAPER_METHODS,
    PREVIOUS,
    RANDOMIZED,
    SEEDS,
    TILED,
    Budget,
    Run,
    Task,
    limit_images,
    method_order,
    on_budget,
    recipes_of,
    settings_of,
    uses_backbone,
)
from hyperspot.data import list_categories, open_dataset
from hyperspot.data.rd_mvtec import VERSIONS
from hyperspot.detector.settings import make_settings
from hyperspot.errors import DataError, HyperspotError, SettingsError
from hyperspot.methods import METHODS

TITLES = {
    1: "Modeling time and memory against the number of images",
    2: "Methods: image and pixel AUROC by group of categories",
    3: "RD-MVTec AD: images rotated and cropped at random",
    4: "Methods by category",
    5: "Ablation of the losses and of the radius",
    6: "Compression: pixel AUROC against throughput",
    7: "Backbones",
    8: "Accuracy against latency on the CPU",
    9: "Oracle minus last checkpoint: the gain of choosing on the test images",
    10: "Promised and observed false alarms",
    11: "CFA++ as a fusion, against each of its crops",
    12: "Overview: image AUROC by category, detection rate and latency",
}
"""1 to 7 are the tables of the CFA paper; the others are not in it."""
IMAGE_COUNTS = (25, 50, 100, 200)
"""Training images of Table 1, as far as the category has them."""
GAMMAS = {"cfa released": 1, "cfa released, gamma 1/2": 2, "cfa released, gamma 1/4": 4, "cfa released, gamma 1/8": 8}
ABLATION = {
    "cfa released, no descriptor training": "none",
    "cfa released, attraction only": "attraction",
    "cfa released": "both",
    "cfa released, attraction only, fixed radius": "attraction",
    "cfa released, fixed radius": "both",
    "cfa released, attraction only, fixed radius 0.7": "attraction",
    "cfa released, fixed radius 0.7": "both",
    "cfa paper": "both",
}
"""The recipes of Table 5 and their losses. A learned radius grows to about 0.7 (0.65 on bottle, 0.74 on transistor); a
radius fixed there separates the effect of its size from that of learning it."""
TABLE_BACKBONES = ("vgg19_bn", "efficientnet_b5", "resnet18", "wide_resnet50_2")
TIMED = (1, 6, 8)
"""Tables of times; a run of theirs needs an otherwise idle machine."""
ONE_SEED = (1, 3)
"""Tables that default to one seed: their spread comes from elsewhere, or they show costs."""


@dataclass(frozen=True)
class Category:
    """An available product: name, name to select it by, fingerprint, numbers of training and test images."""

    name: str
    chosen: str | None
    fingerprint: str
    train_images: int
    test_images: int = 0


@dataclass(frozen=True)
class Absent:
    """A `category`, `method` or `backbone` without runs, and why; `unasked` marks methods excluded by --method."""

    kind: str
    name: str
    reason: str


@dataclass(frozen=True)
class Asked:
    """The options of the runs."""

    data: Path
    categories: tuple[Category, ...]
    methods: tuple[str, ...]
    backbones: Mapping[str, str]
    weights: str | None = None
    seeds: tuple[int, ...] | None = None
    budget: Budget = "full"
    oracle: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)
    device: str = "cpu"
    max_train_images: int | None = None
    max_test_images: int | None = None


def plan(table: int, asked: Asked) -> list[Task]:
    """Return the tasks of a table in the order of categories, recipes and seeds."""
    tasks: list[Task] = []
    for category in asked.categories[:1] if table == 1 else asked.categories:
        for recipe in recipes_for(table, asked.methods):
            weights = asked.weights if uses_backbone(recipe) else None
            for run in _runs(table, recipe, category, asked):
                timed = table in TIMED and (table != 8 or run.measure == "cost")
                tasks.append(Task(run, asked.data, category.chosen, weights, timed, asked.device))
    return tasks


def _runs(table: int, recipe: str, category: Category, asked: Asked) -> Iterator[Run]:
    seeds = asked.seeds or (SEEDS[:1] if table in ONE_SEED else SEEDS)
    for backbone, weights in (asked.backbones if uses_backbone(recipe) else {NONE: NONE}).items():
        for seed in seeds:
            run = Run(
                recipe=recipe,
                category=category.name,
                settings=settings_of(recipe, backbone=backbone, seed=seed, changes=asked.changes),
                fingerprint=category.fingerprint,
                weights=weights,
                changes=tuple(sorted(asked.changes.items())),
                oracle=(asked.oracle or table == 9) and _has_checkpoints(table, recipe),
            )
            for one in _variations(table, run, category, asked.max_train_images):
                yield on_budget(_limited(one, category, asked), asked.budget, category.train_images)
            if table == 8 and category is asked.categories[0] and seed == seeds[0]:
                # Latency does not depend on the length of the training.
                cost = replace(run, measure="cost", oracle=False, train_images=category.train_images)
                yield on_budget(cost, "quick", category.train_images)


def _limited(run: Run, category: Category, asked: Asked) -> Run:
    if run.measure == "cost":
        return run
    train, test = asked.max_train_images, asked.max_test_images
    return limit_images(run, category.train_images, train=train, test=test, tests=category.test_images)


def _variations(table: int, run: Run, category: Category, most: int | None) -> list[Run]:
    """Return the runs that a table makes of one: by number of images, by randomized version, or itself."""
    if table == 1:
        last = min(category.train_images, most or category.train_images)
        counts = [*(count for count in IMAGE_COUNTS if count < last), last]
        return [replace(run, train_images=count, measure="cost") for count in counts]
    if table == 3:
        settings = make_settings({**dict(run.settings), **RANDOMIZED})
        return [replace(run, settings=settings, version=version) for version in range(VERSIONS)]
    return [run]


def _has_checkpoints(table: int, recipe: str) -> bool:
    """Whether the oracle can evaluate a run: unchanged images, one crop, no held-out images."""
    return table not in (1, 3) and recipe != FUSED and not recipe.endswith("calibrated")


def recipes_for(table: int, methods: Iterable[str]) -> list[str]:
    """Return the recipes of a table, of some methods."""
    known = method_order(methods)
    compared = [recipe for method in known for recipe in recipes_of(method)]
    if table == 10:
        return [
            *((DEFAULT, TILED, PREVIOUS) if "cfa" in known else ()),
            *(f"{one}, calibrated" for one in known if one in PAPER_METHODS[1:]),
        ]
    if table in (5, 6, 7, 11) and "cfa" not in known:
        return [name for name in known if table == 7]
    if table in (1, 3):
        return [recipe for recipe in compared if recipe != DEFAULT]
    if table == 2:
        return [*compared, FUSED] if "cfa" in known else compared
    if table == 7:
        return ["cfa released", FUSED, *(name for name in known if name in ("padim", "cflow"))]
    return {5: list(ABLATION), 6: list(GAMMAS), 11: [FUSED]}.get(table, compared)


def find_categories(data: Path, wanted: Sequence[str]) -> tuple[list[Category], list[Absent]]:
    """Return the products in a folder and the missing ones of `wanted`; all products if `wanted` is empty.

    Raises DataError if there is no folder, or no product with training and test images in it.
    """
    found: list[Category] = []
    absent: list[Absent] = []
    names: list[str | None] = [*list_categories(data)]
    for name in names or [None]:
        if wanted and name is not None and name not in wanted:
            continue
        try:
            dataset = open_dataset(data, category=name)
        except HyperspotError as error:
            if name is None:
                raise
            absent.append(Absent("category", name, str(error)))
            continue
        if name is None and wanted and dataset.name not in wanted:
            continue
        lacks = [split for split, images in (("training", dataset.train), ("test", dataset.test)) if not images]
        if lacks:
            absent.append(Absent("category", dataset.name, f"it has no {lacks[0]} images"))
            continue
        counts = len(dataset.train), len(dataset.test)
        found.append(Category(name or dataset.name, name, dataset.fingerprint(), *counts))
    seen = {one.name for one in found} | {one.name for one in absent}
    absent += [Absent("category", name, "not in the data") for name in wanted if name not in seen]
    if not found:
        reasons = "; ".join(f"{one.name}: {one.reason}" for one in absent)
        raise DataError(f"{data} holds no product to run on ({reasons}); give a data set with train and test images")
    return found, absent


def find_methods(wanted: Sequence[str]) -> tuple[list[str], list[Absent]]:
    """Return the methods to run and those of the paper that this version lacks; all if `wanted` is empty.

    Raises SettingsError for a name that is neither.
    """
    unknown = [name for name in wanted if name not in METHODS and name not in PAPER_METHODS]
    if unknown:
        raise SettingsError(f"there is no method '{unknown[0]}'; choose one of {', '.join(METHODS)}")
    asked = method_order(wanted or (*METHODS, *PAPER_METHODS))
    lacking = [Absent("method", name, "not in this version") for name in asked if name not in METHODS]
    return [name for name in asked if name in METHODS], lacking


def find_backbones(names: Iterable[str], weights: str | None) -> tuple[dict[str, str], list[Absent]]:
    """Return the backbones whose weights are available, with the checksum of the weights, and the others."""
    found, absent = {}, []
    for name in names:
        try:
            backbone = create(name, weights=weights)
        except HyperspotError as error:
            absent.append(Absent("backbone", name, str(error)))
            continue
        found[name] = backbone.weights_sha256 or backbone.weights_source
    return found, absent
