"""What each engine and number format costs in accuracy: one detector, one labeled data set, one table.

    python -m benchmarks.engine_accuracy part.safetensors DATA [--int8 part.xml]

Every row judges the same test photos with the same thresholds, but int8, whose thresholds are its own. All is compared
with torch in 32-bit floats. `map` is the largest difference of two heatmaps in the pixels of the frame, in percent of
the largest value of the reference; `verdicts` is the share of photos that are called otherwise. Metrics are taken over
the photos' own pixels, in percent.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hyperspot import Detector
from hyperspot.data import Dataset, open_dataset
from hyperspot.decision.calibration import Calibration
from hyperspot.evaluation import Evaluation, evaluate
from hyperspot.export.exporting import export
from hyperspot.images import Crop, read_image
from hyperspot.results.verdict import Verdict
from hyperspot.runtime import ExportedDetector, available
from hyperspot.utils.prefetch import prefetch_map
from hyperspot.utils.progress import SILENT

EXPORTED = (("openvino", "f32"), ("openvino", "bf16"), ("onnxruntime", None))


class Watched:
    """Judges photos and keeps the heatmaps, in the pixels of the frame."""

    def __init__(self, predict: Callable[[Any], Verdict]) -> None:
        self.predict = predict
        self.maps: list[np.ndarray] = []

    def __call__(self, photos: Iterable[Path]) -> Iterator[Verdict]:
        for image in prefetch_map(read_image, photos):
            verdict = self.predict(image)
            self.maps.append(verdict.input_map)
            yield verdict


def measured(
    predict: Callable[[Any], Verdict], calibration: Calibration, dataset: Dataset, crops: tuple[Crop, ...]
) -> tuple[Evaluation, list[np.ndarray]]:
    watched = Watched(predict)
    evaluation = evaluate(
        watched,
        dataset,
        crops=crops,
        promised_rate=None if calibration.threshold is None else calibration.false_alarm_rate,
        threshold=calibration.threshold,
        calibration_scores=tuple(map(float, calibration.scores)),
        made_by={},
        progress=SILENT,
    )
    # The pictures are for the report alone, and many.
    return replace(evaluation, judged=tuple(replace(one, pictures=()) for one in evaluation.judged)), watched.maps


def row(name: str, found: tuple[Evaluation, list[np.ndarray]], reference: tuple[Evaluation, list[np.ndarray]]) -> str:
    evaluation, maps = found
    expected, exact = reference
    highest = max(float(np.abs(one).max()) for one in exact)
    off = max(float(np.abs(one - other).max()) for one, other in zip(maps, exact, strict=True)) / highest
    calls = [
        (one.is_anomalous, other.is_anomalous) for one, other in zip(evaluation.judged, expected.judged, strict=True)
    ]
    figures = [
        percent(evaluation.image_auroc),
        percent(evaluation.pixels.pixel_auroc),
        percent(evaluation.pixels.aupro_30),
        f"{100 * off:.2g}",
        "-" if evaluation.threshold is None else f"{100 * np.mean([one != other for one, other in calls]):.1f}",
        percent(evaluation.observed_false_alarm_rate, 1),
    ]
    return f"| {name} | {' | '.join(figures)} |"


def percent(share: float | None, digits: int = 3) -> str:
    return "-" if share is None else f"{100 * share:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a model file made by `hyperspot train`")
    parser.add_argument("data", type=Path)
    parser.add_argument("--int8", type=Path, help="the same detector, exported with `hyperspot export --int8`")
    given = parser.parse_args()
    dataset = open_dataset(given.data)
    detector = Detector.load(given.model, precision="f32")
    crops, calibration = detector.anomaly_model.crops, detector.calibration
    print(
        f"{given.model.name} on {dataset.name}, {len(dataset.test)} photos, {detector.settings.method}, "
        f"{detector.settings.backbone}, trained in hyperspot {detector.record['versions']['hyperspot']}\n\n"
        "| engine | I-AUROC | P-AUROC | AUPRO | map | verdicts | false alarms |\n|---|---|---|---|---|---|---|"
    )
    reference = measured(detector.predict, calibration, dataset, crops)
    print(row("torch f32", reference, reference), flush=True)
    detector.anomaly_model.precision = "bf16"
    print(row("torch bf16", measured(detector.predict, calibration, dataset, crops), reference), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        written = export(detector, Path(folder) / "part.onnx")
        for engine, precision in EXPORTED:
            if engine not in available():
                print(f"| {engine} {number_format or 'f32'} | not installed here | | | | | |")
                continue
            opened = ExportedDetector.load(written, engine=engine, precision=precision)
            found = measured(opened.predict, opened.judge.calibration, dataset, crops)
            print(row(f"{engine} {opened.engine.precision}", found, reference), flush=True)
    if given.int8 is not None:
        quantized = ExportedDetector.load(given.int8)
        if quantized.engine.precision != "int8":
            parser.error(f"{given.int8} is not quantized; export it with --int8 GOOD_PHOTOS")
        found = measured(quantized.predict, quantized.judge.calibration, dataset, crops)
        print(row(f"{quantized.engine.name} int8", found, reference), flush=True)


if __name__ == "__main__":
    main()
