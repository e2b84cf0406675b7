"""One run, from images to JSON line: fit, measure time and memory, evaluate the test images."""

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
from hyperspot.data import Dataset, Sample, open_dataset
from hyperspot.decision.operating_points import RATES
from hyperspot.detector.anomaly_model import AnomalyModel
from hyperspot.detector.fitting import Fitted
from hyperspot.errors import DataError
from hyperspot.hardware.cpu import native_precision
from hyperspot.hardware.devices import resolve
from hyperspot.images import InputSize, read_image, read_size
from hyperspot.utils.progress import Progress

TIMED_IMAGES = 8
"""Images that latency is measured on, and the batch size of the throughput."""
TIMED_SECONDS = 3.0
"""Seconds of a timing, after two warm-up calls; at least three calls count."""


def measure(
    run: Run, data: Path, chosen: str | None, weights: str | None, progress: Progress, *, device: str = "cpu"
) -> dict[str, Any]:
    """Make one run and return the measured fields of its JSON line.

    Args:
        run: The run.
        data: Folder of the data set.
        chosen: The product, if the folder holds several.
        weights: File or folder of backbone weights, or `random:SEED`; None: the usual places.
        progress: Receives the progress.
        device: Device to compute on; times are recorded on the CPU only.

    Raises:
        DataError, ImageError, WeightsError, SettingsError, CalibrationError, DeviceError: As their names say.

    """
    dataset = _fewer(open_dataset(data, category=chosen), run.train_images, run.test_images)
    with randomized(dataset, run.version) as given:
        started = time.perf_counter()
        detector, watched = _fit(run, given, weights, progress, device)
        seconds = time.perf_counter() - started
        line: dict[str, Any] = {
            # Evaluations at checkpoints use caches and memory, so such a run has no training time.
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
    """Return versions, processor, threads, precision, device and time, without the name of the machine."""
    packages = {name: importlib.metadata.version(name) for name in ("torch", "numpy", "pillow")}
    return {
        "versions": {"hyperspot": hyperspot.__version__, "python": platform.python_version(), **packages},
        "processor": f"{platform.machine()}, {os.cpu_count()} cores",
        "threads": torch.get_num_threads(),
        "precision": native_precision(),
        "device": device,
        "created": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    }


def _fewer(dataset: Dataset, train: int | None, test: int | None) -> Dataset:
    """Return the data set with its first `train` good training images and `test` test images of all labels."""
    if train is not None and train > len(dataset.train):
        raise DataError(f"{dataset.root} has {len(dataset.train)} good training images, {train} were asked for")
    kept = [*dataset.train[:train], *_spread_out(dataset.test, test)]
    return dataset if train is test is None else replace(dataset, samples=tuple(kept))


def _spread_out(samples: list[Sample], count: int | None) -> list[Sample]:
    """Return `count` samples, evenly spread over each label, with at least one of each."""
    if count is None or count >= len(samples):
        return samples
    bad = [sample for sample in samples if sample.label]
    good = [sample for sample in samples if not sample.label]
    most_bad = min(len(bad), max(1, round(count * len(bad) / len(samples))))
    shares = (good, max(1, count - most_bad)), (bad, most_bad)
    return [part[place * len(part) // share] for part, share in shares if part for place in range(share)]


def _fit(
    run: Run, dataset: Dataset, weights: str | None, progress: Progress, device: str
) -> tuple[Detector, dict[str, Any]]:
    """Fit the detector of a run; the only call of the benchmark that fits."""
    settings = run.settings
    if not run.oracle:
        detector = Detector.fit(dataset, settings=settings, weights=weights, device=device, progress=progress)
        return detector, {"watched": False}
    sizes = [read_size(sample.path) for sample in dataset.train]
    input_size = InputSize.for_sizes(sizes, settings.short_side, settings.aspect)
    oracle = Oracle(dataset, input_size, settings.sigma, resolve(device))
    detector = Detector.fit(
        dataset, settings=settings, weights=weights, device=device, progress=progress, before_training=oracle.watch
    )
    watched: dict[str, Any] = {"watched": True, "checkpoints": len(oracle.history)}
    if oracle.history:
        watched |= {"oracle": oracle.best(), "history": oracle.history}
    return detector, watched


def _size(detector: Detector) -> dict[str, Any]:
    """Return the size of the fitted state, and the shapes that its formula needs."""
    fitted_state = [method.fitted_state() for method in detector.anomaly_model.methods]  # type: ignore[operator]
    seen = detector.anomaly_model
    backbone, crop = detector.backbone, (seen if isinstance(seen, AnomalyModel) else next(seen.views)).crops[0]
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
    """Return the median milliseconds from decoded image to verdict, and images per second in batches."""
    images = [read_image(sample.path) for sample in (dataset.test or dataset.train)[:TIMED_IMAGES]]
    batch = np.stack([detector.preprocess(image).pixels for image in images])
    turn = iter(range(10**9))
    latency = _median_seconds(lambda: detector.predict(images[next(turn) % len(images)]))
    seconds = _median_seconds(lambda: detector.run(batch))
    return {"latency_ms": round(latency * 1000, 3), "images_per_second": round(len(images) / seconds, 3)}


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
    """Return the figures of the detector, and of each crop of a fusion by itself."""
    line = {"last": _figures(detector, dataset, progress)}
    if run.settings.crops == "fused":
        anomaly_model = detector.anomaly_model
        assert isinstance(anomaly_model, AnomalyModel)
        for number, name in enumerate(("center", "full")):
            method: Any = anomaly_model.methods[number]
            alone = AnomalyModel([method], [anomaly_model.crops[number]], anomaly_model.input_size, anomaly_model.sigma)
            fitted = Fitted(alone, detector.decision_rule)
            line[name] = _figures(Detector(fitted, detector.settings, detector.record), dataset, progress)
    return line


def _figures(detector: Detector, dataset: Dataset, progress: Progress) -> dict[str, Any]:
    found = detector.evaluate(dataset, progress=progress).to_dict()
    found.pop("made_by")
    found["at_rates"] = {
        f"{name}_{100 * point['false_alarm_rate']:g}": point[value]
        for point in found.pop("operating_points")
        for name, value in (("detection", "detection_rate"), ("false_alarms", "observed_false_alarm_rate"))
        if point["false_alarm_rate"] in RATES
    }
    found["good_images"] = sum(sample.label == 0 for sample in dataset.test)
    return found


def _peak_memory_mb() -> int | None:
    """Return the peak memory of this process; None if the system does not report it."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak // (1024 * 1024 if sys.platform == "darwin" else 1024))
