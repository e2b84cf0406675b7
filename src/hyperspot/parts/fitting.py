"""Fits the models of the views of a part, in torch, and calibrates them together."""

import datetime as dt
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np

from hyperspot.choices import Models
from hyperspot.decision.planning import one_per_group
from hyperspot.detector.detector import Detector
from hyperspot.detector.settings import Settings
from hyperspot.errors import CalibrationWarning, DataError, SettingsError
from hyperspot.images.reading import ChannelOrder
from hyperspot.parts.calibration import PartCalibration
from hyperspot.parts.inputs import Images, view_input
from hyperspot.utils.progress import Progress


def fit_views(
    name: str,
    parts: Sequence[Images],
    planned: Mapping[str, Sequence[str]],
    settings: Settings,
    models: str,
    groups: Sequence[str] | None,
    channel_order: ChannelOrder,
    progress: Progress,
    **options: Any,
) -> tuple[dict[str, Detector], PartCalibration, dict[str, Any]]:
    """Fit a model per view, or one for all views, and calibrate the views together.

    A part, or a group of parts, is held out as a whole: no view of it is scored by a model that was trained on another
    view of it.

    Args:
        name: Of the product.
        parts: Good parts with all views.
        planned: The images of each view.
        settings: Of the detectors.
        models: `each` or `shared`.
        groups: Group of each part, for example its lot.
        channel_order: Of arrays and tensors.
        progress: Reports stages and steps.
        **options: Further arguments of `Detector.fit`: `weights` and `device`.

    Returns:
        The detector of each view, the calibration of the part, and the training record.

    """
    if models not in get_args(Models):
        raise SettingsError(f"there is no choice of models '{models}'; choose one of {', '.join(get_args(Models))}")
    if settings.calibration == "none":
        raise SettingsError("the views of a part are compared by their calibration; choose another one than none")
    if groups is not None and len(groups) != len(parts):
        raise DataError(f"{len(parts)} good parts have {len(groups)} groups; give one group per part")
    started = time.perf_counter()
    options |= {"settings": settings, "channel_order": channel_order, "progress": progress}
    inputs = {view: [view_input(images, names) for images in parts] for view, names in planned.items()}
    labels = list(map(str, range(len(parts)))) if groups is None else list(map(str, groups))
    held_out = np.full((len(parts), len(inputs)), np.nan)
    detectors: dict[str, Detector] = {}
    if models == "shared":
        shared = Detector.fit(
            [image for images in inputs.values() for image in images], groups=labels * len(inputs), **options
        )
        for one in shared.held_out:
            column, part = divmod(one.index, len(parts))
            held_out[part, column] = one.score
        detectors = dict.fromkeys(inputs, shared)
    else:
        for column, (view, images) in enumerate(progress.track(list(inputs.items()), "training views")):
            with warnings.catch_warnings():
                if column:
                    # The warning of few parts holds for all views.
                    warnings.simplefilter("ignore", CalibrationWarning)
                detectors[view] = Detector.fit(images, groups=None if groups is None else labels, **options)
            for one in detectors[view].held_out:
                held_out[one.index, column] = one.score
    # Of each group one part calibrates, as one image does (see `planning.one_per_group`).
    numbers = np.unique(labels, return_inverse=True)[1]
    calibrating = np.arange(len(parts)) if groups is None else one_per_group(numbers, settings.seed)
    rows = held_out[calibrating]
    first = next(iter(detectors.values()))
    calibration = PartCalibration.from_scores(
        first.decision_rule.calibration.kind,
        first.decision_rule.calibration.false_alarm_rate,
        list(inputs),
        rows[~np.isnan(rows).any(axis=1)],
    )
    record = {
        "data": {
            "name": name,
            "parts": len(parts),
            "images": len(parts) * len(inputs),
            **({} if groups is None else {"groups": len(set(labels))}),
        },
        "models": models,
        "device": first.device.type,
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - started, 3),
    }
    return detectors, calibration, record
