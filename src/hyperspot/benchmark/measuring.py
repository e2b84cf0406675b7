"""One run, from photos to the JSON line: fit, measure time and memory, judge the test photos."""

import datetime as dt
import importlib.metadata
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import hyperspot
from hyperspot import Detector
from hyperspot.backbones import NONE
from hyperspot.benchmark.oracle import Oracle
from hyperspot.benchmark.protocol import Run
from hyperspot.benchmark.rd_copies import randomized
from hyperspot.data import Dataset, open_dataset
from hyperspot.detector.anomaly_model import AnomalyModel
from hyperspot.detector.fitting import Fitted
from hyperspot.errors import DataError
from hyperspot.hardware.cpu import native_precision
from hyperspot.hardware.devices import resolve
from hyperspot.images import InputSize, read_image, read_size
from hyperspot.utils.progress import Progress

TIMED_IMAGES = 8
"""Photos that latency is measured over, and the batch of the throughput."""
TIMED_SECONDS = 3.0
"""For how long a time is measured, after two calls to warm up; at least three calls count."""


def measure(
    run: Run, data: Path, chosen: str | None, weights: str | None, progress: Progress, *, device: str = "cpu"
) -> dict[str, Any]:
    """Make one run and return what its JSON line tells beside the run itself.

    Args:
        run: What is to be done.
        data: The folder of the data set, and `chosen` the product where it holds several.
        chosen: As above.
        weights: A file or folder of backbone weights or `random:SEED`; none looks in the usual places.
        progress: Told how far the work is.
        device: Where to compute; times are told of the CPU alone, as they are compared there.

    Raises:
        DataError, ImageError, WeightsError, SettingsError, CalibrationError, DeviceError: As their names say.

    """
    whole = open_dataset(data, category=chosen)
    dataset = _fewer(whole, run.train_images)
    with randomized(dataset, run.version) as given:
        started = time.perf_counter()
        detector, watched = _fit(run, given, weights, progress, device)
        seconds = time.perf_counter() - started
        line: dict[str, Any] = {
            # The judging at checkpoints uses caches and memory: such a run tells no time of training.
            "training_seconds": None if watched.get("history") or device != "cpu" else round(seconds, 2),
            "peak_memory_mb": _peak_memory_mb(),
            **watched,
            **_size(detector),
            **(_speed(detector, given) if device == "cpu" else {}),
        }
        if run.measure == "accuracy":
            line |= _accuracy(detector, given, run, progress)
    return line


def circumstances(device: str) -> dict[str, Any]:
    """Return where and when figures came about, without the name of the machine."""
    packages = {name: importlib.metadata.version(name) for name in ("torch", "numpy", "pillow")}
    return {
        "versions": {"hyperspot": hyperspot.__version__, "python": platform.python_version(), **packages},
        "processor": f"{platform.machine()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "precision": native_precision(),
        "device": device,
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


def _fewer(dataset: Dataset, photos: int | None) -> Dataset:
    """Return the data set with the first so many of its good training photos."""
    if photos is None:
        return dataset
    if photos > len(dataset.train):
        raise DataError(f"{dataset.root} has {len(dataset.train)} good training photos, {photos} were asked for")
    kept = dataset.train[:photos]
    return replace(dataset, samples=tuple(photo for photo in dataset.samples if photo.split == "test" or photo in kept))


def _fit(
    run: Run, dataset: Dataset, weights: str | None, progress: Progress, device: str
) -> tuple[Detector, dict[str, Any]]:
    settings = run.settings
    if not run.oracle:
        made = Detector.fit(dataset, settings=settings, weights=weights, device=device, progress=progress)
        return made, {"watched": False}
    sizes = [read_size(sample.path) for sample in dataset.train]
    input_size = InputSize.for_sizes(sizes, settings.short_side, settings.aspect)
    listener = Oracle(progress, dataset, input_size, settings.sigma, resolve(device))
    made = Detector.fit(
        dataset, settings=settings, weights=weights, device=device, progress=listener, before_training=listener.watch
    )
    watched: dict[str, Any] = {"watched": True, "checkpoints": len(listener.history)}
    if listener.history:
        watched |= {"oracle": listener.best(), "history": listener.history}
    return made, watched


def _size(detector: Detector) -> dict[str, Any]:
    """Return what the methods keep, and the measures that a formula for it needs."""
    fitted_state = [method.fitted_state() for method in detector.anomaly_model.methods]  # type: ignore[operator]
    backbone, crop = detector.backbone, detector.anomaly_model.crops[0]
    levels: list[torch.Tensor] = []
    if detector.settings.backbone != NONE:
        with torch.inference_mode():
            levels = backbone(torch.zeros(1, 3, crop.height, crop.width, device=detector.device))
    return {
        "bank_mb": round(sum(tensor.nbytes for one in fitted_state for tensor in one.values()) / 1e6, 4),
        "kept": {name: list(tensor.shape) for name, tensor in fitted_state[0].items()},
        "pyramid": [list(level.shape[1:]) for level in levels],
        "weights_source": backbone.weights_source,
    }


def _speed(detector: Detector, dataset: Dataset) -> dict[str, Any]:
    """Return the median milliseconds from a decoded photo to its verdict, and photos a second in batches."""
    photos = (dataset.test or dataset.train)[:TIMED_IMAGES]
    images = [read_image(photo.path) for photo in photos]
    frame = detector.anomaly_model.input_size
    frames = np.stack([frame.letterbox(*image.shape[:2]).apply(image) for image in images])
    turn = iter(range(10**9))
    latency = _median_seconds(lambda: detector.predict(images[next(turn) % len(images)]))
    batch = _median_seconds(lambda: detector.anomaly_model.run(frames))
    return {"latency_ms": round(latency * 1000, 3), "images_per_second": round(len(images) / batch, 3)}


def _median_seconds(call: Callable[[], Any]) -> float:
    for _ in range(2):
        call()
    taken: list[float] = []
    started = time.perf_counter()
    while len(taken) < 3 or time.perf_counter() - started < TIMED_SECONDS:
        before = time.perf_counter()
        call()
        taken.append(time.perf_counter() - before)
    return statistics.median(taken)


def _accuracy(detector: Detector, dataset: Dataset, run: Run, progress: Progress) -> dict[str, Any]:
    line = {"last": _figures(detector, dataset, progress)}
    if run.settings.crops == "fused":
        anomaly_model = detector.anomaly_model
        for number, name in enumerate(("center", "full")):
            method: Any = anomaly_model.methods[number]
            alone = AnomalyModel([method], [anomaly_model.crops[number]], anomaly_model.input_size, anomaly_model.sigma)
            fitted = Fitted(alone, detector.decision_rule)
            line[name] = _figures(Detector(fitted, detector.settings, detector.record), dataset, progress)
    return line


def _figures(detector: Detector, dataset: Dataset, progress: Progress) -> dict[str, Any]:
    found = detector.evaluate(dataset, progress=progress).to_dict()
    found.pop("made_by")
    found["good_images"] = sum(photo.label == 0 for photo in dataset.test)
    return found


def _peak_memory_mb() -> int | None:
    """Return the largest memory this process has had; none where the system does not tell."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak // (1024 * 1024 if sys.platform == "darwin" else 1024))
