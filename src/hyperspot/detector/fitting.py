"""From good photos to a calibrated scorer: hold out, fit, judge what was held out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from hyperspot.backbones import Backbone
from hyperspot.decision import calibration
from hyperspot.decision.calibration import Calibration
from hyperspot.detector.anomaly_model import AnomalyModel, ScoreStats
from hyperspot.detector.loading import BatchLoader, ImageLoader
from hyperspot.detector.settings import Settings
from hyperspot.hardware.devices import computing_on
from hyperspot.images import Crop, InputSize, Letterbox
from hyperspot.methods import Method, method_class
from hyperspot.utils.prefetch import prefetch_map
from hyperspot.utils.progress import Progress

STATS_IMAGES = 32
"""Training photos that the statistics of a view are taken over."""


@dataclass(frozen=True)
class Fitted:
    """A scorer and what was learned from the good photos it did not see."""

    anomaly_model: AnomalyModel
    calibration: Calibration
    pixel_threshold: float | None
    heat_range: tuple[float, float]


def crops_of(frame: InputSize, crops: str) -> tuple[Crop, ...]:
    """Return what the models of a detector see of the frame: the whole, its central 7/8, or both."""
    return {
        "full": (Crop.full(frame),),
        "center": (Crop.central(frame),),
        "fused": (Crop.central(frame), Crop.full(frame)),
    }[crops]


def fit(
    photos: ImageLoader,
    letterboxes: Sequence[Letterbox],
    backbone: Backbone,
    settings: Settings,
    progress: Progress,
    device: torch.device,
) -> Fitted:
    """Fit and calibrate as the settings ask, on a device.

    With `split` the photos held out are never trained on, and the promise of the p-value is exact. With
    `cross` every photo is judged by a model that did not see it, and the model that is kept sees all of them:
    the promise is then approximate.

    Raises CalibrationError where there are too few photos for the promised rate, and DeviceError where the memory of
    the device is too small.
    """
    plan = calibration.plan(len(photos), settings.false_alarm_rate, settings.calibration)
    everything = np.arange(len(photos))
    parts = calibration.split(len(photos), plan, settings.seed)
    held_scores: list[float] = []
    held_maps: list[Float[np.ndarray, "_pixels"]] = []
    anomaly_model: AnomalyModel | None = None
    for part in parts:
        trained = np.setdiff1d(everything, part)
        anomaly_model = fit_model(photos, trained, backbone, settings, progress, device)
        scores, maps = judge(anomaly_model, photos, letterboxes, part, progress)
        held_scores += scores
        held_maps += maps
    if anomaly_model is None or plan.kind == "cross":
        anomaly_model = fit_model(photos, everything, backbone, settings, progress, device)
    if plan.kind == "none":
        few = everything[:STATS_IMAGES]
        _, maps = judge(anomaly_model, photos, letterboxes, few, progress)
        values = np.concatenate(maps)
        threshold = None
        hot = 2 * float(values.max()) - float(np.median(values))
    else:
        values = np.concatenate(held_maps)
        threshold = calibration.pixel_threshold(held_maps, settings.pixel_false_alarm_rate)
        hot = 2 * threshold - float(np.median(values))
    cold = float(np.median(values))
    return Fitted(
        anomaly_model=anomaly_model,
        calibration=plan.calibrate(held_scores),
        pixel_threshold=threshold,
        heat_range=(cold, hot if hot > cold else cold + 1.0),
    )


def fit_model(
    photos: ImageLoader,
    chosen: Sequence[int] | np.ndarray,
    backbone: Backbone,
    settings: Settings,
    progress: Progress,
    device: torch.device,
    watch: Callable[[Method, Crop], None] | None = None,
) -> AnomalyModel:
    """Fit one method per view on the chosen photos: it learns from exact features and judges in the device's format.

    `watch` is shown each method and its view before it is fitted.
    """
    backbone.to(device).precision = "f32"
    indices = [int(index) for index in chosen]
    crops = crops_of(photos.input_size, settings.crops)
    methods = []
    for crop in crops:
        method = method_class(settings.method)(backbone, settings.method_settings)
        batches = BatchLoader(photos, indices, crop, backbone.mean, backbone.std, device)
        if watch is not None:
            watch(method, crop)
        with computing_on(device):
            method.fit(batches, seed=settings.seed, progress=progress)
        methods.append(method.eval())
    anomaly_model = AnomalyModel(methods, crops, photos.input_size, settings.sigma).move(device)
    if len(crops) > 1:
        anomaly_model.score_stats = _usual(anomaly_model, photos, indices[:STATS_IMAGES])
    return anomaly_model


@torch.inference_mode()
def _usual(anomaly_model: AnomalyModel, photos: ImageLoader, chosen: Sequence[int]) -> tuple[ScoreStats, ...]:
    frames = [torch.from_numpy(photos.placed(index)[None]).to(anomaly_model.device) for index in chosen]
    usual = []
    for number in range(len(anomaly_model.crops)):
        with computing_on(anomaly_model.device):
            judged = [anomaly_model.crop_map(frame, number) for frame in frames]
        values = torch.cat([found.flatten() for found, _ in judged]).double()
        scores = torch.cat([score for _, score in judged if score is not None] or [torch.zeros(1)]).double()
        usual.append(
            ScoreStats(
                float(values.mean()),
                max(float(values.std()), 1e-12),
                float(scores.mean()),
                max(float(scores.std(correction=0)), 1e-12),
            )
        )
    return tuple(usual)


def judge(
    anomaly_model: AnomalyModel,
    photos: ImageLoader,
    letterboxes: Sequence[Letterbox],
    chosen: Sequence[int] | np.ndarray,
    progress: Progress,
) -> tuple[list[float], list[Float[np.ndarray, "_pixels"]]]:
    """Return the image score and the map values inside the photo for each chosen photo."""
    scores, values = [], []
    indices = [int(index) for index in chosen]
    for index, frame in zip(
        progress.track(indices, "judging held-out photos"), prefetch_map(photos.placed, indices), strict=True
    ):
        maps, own = anomaly_model.run(frame[None])
        inside = maps[0][letterboxes[index].content]
        scores.append(float(inside.max()) if own is None else float(own[0]))
        values.append(inside.ravel())
    return scores, values
