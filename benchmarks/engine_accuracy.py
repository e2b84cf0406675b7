"""What each engine and number format costs in accuracy: one detector, one labelled data set, one table.

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
from hyperspot.calibration import Calibration
from hyperspot.evaluation import Evaluation, evaluate
from hyperspot.images import Dataset, View, open_dataset, read_image
from hyperspot.progress import SILENT
from hyperspot.runtime import ExportedDetector, available
from hyperspot.runtime.export import export
from hyperspot.verdict import Verdict
from hyperspot.workers import ahead

EXPORTED = (("openvino", "f32"), ("openvino", "bf16"), ("onnxruntime", None))


class Watched:
    """Judges photos and keeps the heatmaps, in the pixels of the frame."""

    def __init__(self, predict: Callable[[Any], Verdict]) -> None:
        self.predict = predict
        self.maps: list[np.ndarray] = []

    def __call__(self, photos: Iterable[Path]) -> Iterator[Verdict]:
        for image in ahead(read_image, photos):
            verdict = self.predict(image)
            self.maps.append(verdict.input_map)
            yield verdict


def measured(
    predict: Callable[[Any], Verdict], calibration: Calibration, dataset: Dataset, views: tuple[View, ...]
) -> tuple[Evaluation, list[np.ndarray]]:
    watched = Watched(predict)
    evaluation = evaluate(
        watched,
        dataset,
        views=views,
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
    detector = Detector.load(given.model, number_format="f32")
    views, calibration = detector.scorer.views, detector.calibration
    print(
        f"{given.model.name} on {dataset.name}, {len(dataset.test)} photos, {detector.settings.method}, "
        f"{detector.settings.backbone}, trained in hyperspot {detector.record['versions']['hyperspot']}\n\n"
        "| engine | I-AUROC | P-AUROC | AUPRO | map | verdicts | false alarms |\n|---|---|---|---|---|---|---|"
    )
    reference = measured(detector.predict, calibration, dataset, views)
    print(row("torch f32", reference, reference), flush=True)
    detector.scorer.number_format = "bf16"
    print(row("torch bf16", measured(detector.predict, calibration, dataset, views), reference), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        written = export(detector, Path(folder) / "part.onnx")
        for engine, number_format in EXPORTED:
            if engine not in available():
                print(f"| {engine} {number_format or 'f32'} | not installed here | | | | | |")
                continue
            opened = ExportedDetector.load(written, engine=engine, number_format=number_format)
            found = measured(opened.predict, opened.judge.calibration, dataset, views)
            print(row(f"{engine} {opened.engine.number_format}", found, reference), flush=True)
    if given.int8 is not None:
        quantised = ExportedDetector.load(given.int8)
        if quantised.engine.number_format != "int8":
            parser.error(f"{given.int8} is not quantised; export it with --int8 GOOD_PHOTOS")
        found = measured(quantised.predict, quantised.judge.calibration, dataset, views)
        print(row(f"{quantised.engine.name} int8", found, reference), flush=True)


if __name__ == "__main__":
    main()
