"""Accuracy of each engine and precision: one detector, one labeled data set, one table.

    python -m benchmarks.engine_accuracy part.safetensors DATA [--int8 part.xml]

Every row predicts the same test images with the same thresholds, except int8, which has its own. The reference is torch
in f32. `map` is the largest difference of two heatmaps at the input size, in percent of the largest value of the
reference; `verdicts` is the share of images with another verdict. Metrics are at the original resolution, in percent.
"""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hyperspot import Detector
from hyperspot.data import Dataset, open_dataset
from hyperspot.export.exporting import export
from hyperspot.hardware.cpu import Precision
from hyperspot.predictor import Predictor
from hyperspot.runtime import ExportedDetector, available

EXPORTED: tuple[tuple[str, Precision | None], ...] = (("openvino", "f32"), ("openvino", "bf16"), ("onnxruntime", None))


@dataclass(frozen=True)
class Measured:
    """Figures by JSON name, and the heatmap and verdict of each test image."""

    figures: dict[str, Any]
    maps: list[np.ndarray]
    verdicts: list[bool | None]


def measured(predictor: Predictor, dataset: Dataset) -> Measured:
    verdicts = list(predictor.predict_many([sample.path for sample in dataset.test]))
    figures = predictor.evaluate(dataset).to_dict()
    return Measured(figures, [one.input_map for one in verdicts], [one.is_anomalous for one in verdicts])


def row(name: str, found: Measured, reference: Measured) -> str:
    highest = max(float(np.abs(one).max()) for one in reference.maps)
    pairs = zip(found.maps, reference.maps, strict=True)
    off = max(float(np.abs(one - other).max()) for one, other in pairs) / highest
    changed = np.mean([one != other for one, other in zip(found.verdicts, reference.verdicts, strict=True)])
    figures = [
        *(percent(found.figures[metric]) for metric in ("image_auroc", "pixel_auroc", "aupro_30")),
        f"{100 * off:.2g}",
        "-" if found.figures["threshold"] is None else f"{100 * changed:.1f}",
        percent(found.figures["observed_false_alarm_rate"], 1),
    ]
    return f"| {name} | {' | '.join(figures)} |"


def percent(share: float | None, digits: int = 3) -> str:
    return "-" if share is None else f"{100 * share:.{digits}f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a model file written by `hyperspot train`")
    parser.add_argument("data", type=Path)
    parser.add_argument("--int8", type=Path, help="the same detector, exported with `hyperspot export --int8`")
    given = parser.parse_args()
    dataset = open_dataset(given.data)
    detector = Detector.load(given.model, precision="f32")
    print(
        f"{given.model.name} on {dataset.name}, {len(dataset.test)} images, {detector.settings.method}, "
        f"{detector.settings.backbone}, trained in hyperspot {detector.record['versions']['hyperspot']}\n\n"
        "| engine | I-AUROC | P-AUROC | AUPRO | map | verdicts | false alarms |\n|---|---|---|---|---|---|---|"
    )
    reference = measured(detector, dataset)
    print(row("torch f32", reference, reference), flush=True)
    detector.anomaly_model.precision = "bf16"
    print(row("torch bf16", measured(detector, dataset), reference), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        written = export(detector, Path(folder) / "part.onnx")
        for engine, precision in EXPORTED:
            if engine not in available():
                print(f"| {engine} {precision or 'f32'} | not installed | | | | | |")
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
