"""From good photos to a calibrated scorer: hold out, fit, judge what was held out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from hyperspot import calibration
from hyperspot.backbones import Backbone
from hyperspot.calibration import Calibration
from hyperspot.devices import computing_on
from hyperspot.images import Frame, Placement, View
from hyperspot.intake import Batches, Photos
from hyperspot.methods import Method, method_class
from hyperspot.progress import Progress
from hyperspot.scorer import Scorer, Usual
from hyperspot.settings import Settings
from hyperspot.workers import ahead

USUAL_PHOTOS = 32
"""Training photos that the statistics of a view are taken over."""


@dataclass(frozen=True)
class Fitted:
    """A scorer and what was learned from the good photos it did not see."""

    scorer: Scorer
    calibration: Calibration
    pixel_threshold: float | None
    heat_range: tuple[float, float]


def views_of(frame: Frame, views: str) -> tuple[View, ...]:
    """Return what the models of a detector see of the frame: the whole, its central 7/8, or both."""
    return {
        "whole": (View.full(frame),),
        "crop": (View.central(frame),),
        "fused": (View.central(frame), View.full(frame)),
    }[views]


def fit(
    photos: Photos,
    placements: Sequence[Placement],
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
    scorer: Scorer | None = None
    for part in parts:
        trained = np.setdiff1d(everything, part)
        scorer = fit_scorer(photos, trained, backbone, settings, progress, device)
        scores, maps = judge(scorer, photos, placements, part, progress)
        held_scores += scores
        held_maps += maps
    if scorer is None or plan.kind == "cross":
        scorer = fit_scorer(photos, everything, backbone, settings, progress, device)
    if plan.kind == "none":
        few = everything[:USUAL_PHOTOS]
        _, maps = judge(scorer, photos, placements, few, progress)
        values = np.concatenate(maps)
        threshold = None
        hot = 2 * float(values.max()) - float(np.median(values))
    else:
        values = np.concatenate(held_maps)
        threshold = calibration.pixel_threshold(held_maps, settings.pixel_false_alarm_rate)
        hot = 2 * threshold - float(np.median(values))
    cold = float(np.median(values))
    return Fitted(
        scorer=scorer,
        calibration=plan.calibrate(held_scores),
        pixel_threshold=threshold,
        heat_range=(cold, hot if hot > cold else cold + 1.0),
    )


def fit_scorer(
    photos: Photos,
    chosen: Sequence[int] | np.ndarray,
    backbone: Backbone,
    settings: Settings,
    progress: Progress,
    device: torch.device,
    watch: Callable[[Method, View], None] | None = None,
) -> Scorer:
    """Fit one method per view on the chosen photos: it learns from exact features and judges in the device's format.

    `watch` is shown each method and its view before it is fitted.
    """
    backbone.to(device).number_format = "f32"
    indices = [int(index) for index in chosen]
    views = views_of(photos.frame, settings.views)
    methods = []
    for view in views:
        method = method_class(settings.method)(backbone, settings.method_settings)
        batches = Batches(photos, indices, view, backbone.mean, backbone.std, device)
        if watch is not None:
            watch(method, view)
        with computing_on(device):
            method.fit(batches, seed=settings.seed, progress=progress)
        methods.append(method.eval())
    scorer = Scorer(methods, views, photos.frame, settings.sigma).place(device)
    if len(views) > 1:
        scorer.usual = _usual(scorer, photos, indices[:USUAL_PHOTOS])
    return scorer


@torch.inference_mode()
def _usual(scorer: Scorer, photos: Photos, chosen: Sequence[int]) -> tuple[Usual, ...]:
    frames = [torch.from_numpy(photos.placed(index)[None]).to(scorer.device) for index in chosen]
    usual = []
    for number in range(len(scorer.views)):
        with computing_on(scorer.device):
            judged = [scorer.view_map(frame, number) for frame in frames]
        values = torch.cat([found.flatten() for found, _ in judged]).double()
        scores = torch.cat([score for _, score in judged if score is not None] or [torch.zeros(1)]).double()
        usual.append(
            Usual(
                float(values.mean()),
                max(float(values.std()), 1e-12),
                float(scores.mean()),
                max(float(scores.std(correction=0)), 1e-12),
            )
        )
    return tuple(usual)


def judge(
    scorer: Scorer,
    photos: Photos,
    placements: Sequence[Placement],
    chosen: Sequence[int] | np.ndarray,
    progress: Progress,
) -> tuple[list[float], list[Float[np.ndarray, "_pixels"]]]:
    """Return the image score and the map values inside the photo for each chosen photo."""
    scores, values = [], []
    indices = [int(index) for index in chosen]
    for index, frame in zip(
        progress.track(indices, "judging held-out photos"), ahead(photos.placed, indices), strict=True
    ):
        maps, own = scorer.run(frame[None])
        inside = maps[0][placements[index].content]
        scores.append(float(inside.max()) if own is None else float(own[0]))
        values.append(inside.ravel())
    return scores, values
