"""What a run of the benchmark is: method, settings, backbone, weights, category, photos, seed.

The last checkpoint counts. Nothing is chosen on test photos; what the best of several checkpoints would have given
is told beside it, as `oracle`. Two runs are the same if all that decides their result is the same.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from hyperspot.detector.settings import Settings, make_settings
from hyperspot.errors import SettingsError
from hyperspot.methods import METHODS, method_class

DEVELOPMENT = ("transistor", "screw")
"""Categories that choices were made on; figures on them are reported as such."""
PAPER_METHODS = ("cfa", "patchcore", "padim", "spade", "cflow", "cutpaste", "patch_svdd", "vae")
"""What the CFA paper compares, by the names of the registry."""
SEEDS = (0, 1, 2)
PAPER: dict[str, Any] = {"aspect": "square", "crops": "center", "calibration": "none"}
"""The papers' geometry: every photo stretched to 256 x 256, its central 224 x 224 looked at."""
RANDOMIZED: dict[str, Any] = {"aspect": "square", "crops": "full", "short_side": 224, "calibration": "none"}
"""RD-MVTec AD: the photos come cropped to 7/8, so the whole of them is looked at, in as many pixels."""
RELEASED: dict[str, Any] = {"variant": "released"}
TRAINING_LENGTHS = ("steps", "updates", "iterations", "epochs")
"""Names under which a method's settings say how long it trains; the first that it has is divided."""
QUICK = 10
"""By what the `quick` budget divides the length of training."""

Budget = Literal["full", "quick"]
Measure = Literal["accuracy", "cost"]


def _cfa(crops: str = "center", **method_settings: Any) -> dict[str, Any]:
    return {**PAPER, "crops": crops, "method_settings": {**RELEASED, **method_settings}}


RECIPES: dict[str, dict[str, Any]] = {
    "cfa released": _cfa(),
    "cfa default": {"calibration": "none"},
    "cfa default, paper's geometry": {**PAPER},
    "cfa default, calibrated": {},
    "cfa released, fused": _cfa("fused"),
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
"""Settings under a name. Every other method of the registry is a recipe by its own name: its defaults, in PAPER."""


def recipes_of(method: str) -> tuple[str, ...]:
    """Return the recipes that stand for a method where methods are compared."""
    return ("cfa released", "cfa default") if method == "cfa" else (method,)


def method_of(recipe: str) -> str:
    """Return the method of a recipe."""
    return "cfa" if recipe in RECIPES else recipe


def settings_of(recipe: str, *, backbone: str, seed: int, changes: Mapping[str, Any] | None = None) -> Settings:
    """Return the settings of a recipe; `changes` are to the settings of its method, which may use no backbone.

    Raises SettingsError where there is no such recipe or a change does not fit.
    """
    if recipe not in RECIPES and recipe not in METHODS:
        raise SettingsError(f"there is no recipe '{recipe}'; choose one of {', '.join((*RECIPES, *METHODS))}")
    given = RECIPES.get(recipe, {**PAPER, "method": recipe})
    inner = {**given.get("method_settings", {}), **(changes or {})}
    seen = {"backbone": backbone} if uses_backbone(recipe) else {}
    return make_settings({**given, **seen, "seed": seed, "method_settings": inner})


def uses_backbone(recipe: str) -> bool:
    """Return whether the method of a recipe looks through a backbone or learns a network of its own."""
    return method_class(RECIPES.get(recipe, {"method": recipe}).get("method", "cfa")).uses_backbone


@dataclass(frozen=True)
class Run:
    """One fit and what is measured of it.

    Attributes:
        recipe: The name its settings have in the tables, and `changes` what `--set` changed in them.
        category: The product.
        settings: Everything that decides the detector, its seed included.
        fingerprint: Of the data set, as `Dataset.fingerprint` gives it.
        weights: SHA-256 of the backbone's weights, `random:SEED`, or `none` for a method without a backbone.
        version: Which frozen randomization of the photos (RD-MVTec AD); none for the photos as they are.
        train_photos: How many of the good photos are learned from; none for all.
        budget: `quick` where training is shorter than the method's own length, and `reduced` which setting was
            changed, from what to what.
        measure: `accuracy` judges the test photos; `cost` measures time and memory alone.
        oracle: Whether the test photos are judged at several checkpoints too.

    """

    recipe: str
    category: str
    settings: Settings
    fingerprint: str
    weights: str
    changes: tuple[tuple[str, Any], ...] = ()
    version: int | None = None
    train_images: int | None = None
    budget: Budget = "full"
    reduced: tuple[tuple[str, int, int], ...] = ()
    measure: Measure = "accuracy"
    oracle: bool = False

    @property
    def label(self) -> str:
        """How the run is called where it is shown."""
        parts = [label_of(self.recipe, dict(self.changes), self.budget), self.category]
        if self.version is not None:
            parts.append(f"version {self.version}")
        if self.train_images is not None:
            parts.append(f"{self.train_images} images")
        return " · ".join([*parts, f"seed {self.settings.seed}"])

    def to_dict(self) -> dict[str, Any]:
        """Return what a JSON line tells of the run."""
        return {
            "recipe": self.recipe,
            "changes": dict(self.changes),
            "method": self.settings.method,
            "backbone": self.settings.backbone,
            "category": self.category,
            "seed": self.settings.seed,
            "version": self.version,
            "train_images": self.train_images,
            "budget": self.budget,
            "reduced": [list(one) for one in self.reduced],
            "measure": self.measure,
            "fingerprint": self.fingerprint,
            "weights": self.weights,
            "settings": self.settings.model_dump(mode="json"),
        }


def label_of(recipe: str, changes: Mapping[str, Any], budget: str = "full") -> str:
    """Return a recipe's name with what was changed in it and a reduced budget."""
    changed = "".join(f", {name}={value}" for name, value in sorted(changes.items()))
    return f"{recipe}{changed}{', quick' if budget == 'quick' else ''}"


def key(line: Mapping[str, Any]) -> str:
    """Return the same text for two runs, as `Run.to_dict` or a JSON line has them, exactly if they are the same.

    Names do not count, nor do the weights, which `records.Ledger` compares.
    """
    parts = {name: line.get(name) for name in ("settings", "category", "version", "train_images", "fingerprint")}
    return json.dumps({**parts, "measure": line.get("measure", "accuracy")}, sort_keys=True)


def shortened(settings: Settings) -> tuple[Settings, tuple[tuple[str, int, int], ...]]:
    """Return the settings with a tenth of the training, and which setting was changed from what to what.

    Where a method trains nothing the settings stay as they are: its quick run is its full run.
    """
    inner = settings.method_settings
    for name in TRAINING_LENGTHS:
        length = getattr(inner, name, None)
        if isinstance(length, int) and length > 1:
            shorter = max(1, round(length / QUICK))
            changed = {**inner.model_dump(), name: shorter}
            return make_settings({**dict(settings), "method_settings": changed}), ((name, length, shorter),)
    return settings, ()


def on_budget(run: Run, budget: Budget) -> Run:
    """Return the run with its training shortened, where the budget is `quick` and there is something to shorten."""
    if budget == "full":
        return run
    settings, reduced = shortened(run.settings)
    return replace(run, settings=settings, budget="quick", reduced=reduced) if reduced else run


def method_order(methods: Iterable[str]) -> list[str]:
    """Return methods in the paper's order, others after them."""
    known = list(PAPER_METHODS)
    return sorted(set(methods), key=lambda name: (known.index(name) if name in known else len(known), name))
