"""Which runs a table needs, of what is there: categories, methods, backbone weights."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hyperspot.backbones import NONE, create
from hyperspot.benchmark.protocol import (
    PAPER_METHODS,
    RANDOMIZED,
    SEEDS,
    Budget,
    Run,
    method_order,
    on_budget,
    recipes_of,
    settings_of,
    uses_backbone,
)
from hyperspot.benchmark.tasks import Task
from hyperspot.data import list_categories, open_dataset
from hyperspot.data.rd_mvtec import VERSIONS
from hyperspot.detector.settings import make_settings
from hyperspot.errors import DataError, HyperspotError, SettingsError
from hyperspot.methods import METHODS

TITLES = {
    1: "Modeling time and memory against the number of photos",
    2: "Methods: image and pixel AUROC by group of categories",
    3: "RD-MVTec AD: photos turned and cropped at random",
    4: "Image AUROC by category",
    5: "Ablation of the losses and of the radius",
    6: "Compression: pixel AUROC against throughput",
    7: "Backbones",
    8: "Accuracy against latency on the CPU",
    9: "Oracle minus last checkpoint: what choosing on the test photos adds",
    10: "Promised and observed false alarms",
    11: "CFA++ as a fusion, against each of its views",
}
"""1 to 7 are the tables of the CFA paper; it lacks the others."""
PHOTO_COUNTS = (25, 50, 100, 200)
"""Training photos that Table 1 measures at, as far as a category has them."""
GAMMAS = {"cfa released": 1, "cfa released, gamma 1/2": 2, "cfa released, gamma 1/4": 4, "cfa released, gamma 1/8": 8}
FUSED = "cfa released, fused"
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
"""The recipes of Table 5, and which losses each has. The learned radius grows to about 0.7 (0.65 on bottle, 0.74 on
transistor): where it is fixed there, one sees whether learning it helps, or having one of that size."""
TABLE_BACKBONES = ("vgg19_bn", "efficientnet_b5", "resnet18", "wide_resnet50_2")
"""Those of Table 7."""
TIMED = (1, 6, 8)
"""Tables that show times, for which a run needs the machine for itself."""
ONE_SEED = (1, 3)
"""Tables whose spread comes from elsewhere, or that show costs: one seed where none is given."""


@dataclass(frozen=True)
class Category:
    """A product that is there: its name, what to choose it by, its fingerprint and its good training photos."""

    name: str
    chosen: str | None
    fingerprint: str
    photos: int


@dataclass(frozen=True)
class Absent:
    """What was asked for and is not there: a `category`, a `method` or a `backbone`, and why.

    A method that was not asked for where others were is `unasked`: no table misses it.
    """

    kind: str
    name: str
    reason: str


@dataclass(frozen=True)
class Asked:
    """What the runs are to be made with."""

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


def plan(table: int, asked: Asked) -> list[Task]:
    """Return what has to be run for a table, in the order of categories, recipes and seeds."""
    seeds = asked.seeds or (SEEDS[:1] if table in ONE_SEED else SEEDS)
    tasks: list[Task] = []
    for category in asked.categories[:1] if table == 1 else asked.categories:
        for recipe in recipes_for(table, asked.methods):
            own = not uses_backbone(recipe)
            for backbone, weights in ({NONE: NONE} if own else asked.backbones).items():
                for seed in seeds:
                    settings = settings_of(recipe, backbone=backbone, seed=seed, changes=asked.changes)
                    run = Run(
                        recipe=recipe,
                        category=category.name,
                        settings=settings,
                        fingerprint=category.fingerprint,
                        weights=weights,
                        changes=tuple(sorted(asked.changes.items())),
                        oracle=(asked.oracle or table == 9) and _has_checkpoints(table, recipe),
                    )
                    made = _variations(table, on_budget(run, asked.budget), category)
                    if table == 8 and category is asked.categories[0] and seed == seeds[0]:
                        # How long a photo takes does not depend on how long was trained.
                        cost = replace(on_budget(run, "quick"), measure="cost", oracle=False)
                        made.append(replace(cost, train_images=category.photos))
                    tasks += [
                        Task(
                            one,
                            asked.data,
                            category.chosen,
                            None if own else asked.weights,
                            timed=_is_timed(table, one),
                            device=asked.device,
                        )
                        for one in made
                    ]
    return tasks


def recipes_for(table: int, methods: Iterable[str]) -> list[str]:
    """Return the recipes of a table, of some methods."""
    known = method_order(methods)
    compared = [recipe for method in known for recipe in recipes_of(method)]
    if table in (5, 6, 7, 10, 11) and "cfa" not in known:
        return [name for name in known if table == 7]
    if table in (1, 3):
        return [recipe for recipe in compared if recipe != "cfa default"]
    if table == 2:
        return [*compared, FUSED] if "cfa" in known else compared
    if table == 7:
        return ["cfa released", FUSED, *(name for name in known if name in ("padim", "cflow"))]
    return {
        5: list(ABLATION),
        6: list(GAMMAS),
        10: ["cfa default, calibrated"],
        11: [FUSED],
    }.get(table, compared)


def find_categories(data: Path, wanted: Sequence[str]) -> tuple[list[Category], list[Absent]]:
    """Return the products in a folder and those of `wanted` that it lacks; all of them where none is named.

    Raises DataError where there is no folder, or nothing in it that has photos to learn from and to test.
    """
    several = list_categories(data)
    found: list[Category] = []
    absent: list[Absent] = []
    names: list[str | None] = [*several] or [None]
    for name in names:
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
        lacks = [what for what, photos in (("training", dataset.train), ("test", dataset.test)) if not photos]
        if lacks:
            absent.append(Absent("category", dataset.name, f"it has no {lacks[0]} photos"))
            continue
        found.append(Category(name or dataset.name, name, dataset.fingerprint(), len(dataset.train)))
    told = {one.name for one in found} | {one.name for one in absent}
    absent += [Absent("category", name, "not in the data") for name in wanted if name not in told]
    if not found:
        reasons = "; ".join(f"{one.name}: {one.reason}" for one in absent)
        raise DataError(f"{data} holds no product to run on ({reasons}); give a data set with train and test photos")
    return found, absent


def find_methods(wanted: Sequence[str]) -> tuple[list[str], list[Absent]]:
    """Return the methods to be run, and those of the paper that this version lacks; all where none is named.

    Raises SettingsError where a name is neither.
    """
    unknown = [name for name in wanted if name not in METHODS and name not in PAPER_METHODS]
    if unknown:
        raise SettingsError(f"there is no method '{unknown[0]}'; choose one of {', '.join(METHODS)}")
    asked = method_order(wanted or (*METHODS, *PAPER_METHODS))
    lacking = [Absent("method", name, "not in this version") for name in asked if name not in METHODS]
    return [name for name in asked if name in METHODS], lacking


def find_backbones(names: Iterable[str], weights: str | None) -> tuple[dict[str, str], list[Absent]]:
    """Return the backbones whose weights can be had, with what tells these weights apart, and those without."""
    found, absent = {}, []
    for name in names:
        try:
            backbone = create(name, weights=weights)
        except HyperspotError as error:
            absent.append(Absent("backbone", name, str(error)))
            continue
        found[name] = backbone.weights_sha256 or backbone.weights_source
    return found, absent


def _is_timed(table: int, run: Run) -> bool:
    return table in TIMED and (table != 8 or run.measure == "cost")


def _has_checkpoints(table: int, recipe: str) -> bool:
    """Whether a run may be watched: photos as they are, one view, nothing held out."""
    return table not in (1, 3) and recipe not in (FUSED, "cfa default, calibrated")


def _variations(table: int, run: Run, category: Category) -> list[Run]:
    """Return the runs that a table makes of one: by number of photos, by randomized version, or itself."""
    if table == 1:
        counts = [count for count in PHOTO_COUNTS if count < category.photos]
        return [replace(run, train_images=count, measure="cost") for count in (*counts, category.photos)]
    if table == 3:
        settings = make_settings({**dict(run.settings), **RANDOMIZED})
        return [replace(run, settings=settings, version=version) for version in range(VERSIONS)]
    return [run]
