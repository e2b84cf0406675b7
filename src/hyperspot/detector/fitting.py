"""Fits and calibrates an anomaly model: fit, and score each calibration image by a model without it."""

import heapq
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int, UInt8

from hyperspot.backbones import Backbone
from hyperspot.decision.good_images import GoodImage, Run, score_good_images
from hyperspot.decision.inspection_plan import InspectionPlan
from hyperspot.decision.planning import Plan, one_per_group, split
from hyperspot.decision.rule import DecisionRule, calibrate
from hyperspot.decision.zone_levels import check_rates, shares
from hyperspot.detector.anomaly_model import AnomalyModel, ScoreStats
from hyperspot.detector.loading import BatchLoader, ImageLoader
from hyperspot.detector.settings import Settings
from hyperspot.detector.tiled_model import TiledModel
from hyperspot.hardware.devices import computing_on
from hyperspot.images import Crop, InputSize, LetterboxedImage
from hyperspot.images.tiles import TileGrid, Tiling, scored_tiles
from hyperspot.methods import LeftOut, Method, method_class
from hyperspot.utils.progress import Progress

STATS_IMAGES = 32
"""Training images for the statistics of a crop, and for the heat range of a model without calibration."""
HIGHEST_MAPS = 12
"""Held-out images, those with the highest scores, whose anomaly maps are kept; and as many that calibrate."""
MAP_BYTES = 200_000_000
"""Memory of these maps, at most; of large images fewer are kept, but at least one."""
RULE_IMAGES = 1000
"""Calibration images at most whose map values set the floor of masks; all of them give scores."""

BeforeTraining = Callable[[Method, Crop], None]
"""Called with each method and its crop before the method is fitted, for example to set its `step_callback`."""


FitMethod = Callable[[Method, BatchLoader], None]
"""Fits a method instead of `Method.fit`."""

ScoredTile = tuple[Float32[np.ndarray, "_h _w"], float | None]
"""Anomaly map and image score of a tile."""
Scored = tuple[float, int, Float32[np.ndarray, "_H _W"]]
"""Score, negated index and anomaly map of an image."""


@dataclass(frozen=True, eq=False)
class HeldOut:
    """A good image, scored by a model that was not trained on it.

    Attributes:
        index: Of the image among those given.
        score: Its image score.
        input_map: Its anomaly map at the input size; None unless its score is among the 12 highest, of all images or of
            those that calibrate. Of large images fewer maps are kept.
        calibrates: Whether its score calibrates the threshold; with groups, one image of each group does.

    """

    index: int
    score: float
    input_map: Float32[np.ndarray, "H W"] | None
    calibrates: bool = True


@dataclass(frozen=True)
class Fitted:
    """An anomaly model, the decision rule calibrated for it, and the held-out images, in the order given.

    With groups, all images of the groups are listed, and one of each group calibrates.
    """

    anomaly_model: AnomalyModel | TiledModel
    decision_rule: DecisionRule
    held_out: tuple[HeldOut, ...] = ()


def crops_of(input_size: InputSize, crops: str) -> tuple[Crop, ...]:
    """Return the crops of an input for a value of the setting `crops`."""
    return {
        "full": (Crop.full(input_size),),
        "center": (Crop.central(input_size),),
        "fused": (Crop.central(input_size), Crop.full(input_size)),
    }[crops]


def fit(
    images: ImageLoader,
    plan: Plan,
    backbone: Backbone,
    settings: Settings,
    progress: Progress,
    device: torch.device,
    before_training: BeforeTraining | None = None,
    groups: Int[np.ndarray, "_n"] | None = None,
    tiling: Tiling | None = None,
    inspection: InspectionPlan | None = None,
) -> Fitted:
    """Fit and calibrate on a device.

    A `split` never trains on the held-out images, and the promise of the p-value is exact. With `leave-one-out` each
    image is scored by the model without it, with `cross` by a model that was not trained on it, and the final model is
    trained on all images: the promise is approximate.

    Args:
        images: All good images.
        plan: Of the calibration.
        backbone: The frozen feature extractor.
        settings: Of the detector.
        progress: Reports stages and steps.
        device: To fit on.
        before_training: Called with each method and its crop.
        groups: Group of each image, numbered from 0. Images of one group are held out together, and one image of each
            group, drawn at random, calibrates.
        tiling: Of the images; default: the model sees each image whole. Without the statistics of its views.
        inspection: Whose area the images are loaded with; default: the whole image.

    Raises:
        CalibrationError: If there are too few images for the promised rate.
        DeviceError: If the device runs out of memory.

    """
    if inspection is not None and plan.kind != "none":
        # Before the slow part.
        check_rates(inspection.groups, shares(inspection.own_rates, plan.rate), plan.held_out)
    everything = np.arange(len(images))
    calibrating = everything if groups is None else one_per_group(groups, settings.seed)
    scored = _Scored(len(images), map(int, calibrating), settings.background_weight, inspection)

    def fit_on(chosen: Sequence[int] | np.ndarray, fit_method: FitMethod | None = None) -> AnomalyModel | TiledModel:
        return fit_model(images, chosen, backbone, settings, progress, device, before_training, fit_method, tiling)

    model: AnomalyModel | TiledModel | None = None
    if plan.kind == "leave-one-out":
        labels = torch.from_numpy(everything if groups is None else groups)
        left_out: list[Iterator[LeftOut]] = []

        def fit_method(method: Method, batches: BatchLoader) -> None:
            of_inputs = labels.repeat_interleave(batches.per_image)
            left_out.append(method.fit_leave_one_out(batches, of_inputs, seed=settings.seed, progress=progress))

        model = fit_on(everything, fit_method)
        run = replay(model, left_out) if isinstance(model, AnomalyModel) else _replay_tiles(model, left_out)
        tracked = progress.track(images.load(everything), "scoring without each image", len(images))
        scored.add(everything, run, tracked)
    parts = split(len(images), plan, settings.seed, groups)
    for part in progress.track(parts, "cross-fitting folds") if plan.kind == "cross" else parts:
        model = fit_on(np.setdiff1d(everything, part))
        scored.add(part, model.run, progress.track(images.load(part), "scoring held-out images", len(part)))
    if model is None or plan.kind == "cross":
        model = fit_on(everything)
    if plan.kind == "none":
        few = everything[:STATS_IMAGES]
        tracked = progress.track(images.load(few), "measuring the heat range", len(few))
        good = score_good_images(model.run, tracked, settings.background_weight, inspection)
        return Fitted(model, _rule(plan, good, good, settings, inspection)[0])
    chosen = [index for index in map(int, calibrating) if index in scored.good]
    rule, scores = _rule(plan, [scored.good[index] for index in chosen], scored.shown, settings, inspection)
    return Fitted(model, rule, scored.held_out(rule, dict(zip(chosen, map(float, scores), strict=True))))


def _rule(
    plan: Plan,
    good: Sequence[GoodImage],
    shown: Sequence[GoodImage],
    settings: Settings,
    inspection: InspectionPlan | None,
) -> tuple[DecisionRule, Float64[np.ndarray, "_n"]]:
    rates = settings.mask_false_alarm_rate, settings.background_weight
    return calibrate(plan.kind, plan.rate, good, *rates, inspection, shown)


class _Scored:
    """Scores of held-out images, map values of some of them, and the maps of those with the highest scores."""

    def __init__(
        self, images: int, calibrating: Iterable[int], background_weight: float, inspection: InspectionPlan | None
    ) -> None:
        self._calibrating = frozenset(calibrating)
        self._background_weight = background_weight
        self._inspection = inspection
        self.good: dict[int, GoodImage] = {}
        self.shown: list[GoodImage] = []
        self._every = -(-images // RULE_IMAGES)
        self._highest: dict[tuple[int, bool], list[Scored]] = {}

    def add(self, indices: Sequence[int] | np.ndarray, run: Run, images: Iterable[LetterboxedImage]) -> None:
        """Score some images in order."""
        for index, image in zip(map(int, indices), images, strict=True):
            result = run(image.pixels[None])
            (good,) = score_good_images(_always(result), [image], self._background_weight, self._inspection)
            if len(self.good) % self._every == 0:
                self.shown.append(good)
            self.good[index] = replace(good, values=good.values[:0])
            # Of equal scores the first images are kept, as a stable sort by score lists them. The images with the
            # highest scores are among those with the highest of some zone, or lost parts, which count as higher.
            ranked = [*good.scores, *([] if good.correlation is None else [-good.correlation])]
            for zone, score in enumerate(map(float, ranked)):
                for calibrating in {False, index in self._calibrating}:
                    kept = self._highest.setdefault((zone, calibrating), [])
                    _keep_highest(kept, (score, -index, result[0][0]))

    def held_out(self, rule: DecisionRule, scores: Mapping[int, float]) -> tuple[HeldOut, ...]:
        """Return the held-out images, ascending by index; the scores are those of the calibration images."""
        maps = {-negated: input_map for kept in self._highest.values() for _, negated, input_map in kept}
        return tuple(
            HeldOut(
                index,
                scores[index] if index in scores else rule.image_score(self.good[index].scores),
                maps.get(index),
                index in self._calibrating,
            )
            for index in sorted(self.good)
        )


def _keep_highest(kept: list[Scored], one: Scored) -> None:
    heapq.heappush(kept, one)
    if len(kept) > max(1, min(HIGHEST_MAPS, MAP_BYTES // one[2].nbytes)):
        heapq.heappop(kept)


def _always(result: tuple[np.ndarray, np.ndarray | None]) -> Run:
    """Return a function that gives one result, whatever the pixels."""

    def run(_pixels: UInt8[np.ndarray, "b H W 3"]) -> tuple[np.ndarray, np.ndarray | None]:
        return result

    return run


def replay(model: AnomalyModel, left_out: Sequence[Iterator[LeftOut]]) -> Run:
    """Return a function that gives the results of the left-out images in order, whatever the pixels."""

    def run(_pixels: UInt8[np.ndarray, "b H W 3"]) -> tuple[np.ndarray, np.ndarray | None]:
        return _assembled(model, [next(results) for results in left_out])

    return run


def _replay_tiles(model: TiledModel, left_out: Sequence[Iterator[LeftOut]]) -> Run:
    """As `replay`, from the tiles of each view; sets the statistics of the views from the first images."""
    # Raw maps are small: the same first images give the statistics and are scored.
    first = [
        list(itertools.islice(results, STATS_IMAGES * len(view)))
        for view, results in zip(model.tiling.views, left_out, strict=True)
    ]

    def smoothed(raws: Sequence[Iterable[Any]]) -> list[Iterator[ScoredTile]]:
        return [
            scored_tiles(map(partial(_assembled, of_view), zip(of_tiles)))
            for of_view, of_tiles in zip(model.views, raws, strict=True)
        ]

    model.tiling = model.tiling.with_stats(smoothed(first))
    tiles = smoothed([itertools.chain(*both) for both in zip(first, left_out, strict=True)])

    def run(_pixels: UInt8[np.ndarray, "b H W 3"]) -> tuple[np.ndarray, np.ndarray | None]:
        found, score = model.tiling.assemble(tiles)
        return found[None], None if score is None else np.array([score], np.float32)

    return run


@torch.inference_mode()
def _assembled(model: AnomalyModel, raw: Sequence[Any]) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the result of a model for one input, from the raw map and the image score of each crop."""
    with computing_on(model.device):
        maps, scores = model.assemble([(found[None], None if score is None else score[None]) for found, score in raw])
    return maps.cpu().numpy(), None if scores is None else scores.cpu().numpy()


def fit_model(
    images: ImageLoader,
    chosen: Sequence[int] | np.ndarray,
    backbone: Backbone,
    settings: Settings,
    progress: Progress,
    device: torch.device,
    before_training: BeforeTraining | None = None,
    fit_method: FitMethod | None = None,
    tiling: Tiling | None = None,
) -> AnomalyModel | TiledModel:
    """Fit one method per crop, or per view of a tiling: in f32, then in the precision that suits the device.

    Without `fit_method` a tenth of the images is kept from the training of several views, for their statistics: a
    method may score an image that it has seen at almost zero.
    """
    backbone.to(device).precision = "f32"
    indices = [int(index) for index in chosen]
    measured = indices[:STATS_IMAGES]
    if tiling is not None and len(tiling.views) > 1 and fit_method is None and len(indices) > 1:
        count = min(STATS_IMAGES, max(1, len(indices) // 10))
        places = np.linspace(0, len(indices) - 1, count).round().astype(int)
        measured = [indices[place] for place in places]
        indices = np.delete(indices, places).tolist()

    def fitted(crop: Crop, tiles: TileGrid | None = None) -> Method:
        method = method_class(settings.method)(backbone, settings.method_settings)
        batches = BatchLoader(images, indices, crop, backbone.mean, backbone.std, device, tiles)
        if before_training is not None:
            before_training(method, crop)
        with computing_on(device):
            if fit_method is None:
                method.fit(batches, seed=settings.seed, progress=progress)
            else:
                fit_method(method, batches)
        return method.eval()

    if tiling is None:
        crops = crops_of(images.input_size, settings.crops)
        model = AnomalyModel([fitted(crop) for crop in crops], crops, images.input_size, settings.sigma).move(device)
        if len(crops) > 1:
            model.score_stats = _score_stats(model, images, indices[:STATS_IMAGES])
        return model
    views = []
    for view in tiling.views:
        crop = Crop.full(view.tile_size)
        views.append(AnomalyModel([fitted(crop, view)], [crop], view.tile_size, settings.sigma))
    model_of_tiles = TiledModel(views, tiling).move(device)
    if fit_method is None:
        model_of_tiles.tiling = _tiling_stats(model_of_tiles, images, measured)
    return model_of_tiles


def _tiling_stats(model: TiledModel, images: ImageLoader, chosen: Sequence[int]) -> Tiling:
    """Return the tiling with the statistics of its views over some good images."""

    def scored(view: TileGrid, run: Run) -> Iterator[ScoredTile]:
        return scored_tiles(run(tiles) for image in images.load(chosen) for tiles in view.batches(image.pixels))

    runs = [one.run for one in model.views]
    return model.tiling.with_stats([scored(*both) for both in zip(model.tiling.views, runs, strict=True)])


@torch.inference_mode()
def _score_stats(model: AnomalyModel, images: ImageLoader, indices: Sequence[int]) -> tuple[ScoreStats, ...]:
    pixels = [torch.from_numpy(images[index].pixels[None]).to(model.device) for index in indices]
    stats = []
    for number in range(len(model.crops)):
        with computing_on(model.device):
            results = [model.crop_map(one, number) for one in pixels]
        values = torch.cat([found.flatten() for found, _ in results]).double()
        scores = torch.cat([score for _, score in results if score is not None] or [torch.zeros(1)]).double()
        stats.append(
            ScoreStats(
                float(values.mean()),
                max(float(values.std()), 1e-12),
                float(scores.mean()),
                max(float(scores.std(correction=0)), 1e-12),
            )
        )
    return tuple(stats)
