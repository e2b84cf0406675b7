"""Train and judge on real categories; one JSON line per run, from which `benchmarks.tables` draws.

    python -m benchmarks.accuracy DATA --weights FILE --out runs.jsonl --recipe released --seeds 0 1 2 --oracle

The last checkpoint counts. `--oracle` also judges the test photos at every tenth of the training and keeps the best
of each metric, as the published figures did: labelled oracle, to show how much that adds. A run that stands in the
file already is not made again, so an interrupted benchmark goes on where it stopped.
"""

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hyperspot import Detector, __version__
from hyperspot.backbones import create
from hyperspot.calibration import Calibration
from hyperspot.console import Bars
from hyperspot.fitting import Fitted, fit, views_of
from hyperspot.heatmaps import smooth
from hyperspot.images import Frame, load_mask, open_dataset, read_image, read_size
from hyperspot.intake import Batches, Photos
from hyperspot.methods import CFA, method_class
from hyperspot.metrics import PixelStatistics, auroc
from hyperspot.scorer import Scorer
from hyperspot.settings import Settings, make_settings

PAPER = {"aspect": "square", "views": "crop", "calibration": "none"}
RECIPES: dict[str, dict[str, Any]] = {
    "released": {**PAPER, "method_settings": {"variant": "released"}},
    "released, no descriptor training": {**PAPER, "method_settings": {"variant": "released", "losses": "none"}},
    "released, attraction only": {**PAPER, "method_settings": {"variant": "released", "losses": "attraction"}},
    "released, fixed radius": {**PAPER, "method_settings": {"variant": "released", "learn_radius": False}},
    "released, attraction only, fixed radius": {
        **PAPER,
        "method_settings": {"variant": "released", "losses": "attraction", "learn_radius": False},
    },
    "paper": {**PAPER, "method_settings": {"variant": "paper"}},
    "released, resize only": {**PAPER, "views": "whole", "method_settings": {"variant": "released"}},
    "released, fused": {**PAPER, "views": "fused", "method_settings": {"variant": "released"}},
    "default": {"calibration": "none"},
    "default, paper's geometry": {**PAPER},
    "default, calibrated": {},
}


class Oracle(Bars):
    """Judges the test photos during training, from their features, which are computed once."""

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every = every
        self.method: CFA | None = None
        self.features: list[list[torch.Tensor]] = []
        self.masks: list[np.ndarray] = []
        self.labels: list[int] = []
        self.history: list[dict[str, float | None]] = []
        self.size = (0, 0)
        self.sigma = 4.0

    @torch.no_grad()
    def watch(self, method: CFA, scorer_settings: Settings, frame: Frame, dataset: Any) -> None:
        view = views_of(frame, scorer_settings.views)[0]
        self.method, self.size, self.sigma = method, (view.height, view.width), scorer_settings.sigma
        photos = Photos([photo.path for photo in dataset.test], frame)
        backbone: Any = method.backbone
        batches = Batches(photos, range(len(photos)), view, backbone.mean, backbone.std)
        for batch in self.track(batches, "features of the test photos"):
            levels = method.pooled_levels(batch)
            self.features += [[level[i : i + 1] for level in levels] for i in range(len(batch))]
        for photo in dataset.test:
            height, width = read_image(photo.path).shape[:2]
            mask = load_mask(photo, height, width)
            placed = frame.place(height, width).mask_to_frame(mask)
            self.masks.append(placed[view.top : view.top + view.height, view.left : view.left + view.width])
            self.labels.append(int(photo.label))

    def note(self, **values: float) -> None:
        super().note(**values)
        if self.method is not None and values.get("step", 1) % self.every == 0:
            self.history.append(self.judge())

    @torch.no_grad()
    def judge(self) -> dict[str, float | None]:
        pixels = PixelStatistics()
        scores = []
        for levels, mask in zip(self.features, self.masks, strict=True):
            found = smooth(self.method.score_levels(levels), *self.size, self.sigma)[0].numpy()
            pixels.add(found, mask)
            scores.append(float(found.max()))
        return {
            "image_auroc": auroc(np.array(scores), np.array(self.labels)),
            "pixel_auroc": pixels.pixel_auroc,
            "aupro_30": pixels.aupro(0.30),
        }

    def best(self) -> dict[str, float]:
        return {name: max(one[name] for one in self.history) for name in self.history[0]}


def train(settings: Settings, dataset: Any, weights: Path, oracle: bool) -> tuple[Fitted, dict[str, Any]]:
    """Fit as `Detector.fit` does; with `oracle`, watch the test photos on the way (and learn nothing from it)."""
    sizes = [read_size(photo.path) for photo in dataset.train]
    frame = Frame.for_sizes(sizes, settings.short_side, settings.aspect)
    options = method_class(settings.method).backbone_options(settings.method_settings)
    backbone = create(settings.backbone, weights=weights, **options)
    photos = Photos([photo.path for photo in dataset.train], frame)
    placements = [frame.place(*size) for size in sizes]
    if not oracle:
        return fit(photos, placements, backbone, settings, Bars()), {}
    listener = Oracle(max(1, settings.method_settings.steps // 10))
    method = CFA(backbone, settings.method_settings)
    listener.watch(method, settings, frame, dataset)
    view = views_of(frame, settings.views)[0]
    method.fit(
        Batches(photos, range(len(photos)), view, backbone.mean, backbone.std), seed=settings.seed, progress=listener
    )
    scorer = Scorer([method], (view,), frame, settings.sigma)
    none = Calibration.from_scores("none", 0.01, [])
    extra = {"oracle": listener.best(), "history": listener.history}
    return Fitted(scorer, none, None, (0.0, 1.0)), extra


def figures(fitted: Fitted, settings: Settings, dataset: Any) -> dict[str, Any]:
    detector = Detector(fitted, settings, {"data": {"name": dataset.name}})
    found = detector.evaluate(dataset, progress=Bars()).to_dict()
    found.pop("made_by")
    found["good_images"] = sum(photo.label == 0 for photo in dataset.test)
    return found


def run(recipe: str, category: Path, seed: int, weights: Path, oracle: bool, changes: dict[str, Any]) -> dict[str, Any]:
    given = RECIPES[recipe]
    settings = make_settings(
        {**given, "seed": seed, "method_settings": {**given.get("method_settings", {}), **changes}}
    )
    dataset = open_dataset(category)
    started = time.perf_counter()
    fitted, extra = train(settings, dataset, weights, oracle)
    seconds = time.perf_counter() - started
    line = {
        "recipe": recipe,
        "changes": changes,
        "category": category.name,
        "seed": seed,
        "training_seconds": None if oracle else round(seconds, 1),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "versions": {"hyperspot": __version__, "torch": torch.__version__},
        "fingerprint": dataset.fingerprint(),
        "threads": torch.get_num_threads(),
        **extra,
        "last": figures(fitted, settings, dataset),
    }
    if settings.views == "fused":
        scorer = fitted.scorer
        for name, number in (("crop", 0), ("whole", 1)):
            alone = Scorer([scorer.methods[number]], [scorer.views[number]], scorer.frame, scorer.sigma)
            line[name] = figures(
                Fitted(alone, fitted.calibration, fitted.pixel_threshold, fitted.heat_range), settings, dataset
            )
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/runs.jsonl"))
    parser.add_argument("--recipe", nargs="+", choices=RECIPES, default=["released"])
    parser.add_argument("--category", nargs="+", help="all in DATA where not given")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--set", nargs="*", default=[], help="changes to the method's settings, name=value")
    parser.add_argument("--oracle", action="store_true")
    given = parser.parse_args()
    categories = given.category or sorted(path.parent.name for path in given.data.glob("*/ground_truth"))
    changes = {name: json.loads(value) for name, _, value in (change.partition("=") for change in given.set)}
    lines = given.out.read_text().splitlines() if given.out.exists() else []
    done = [json.loads(line) for line in lines]
    made = {(one["recipe"], json.dumps(one["changes"]), one["category"], one["seed"]) for one in done}
    for recipe in given.recipe:
        for category in categories:
            for seed in given.seeds:
                if (recipe, json.dumps(changes), category, seed) in made:
                    continue
                line = run(recipe, given.data / category, seed, given.weights, given.oracle, changes)
                with given.out.open("a") as out:
                    out.write(json.dumps(line) + "\n")
                last = line["last"]
                shown = {
                    name: last["at_input"][name] if name != "image_auroc" else last[name]
                    for name in ("image_auroc", "pixel_auroc", "aupro_30")
                }
                print(recipe, changes, category, seed, {n: f"{v:.4f}" for n, v in shown.items() if v is not None})


if __name__ == "__main__":
    main()
