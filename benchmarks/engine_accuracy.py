"""Accuracy of each engine and precision: one detector, one labeled data set, one table.

    python -m benchmarks.engine_accuracy part.safetensors DATA [--int8 part.xml]

Every row predicts the same test images with the same decision rule; int8 has its own. The reference is torch in f32.
`map` is the largest difference of two anomaly maps at the input size, in percent of the largest value of the reference;
`decisions` is the share of images whose decision changes, in percent. Metrics are at the image size, in percent.
"""

import argparse
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from hyperspot import Detector, metrics
from hyperspot.data import Dataset, open_dataset
from hyperspot.evaluation import Evaluation, evaluate
from hyperspot.export.exporting import export
from hyperspot.predictor import Predictor
from hyperspot.results import Verdict
from hyperspot.runtime import ExportedDetector, available
from hyperspot.utils.progress import SILENT

EXPORTED = (("openvino", "f32"), ("openvino", "bf16"), ("onnxruntime", None))
COLUMNS = ("image_auroc", "pixel_auroc", "aupro_30")


class Recorder:
    """A predictor that keeps the anomaly maps at the input size."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.crops, self.decision_rule = predictor.crops, predictor.decision_rule
        self.maps: list[np.ndarray] = []

    def predict_many(self, images: Iterable[Path]) -> Iterator[Verdict]:
        for verdict in self.predictor.predict_many(images):
            self.maps.append(verdict.input_map)
            yield verdict

    def describe(self) -> dict[str, Any]:
        return self.predictor.describe()


def measured(predictor: Predictor, dataset: Dataset) -> tuple[Evaluation, list[np.ndarray]]:
    recorder = Recorder(predictor)
    evaluation = evaluate(recorder, dataset, progress=SILENT)
    # Only the report needs the pictures.
    results = tuple(replace(result, pictures=()) for result in evaluation.image_results)
    return replace(evaluation, image_results=results), recorder.maps


def row(name: str, found: tuple[Evaluation, list[np.ndarray]], reference: tuple[Evaluation, list[np.ndarray]]) -> str:
    evaluation, maps = found
    expected, exact = reference
    highest = max(float(np.abs(one).max()) for one in exact)
    off = max(float(np.abs(one - other).max()) for one, other in zip(maps, exact, strict=True)) / highest
    changed = [
        one.is_anomalous != other.is_anomalous
        for one, other in zip(evaluation.image_results, expected.image_results, strict=True)
    ]
    cells = [
        *(percent(evaluation.metrics[column]) for column in COLUMNS),
        f"{100 * off:.2g}",
        "-" if evaluation.threshold is None else f"{100 * np.mean(changed):.1f}",
        percent(evaluation.observed_false_alarm_rate, 1),
    ]
    return f"| {name} | {' | '.join(cells)} |"


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
    titles = [*(metrics.get(column).short_title for column in COLUMNS), "map", "decisions", "false alarms"]
    print(
        f"{given.model.name} on {dataset.name}, {len(dataset.test)} images, {detector.settings.method}, "
        f"{detector.settings.backbone}, trained in hyperspot {detector.record['versions']['hyperspot']}\n\n"
        f"| engine | {' | '.join(titles)} |\n|---{'|---' * len(titles)}|"
    )
    reference = measured(detector, dataset)
    print(row("torch f32", reference, reference), flush=True)
    detector.anomaly_model.precision = "bf16"
    print(row("torch bf16", measured(detector, dataset), reference), flush=True)
    detector.anomaly_model.precision = "f32"
    with tempfile.TemporaryDirectory() as folder:
        written = export(detector, Path(folder) / "part.onnx")
        for engine, precision in EXPORTED:
            if engine not in available():
                print(f"| {engine} {precision or 'f32'} | not installed here | | | | | |")
                continue
            opened = ExportedDetector.load(written, engine=engine, precision=precision)
            print(row(f"{engine} {opened.engine.precision}", measured(opened, dataset), reference), flush=True)
    if given.int8 is not None:
        quantized = ExportedDetector.load(given.int8)
        if quantized.engine.precision != "int8":
            parser.error(f"{given.int8} is not quantized; export it with --int8 GOOD_IMAGES")
        print(row(f"{quantized.engine.name} int8", measured(quantized, dataset), reference), flush=True)


if __name__ == "__main__":
    main()
