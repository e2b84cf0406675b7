"""A backbone in 8-bit integers: what is computed in them, and from which photos ranges and thresholds come."""

import dataclasses
import importlib.util
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hyperspot import Detector
from hyperspot.cli import app as cli
from hyperspot.data import open_dataset
from hyperspot.decision.planning import plan, split
from hyperspot.errors import CalibrationWarning, DataError, SettingsError
from hyperspot.images import read_image
from hyperspot.runtime import ExportedDetector, open_engine
from hyperspot.runtime.engines import TorchEngine
from hyperspot.utils.optional_packages import install_command

EXPORTS = all(importlib.util.find_spec(name) is not None for name in ("onnxscript", "openvino"))
pytestmark = pytest.mark.skipif(not EXPORTS, reason="needs hyperspot[runtime,export]: openvino, onnx and onnxscript")
quantizes = pytest.mark.skipif(importlib.util.find_spec("nncf") is None, reason="needs hyperspot[int8]: nncf")


@pytest.fixture(scope="module")
def detector(product: Path) -> Detector:
    """Return a detector with a split: only then has the file thresholds of its own."""
    return Detector.fit(product, short_side=128, false_alarm_rate=0.2, calibration="split")


@pytest.fixture(scope="module")
def model_file(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return detector.save(tmp_path_factory.mktemp("model") / "split.safetensors")


@pytest.fixture(scope="module")
def quantized(product: Path, model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the file that the command line writes."""
    path = tmp_path_factory.mktemp("quantized") / "part.xml"
    command = [sys.executable, "-m", "hyperspot", "export", model_file, "-o", path, "--int8", product, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = done.stdout.splitlines()
    told = json.loads(line)
    assert (told["precision"], told["range_images"], told["calibration_images"]) == ("int8", 19, 5)
    return path


def layers(compiled) -> list[tuple[str, str]]:
    """Return kind and number format of the layers as the CPU runs them."""
    nodes = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    return [(node["layerType"].astype(str), node["runtimePrecision"].astype(str)) for node in nodes]


@quantizes
def test_the_backbone_runs_in_8_bits_but_its_first_convolution_and_nothing_else(quantized):
    engine = open_engine(quantized)
    assert engine.precision == "int8"
    backbone, *others = [compiled for compiled, _ in engine._compiled._stages]
    convolutions = [numbers for kind, numbers in layers(backbone) if kind == "Convolution"]
    assert len(convolutions) == 13
    assert convolutions[0] in ("f32", "bf16")
    assert set(convolutions[1:]) <= {"u8", "i8"}
    for compiled in (*others, engine._compiled._tail):
        calculating = [one for one in layers(compiled) if one[0] not in ("Const", "Input", "Output")]
        assert calculating
        assert {numbers for kind, numbers in calculating if kind in ("MatMul", "FullyConnected", "Eltwise")} <= {"f32"}
        assert not {"u8", "i8", "bf16", "f16"} & {numbers for _, numbers in calculating}
    assert quantized.with_suffix(".bin").stat().st_size < 4_000_000


@quantizes
def test_its_heatmaps_are_near_those_of_32_bit_floats(detector, quantized, product):
    photos = sorted(product.glob("test/*/*.png"))
    frames = np.stack([read_image(photo) for photo in photos])
    expected, _ = TorchEngine(detector.anomaly_model).run(frames)
    found, scores = open_engine(quantized).run(frames)
    difference = np.abs(found - expected).max() / expected.max()
    # Not nothing: a file that computes in floats after all would pass otherwise.
    assert 1e-3 < difference < 0.15
    np.testing.assert_array_equal(scores, found.max((1, 2)))
    alone = np.concatenate([open_engine(quantized).run(frames[:1])[0], open_engine(quantized).run(frames[1:2])[0]])
    np.testing.assert_allclose(alone, found[:2], rtol=1e-5, atol=1e-6)


@quantizes
def test_its_thresholds_are_those_of_its_own_scores_on_the_photos_held_out(detector, quantized, product):
    loaded = ExportedDetector.load(quantized)
    planned = plan(24, 0.2, "split")
    (held_out,) = split(24, planned, seed=0)
    photos = [photo.path for photo in open_dataset(product).train]
    verdicts = [loaded.predict(photos[index]) for index in held_out]
    scores = sorted(verdict.score for verdict in verdicts)
    assert list(loaded.decision_rule.calibration.scores) == pytest.approx(scores, rel=1e-6)
    assert list(detector.decision_rule.calibration.scores) != pytest.approx(scores, rel=1e-4)
    maxima = sorted(verdict.input_map[verdict.letterbox.content].max() for verdict in verdicts)
    expected = maxima[math.ceil((1 - detector.settings.mask_false_alarm_rate) * (len(maxima) - 1))]
    assert loaded.decision_rule.mask_floor == pytest.approx(expected, rel=1e-5)
    assert loaded.description["record"]["exported"]["range_images"] == 24 - len(held_out)


@quantizes
def test_a_detector_without_held_out_photos_keeps_its_thresholds(product, tmp_path):
    from hyperspot.export.exporting import export

    *photos, another = sorted(product.glob("train/good/*.png"))[:7]
    options = {"weights": "random:0", "short_side": 64, "false_alarm_rate": 0.2, "crops": "fused"}
    crossed = Detector.fit(photos, calibration="cross", **options)
    with pytest.warns(CalibrationWarning, match=r"part\.xml keeps the thresholds of the detector; recalibrate it"):
        written = export(crossed, tmp_path / "part.xml", int8=product / "train" / "good")
    loaded = ExportedDetector.load(written)
    assert loaded.decision_rule.calibration.kind == "cross"
    np.testing.assert_array_equal(loaded.decision_rule.calibration.scores, crossed.decision_rule.calibration.scores)
    assert loaded.decision_rule.mask_floor == crossed.decision_rule.mask_floor
    exported = loaded.description["record"]["exported"]
    assert (exported["range_images"], exported["calibration_images"]) == (24, 0)
    # Two views, and the backbone in 8 bits for each but its first convolution.
    backbone, _ = loaded.engine._compiled._stages[0]
    assert sum(one in (("Convolution", "u8"), ("Convolution", "i8")) for one in layers(backbone)) == 24
    # Of a photo that was learned every patch may be in the memory: what it differs by then is rounding alone.
    found, expected = loaded.predict(another), crossed.predict(another)
    assert np.abs(found.input_map - expected.input_map).max() < 0.1 * np.ptp(expected.input_map)


@quantizes
def test_a_quantized_file_has_the_format_it_has(quantized):
    with pytest.raises(SettingsError, match=r"part\.xml is quantized .* without --int8 for bf16"):
        open_engine(quantized, precision="bf16")


@quantizes
def test_photos_that_are_not_those_of_the_training_are_refused(detector, product, tmp_path):
    from hyperspot.export.exporting import export

    whole = open_dataset(product)
    fewer = dataclasses.replace(whole, samples=whole.samples[1:])
    for other in (fewer, product / "train" / "good"):
        with pytest.raises(SettingsError, match="is not the data that the detector was trained on"):
            export(detector, tmp_path / "part.xml", int8=other)
    none = dataclasses.replace(whole, samples=tuple(photo for photo in whole.samples if photo.split == "test"))
    with pytest.raises(DataError, match="no good image to quantize with"):
        export(detector, tmp_path / "part.xml", int8=none)
    assert list(tmp_path.iterdir()) == []


def test_onnx_is_not_quantized(detector, product, tmp_path):
    from hyperspot.export.exporting import export

    with pytest.raises(SettingsError, match=r"int8 is for OpenVINO alone; name the file part\.xml"):
        export(detector, tmp_path / "part.onnx", int8=product)


def test_without_nncf_one_sentence_says_what_brings_it(model_file, product, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "nncf", None)
    arguments = ["export", model_file, "-o", tmp_path / "part.xml", "--int8", product]
    monkeypatch.setattr(sys, "argv", ["hyperspot", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    message = f"quantization to int8 needs nncf, which is not installed; install it with {install_command('int8')}"
    assert message in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []


@quantizes
def test_nothing_is_reported_to_the_vendor():
    script = "import sys\nfrom hyperspot.runtime.openvino_import import import_nncf\nimport_nncf()\n"
    script += "assert not [name for name in sys.modules if name.startswith('openvino_telemetry')]"
    subprocess.run([sys.executable, "-c", script], check=True)
