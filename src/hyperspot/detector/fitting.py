"""Fits and calibrates an anomaly model: hold out, fit, score the held-out images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from hyperspot.backbones import Backbone
from hyperspot.decision.calibration import Plan, split
from hyperspot.decision.rule import DecisionRule, score_good_images
from hyperspot.detector.anomaly_model import AnomalyModel, ScoreStats
from hyperspot.detector.loading import BatchLoader, ImageLoader
from hyperspot.detector.settings import Settings
from hyperspot.hardware.devices import computing_on
from hyperspot.images import Crop, InputSize
from hyperspot.methods import Method, method_class
from hyperspot.utils.progress import Progress

STATS_IMAGES = 32
"""Training images for the statistics of a crop, and for the heat range of a model without calibration."""

BeforeTraining = Callable[[Method, Crop], None]
"""Called with each method and its crop before the method is fitted, for example to set its `step_callback`."""


@dataclass(frozen=True)
class Fitted:
    """An anomaly model and the decision rule calibrated for it."""

    anomaly_model: AnomalyModel
    decision_rule: DecisionRule


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
) -> Fitted:
    """Fit and calibrate on a device.

    A `split` never trains on the held-out images, and the promise of the p-value is exact. With `cross` each image is
    scored by a model that was not trained on it, and the final model is trained on all images: the promise is
    approximate.

    Raises CalibrationError if there are too few images for the promised rate, DeviceError if the device runs out of
    memory.
    """
    everything = np.arange(len(images))
    parts = split(len(images), plan, settings.seed)
    scores: list[float] = []
    maps: list[Float[np.ndarray, "_pixels"]] = []
    model: AnomalyModel | None = None

    def fit_on(chosen: Sequence[int] | np.ndarray) -> AnomalyModel:
        return fit_model(images, chosen, backbone, settings, progress, device, before_training)

    for part in progress.track(parts, "cross-fitting folds") if plan.kind == "cross" else parts:
        model = fit_on(np.setdiff1d(everything, part))
        part_scores, part_maps = _score(model, images, part, progress, "scoring held-out images")
        scores += part_scores
        maps += part_maps
    if model is None or plan.kind == "cross":
        model = fit_on(everything)
    if plan.kind == "none":
        _, maps = _score(model, images, everything[:STATS_IMAGES], progress, "measuring the heat range")
    rule = DecisionRule.from_good_images(plan.calibrate(scores), maps, settings.pixel_false_alarm_rate)
    return Fitted(model, rule)


def _score(
    model: AnomalyModel, images: ImageLoader, part: np.ndarray, progress: Progress, stage: str
) -> tuple[list[float], list[Float[np.ndarray, "_pixels"]]]:
    return score_good_images(model.run, progress.track(images.load(part), stage, len(part)))


def fit_model(
    images: ImageLoader,
    chosen: Sequence[int] | np.ndarray,
    backbone: Backbone,
    settings: Settings,
    progress: Progress,
    device: torch.device,
    before_training: BeforeTraining | None = None,
) -> AnomalyModel:
    """Fit one method per crop on the chosen images: in f32, then in the precision that suits the device."""
    backbone.to(device).precision = "f32"
    indices = [int(index) for index in chosen]
    crops = crops_of(images.input_size, settings.crops)
    methods = []
    for crop in crops:
        method = method_class(settings.method)(backbone, settings.method_settings)
        batches = BatchLoader(images, indices, crop, backbone.mean, backbone.std, device)
        if before_training is not None:
            before_training(method, crop)
        with computing_on(device):
            method.fit(batches, seed=settings.seed, progress=progress)
        methods.append(method.eval())
    model = AnomalyModel(methods, crops, images.input_size, settings.sigma).move(device)
    if len(crops) > 1:
        model.score_stats = _score_stats(model, images, indices[:STATS_IMAGES])
    return model


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
