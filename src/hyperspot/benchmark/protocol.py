"""A run of the benchmark: method, settings, backbone, weights, category, images, seed.

Figures are those of the last checkpoint; nothing is chosen on test images. `oracle` is the best of several
checkpoints, reported beside it. Two runs are equal if everything that decides their result is equal.
"""

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hyperspot.backbones import NONE
from hyperspot.detector.settings import Settings, make_settings
from hyperspot.errors import SettingsError
from hyperspot.methods import METHODS, method_class

DEVELOPMENT = ("transistor", "screw")
"""Categories that choices were made on; they are marked in every table."""
PAPER_METHODS = ("cfa", "patchcore", "padim", "spade", "cflow", "cutpaste", "patch_svdd", "vae")
"""The methods of the CFA paper, by their names in the registry."""
SEEDS = (0, 1, 2)
PAPER: dict[str, Any] = {"aspect": "square", "crops": "center", "calibration": "none", "background_weight": 0.0}
"""The papers' geometry: images resized to 256 x 256, then the center crop of 224 x 224; and their image score."""
RANDOMIZED: dict[str, Any] = {**PAPER, "crops": "full", "short_side": 224}
"""RD-MVTec AD: its images are already cropped to 7/8, so they are used whole."""
TRAINING_LENGTHS = ("steps", "updates", "iterations", "epochs")
"""Settings that hold a training length; the budget `quick` divides the first one a method has by `QUICK`."""
QUICK = 10
QUICK_IMAGES = 32
"""Training images of the budget `quick` for methods without a training length."""
FUSED = "cfa released, fused"
DEFAULT = "cfa default"
"""What users get: leave-one-out calibration trains on all images, so one run gives every figure."""
PREVIOUS = "cfa previous default, calibrated"
"""The default before masks and thresholds came from leave-one-out calibration."""
TILED = "cfa default, tiles"
"""The default with `--tile auto`: images that are much larger than its input are cut into tiles."""
ADDED_SETTINGS: dict[str, Any] = {"tile": "off", "pixels_per_tile_pixel": None, "smallest_defect": None}
"""Settings that recorded lines may lack, with the value that equals their absence."""

Budget = Literal["full", "quick"]
Measure = Literal["accuracy", "cost"]


def _cfa(crops: str = "center", **method_settings: Any) -> dict[str, Any]:
    return {**PAPER, "crops": crops, "method_settings": {"variant": "released", **method_settings}}


RECIPES: dict[str, dict[str, Any]] = {
    "cfa released": _cfa(),
    DEFAULT: {},
    "cfa default, paper's geometry": {**PAPER},
    TILED: {"tile": "auto"},
    PREVIOUS: {
        "calibration": "split",
        "false_alarm_rate": 0.01,
        "background_weight": 0.0,
        "method_settings": {
            "levels": (3, 4),
            "grid_level": None,
            "level_weights": (),
            "initialization": "torch",
            "gamma_d": 4,
            "neighbors": 3,
        },
    },
    **{
        f"{name}, calibrated": {**PAPER, "method": name, "calibration": "auto"}
        for name in PAPER_METHODS
        if name != "cfa"
    },
    FUSED: _cfa("fused"),
    "cfa released, resize only": _cfa("full"),
    "cfa released, no descriptor training": _cfa(losses="none"),
    "cfa released, attraction only": _cfa(losses="attraction"),
    "cfa released, fixed radius": _cfa(learn_radius=False),
    "cfa released, attraction only, fixed radius": _cfa(losses="attraction", learn_radius=False),
    "cfa released, fixed radius 0.7": _cfa(learn_radius=False, radius=0.7),
    "cfa released, attraction only, fixed radius 0.7": _cfa(losses="attraction", learn_radius=False, radius=0.7),
    "cfa paper": {**PAPER, "method_settings": {"variant": "paper"}},
    "cfa released, gamma 1/2": _cfa(gamma_c=2, gamma_d=2),
    "cfa released, gamma 1/4": _cfa(gamma_c=4, gamma_d=4),
    "cfa released, gamma 1/8": _cfa(gamma_c=8, gamma_d=8),
}
"""Named settings. The name of any other method is a recipe too: its defaults in the papers' geometry."""


def recipes_of(method: str) -> tuple[str, ...]:
    """Return the recipes of a method in tables that compare methods."""
    return ("cfa released", DEFAULT) if method == "cfa" else (method,)


def settings_of(recipe: str, *, backbone: str, seed: int, changes: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings of a recipe; `changes` override settings of its method.

    Raises SettingsError for an unknown recipe or a change that does not fit.
    """
    if recipe not in RECIPES and recipe not in METHODS:
        raise SettingsError(f"there is no recipe '{recipe}'; choose one of {', '.join((*RECIPES, *METHODS))}")
    given = RECIPES.get(recipe, {**PAPER, "method": recipe})
    inner = {**given.get("method_settings", {}), **(changes or {})}
    chosen = {"backbone": backbone} if uses_backbone(recipe) else {}
    return make_settings({**given, **chosen, "seed": seed, "method_settings": inner})


def uses_backbone(recipe: str) -> bool:
    """Return whether the method of a recipe uses a frozen backbone; the others train their own network."""
    name = RECIPES[recipe].get("method", "cfa") if recipe in RECIPES else recipe
    return method_class(name).uses_backbone


@dataclass(frozen=True)
class Run:
    """One fit and its measurements.

    Attributes:
        recipe: Name of the settings in the tables.
        category: The product.
        settings: All settings of the detector, the seed included.
        fingerprint: `Dataset.fingerprint` of the data.
        weights: SHA-256 of the backbone's weights, `random:SEED`, or `none` without a backbone.
        changes: Settings changed by `--set`.
        version: Frozen randomization of the images (RD-MVTec AD); None: the images as they are.
        train_images: Number of good training images; None: all.
        test_images: Number of test images; None: all.
        budget: `quick` if the training was shortened.
        reduced: What was shortened: name, full value, reduced value.
        measure: `accuracy` evaluates the test images; `cost` measures time and memory only.
        oracle: Whether several checkpoints are evaluated on the test images too.

    """

    recipe: str
    category: str
    settings: Settings
    fingerprint: str
    weights: str
    changes: tuple[tuple[str, Any], ...] = ()
    version: int | None = None
    train_images: int | None = None
    test_images: int | None = None
    budget: Budget = "full"
    reduced: tuple[tuple[str, int, int], ...] = ()
    measure: Measure = "accuracy"
    oracle: bool = False

    @property
    def label(self) -> str:
        """The name of the run in logs."""
        version = [] if self.version is None else [f"version {self.version}"]
        count = [f"{self.train_images} images"] if self.measure == "cost" and self.train_images else []
        return " · ".join([label_of(self.to_dict()), self.category, *version, *count, f"seed {self.settings.seed}"])

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of the JSON line that describe the run."""
        return {
            "recipe": self.recipe,
            "changes": dict(self.changes),
            "method": self.settings.method,
            "backbone": self.settings.backbone,
            "category": self.category,
            "seed": self.settings.seed,
            "version": self.version,
            "train_images": self.train_images,
            "test_images": self.test_images,
            "budget": self.budget,
            "reduced": [list(one) for one in self.reduced],
            "measure": self.measure,
            "fingerprint": self.fingerprint,
            "weights": self.weights,
            "settings": self.settings.model_dump(mode="json"),
        }


@dataclass(frozen=True)
class Task:
    """A run and what it needs on this machine.

    Attributes:
        run: The run.
        data: Folder of the data set.
        chosen: The product, if the folder holds several.
        weights: As given by the user; None: the usual places.
        timed: Whether its times count, which needs an otherwise idle machine.
        device: Device to compute on.

    """

    run: Run
    data: Path
    chosen: str | None
    weights: str | None
    timed: bool = False
    device: str = "cpu"

    def message(self, threads: int) -> dict[str, Any]:
        """Return the task as a JSON object for the worker."""
        place = {"data": str(self.data), "chosen": self.chosen, "weights": self.weights}
        return {
            "run": {**self.run.to_dict(), "oracle": self.run.oracle},
            **place,
            "device": self.device,
            "threads": threads,
        }

    def command(self, table: int) -> str:
        """Return the command of this run; DATA and WEIGHTS stand for the user's paths."""
        run = self.run
        words = ["hyperspot", "benchmark", "DATA", "--table", table, "--category", run.category]
        words += ["--method", run.settings.method]
        words += ["--backbone", run.settings.backbone] if run.settings.backbone != NONE else []
        words += ["--seeds", run.settings.seed, "--budget", run.budget]
        for name, value in run.changes:
            words += ["--set", f"{name}={value}"]
        limited = {name for name, _, _ in run.reduced} if run.budget == "full" else set()
        words += ["--max-train-images", run.train_images] if "training images" in limited else []
        words += ["--max-test-images", run.test_images] if run.test_images else []
        if self.weights is not None:
            words += ["--weights", self.weights if self.weights.startswith("random:") else "WEIGHTS"]
        words += ["--oracle"] if run.oracle else []
        words += ["--device", self.device] if self.device != "cpu" else []
        return shlex.join(map(str, words))


def run_of(message: Mapping[str, Any]) -> Run:
    """Return the run of a worker's message."""
    known = {name: part for name, part in message["run"].items() if name not in ("method", "backbone", "seed")}
    return Run(
        **{
            **known,
            "settings": make_settings(known["settings"]),
            "changes": tuple(sorted(known["changes"].items())),
            "reduced": tuple((name, old, new) for name, old, new in known["reduced"]),
        }
    )


def label_of(line: Mapping[str, Any]) -> str:
    """Return the name of a table row: the recipe, changed settings and reductions."""
    changed = "".join(f", {name}={value}" for name, value in sorted(line["changes"].items()))
    quick = ", quick" if line.get("budget") == "quick" else ""
    limits = [("train", line.get("train_images")), ("test", line.get("test_images"))]
    counted = line.get("measure") != "cost" and not quick
    limited = "".join(f", {count} {split} images" for split, count in limits if counted and count)
    return f"{line['recipe']}{changed}{quick}{limited}"


def recorded_settings(line: Mapping[str, Any]) -> dict[str, Any]:
    """Return all settings of a line, those included that were added after it was recorded."""
    return {**ADDED_SETTINGS, **line["settings"]}


def key(line: Mapping[str, Any]) -> str:
    """Return a text that is equal for equal runs, from `Run.to_dict` or a JSON line.

    Names do not count, nor do the weights, which `records.Ledger` compares.
    """
    counted = ("settings", "category", "version", "train_images", "test_images", "fingerprint")
    parts = {name: line.get(name) for name in counted}
    if "settings" in line:
        parts["settings"] = recorded_settings(line)
    return json.dumps({**parts, "measure": line.get("measure", "accuracy")}, sort_keys=True)


def on_budget(run: Run, budget: Budget, images: int) -> Run:
    """Return the run on a budget: `quick` trains for a tenth of the steps, or on fewer images if there are no steps.

    Args:
        run: The run on the full budget.
        budget: `full` returns the run unchanged.
        images: Training images of the category.

    """
    if budget == "full":
        return run
    inner = run.settings.method_settings
    for name in TRAINING_LENGTHS:
        length = getattr(inner, name, None)
        if isinstance(length, int) and length > 1:
            shorter = max(1, round(length / QUICK))
            changed = {**inner.model_dump(), name: shorter}
            settings = make_settings({**dict(run.settings), "method_settings": changed})
            return replace(run, settings=settings, budget="quick", reduced=(*run.reduced, (name, length, shorter)))
    limited = limit_images(run, images, train=QUICK_IMAGES) if run.measure == "accuracy" else run
    return limited if limited is run else replace(limited, budget="quick")


def limit_images(run: Run, images: int, *, train: int | None = None, test: int | None = None, tests: int = 0) -> Run:
    """Return the run on at most `train` of its `images` training images and `test` of its `tests` test images."""
    available = run.train_images or images
    if train is not None and train < available:
        run = replace(run, train_images=train, reduced=(*run.reduced, ("training images", available, train)))
    if test is not None and test < tests:
        run = replace(run, test_images=test, reduced=(*run.reduced, ("test images", tests, test)))
    return run


def method_order(methods: Iterable[str]) -> list[str]:
    """Return methods in the paper's order, others after them."""
    known = list(PAPER_METHODS)
    return sorted(set(methods), key=lambda name: (known.index(name) if name in known else len(known), name))
