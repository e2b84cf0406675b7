"""The programs of "Call the ONNX file without hyperspot": Python gives its verdicts, C# has its contract."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from hyperspot import Detector, ExportedDetector
from hyperspot.decision import good_images, masks, rule
from hyperspot.export import export
from hyperspot.images import geometry
from hyperspot.runtime import engines, exported_file

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "call-the-onnx-file.md"
TEXT = PAGE.read_text("utf-8")
(PYTHON,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
(CSHARP,) = re.findall(r"```csharp\n(.*?)```", TEXT, re.DOTALL)
SIZES = {
    "as trained": (120, 160),
    "square": (150, 150),
    "wide": (90, 400),
    "upright": (500, 130),
    "within the tolerance": (120, 167),
    "small": (31, 40),
}
"""Height and width of images, by name; the detectors are trained on 120 x 160."""
DETECTORS = {
    "contain": {},
    "stretch": {"aspect": "square", "calibration": "none"},
    "own score": {"method": "patchcore"},
}


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """Return an image with structure at every scale, some of it brighter than in training."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    waves = 128 + 60 * np.sin(rows / 9) * np.cos(columns / 13)
    return (waves[..., None] + generator.normal(0, 12, (height, width, 3))).clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module", params=DETECTORS)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    changes = {"false_alarm_rate": 0.2, "short_side": 96, **DETECTORS[request.param]}
    detector = Detector.fit([picture(120, 160, seed) for seed in range(12)], device="cpu", **changes)
    return export(detector, tmp_path_factory.mktemp("exported") / "part.onnx")


@pytest.fixture(scope="module")
def program() -> dict[str, object]:
    """Return the names that the Python program defines, without its last lines, which name files."""
    names: dict[str, object] = {}
    exec(compile(PYTHON.partition('\ndetector = OnnxDetector("part.onnx")')[0], PAGE.name, "exec"), names)
    return names


def test_python_gives_the_verdict_of_hyperspot(path: Path, program: dict[str, object], tmp_path: Path):
    exported = ExportedDetector.load(path, engine="onnxruntime")
    alone = program["OnnxDetector"](str(path))
    decisions, outlined = set(), 0
    for seed, (name, (height, width)) in enumerate(SIZES.items()):
        pixels = picture(height, width, seed)
        if seed % 2:
            pixels[height // 3 : height // 2, width // 3 : width // 2] = 255
        expected = exported.predict(pixels)
        found = alone.predict(Image.fromarray(pixels))
        assert found["score"] == pytest.approx(expected.score, rel=1e-5), name
        assert (found["p_value"], found["is_anomalous"]) == (expected.p_value, expected.is_anomalous), name
        np.testing.assert_allclose(found["heatmap"], expected.heatmap, rtol=1e-5, atol=1e-5)
        assert (found["mask"] != expected.mask).mean() < 1e-3, name
        decisions.add(expected.is_anomalous)
        outlined += 0 < expected.mask.mean() < 1
    if exported.decision_rule.calibration.kind != "none":
        assert decisions == {True, False}
        assert outlined


def test_python_finds_the_same_masks(path: Path, program: dict[str, object]):
    """Regions of all sizes and strengths, and none."""
    alone = program["OnnxDetector"](str(path))
    generator = np.random.default_rng(0)
    for number in range(20):
        heatmap = ndimage.gaussian_filter(generator.standard_normal((60, 80)), 2.5).astype(np.float32)
        heatmap[:5, :5] = 0.5
        floor, typical = float(np.quantile(heatmap, generator.uniform(0.2, 0.99))), float(np.median(heatmap))
        alone.rule = {"mask_floor": 99.0 if number == 0 else floor, "heat_range": [typical, 9.0]}
        area = float(generator.choice([0.05, 1.0, 20.0]))
        expected = masks.defect_mask(heatmap, alone.rule["mask_floor"], typical, area)
        np.testing.assert_array_equal(alone.find_mask(heatmap, area), expected)
        assert expected.any() == (number > 0)


def test_python_applies_the_orientation(path: Path, program: dict[str, object], tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = tmp_path / "turned.png"
    Image.fromarray(picture(120, 160, 0)).save(photo, exif=exif)
    found = program["OnnxDetector"](str(path)).predict(Image.open(photo))
    expected = ExportedDetector.load(path, engine="onnxruntime").predict(photo)
    assert found["heatmap"].shape == expected.heatmap.shape == (160, 120)
    assert found["score"] == pytest.approx(expected.score, rel=1e-5)


def test_python_reads_files_from_before_tiles_and_refuses_tiles(path: Path, program: dict[str, object], tmp_path: Path):
    model = onnx.load(path)
    (entry,) = [entry for entry in model.metadata_props if entry.key == exported_file.PROPERTY]
    description = json.loads(entry.value)
    del description["tiling"]
    entry.value = json.dumps(description)
    onnx.save(model, tmp_path / "older.onnx")
    image = Image.fromarray(picture(120, 160, 0))
    found = program["OnnxDetector"](str(tmp_path / "older.onnx")).predict(image)
    assert found["score"] == program["OnnxDetector"](str(path)).predict(image)["score"]
    entry.value = json.dumps(description | {"tiling": {"whole": 1}})
    onnx.save(model, tmp_path / "tiled.onnx")
    with pytest.raises(ValueError, match=r"tiled\.onnx takes tiles"):
        program["OnnxDetector"](str(tmp_path / "tiled.onnx"))


def test_python_needs_no_hyperspot():
    assert "hyperspot" not in {line.split()[1].split(".")[0] for line in PYTHON.splitlines() if "import " in line}


def test_the_contract_is_that_of_the_code():
    """What both programs and the table state in words is what hyperspot reads and writes."""
    assert f"`format` is {exported_file.FORMAT}" in TEXT
    assert f"!= {exported_file.FORMAT}:" in PYTHON
    assert f"GetInt32() != {exported_file.FORMAT}" in CSHARP
    assert geometry.STRETCH_TOLERANCE == 1 / 16
    assert "TOLERANCE = 1 / 16" in PYTHON
    assert "Tolerance = 1.0 / 16" in CSHARP
    assert f"MASK_RATE = {rule.MASK_RATE}\n" in PYTHON
    assert f"LEVEL, SMALL_LEVEL, SMALL_AREA = {masks.LEVEL}, {masks.SMALL_LEVEL}, {masks.SMALL_AREA:.0f}\n" in PYTHON
    levels = f"Level = {masks.LEVEL}, SmallLevel = {masks.SMALL_LEVEL}, SmallArea = {masks.SMALL_AREA:.0f};"
    assert f"MaskRate = {rule.MASK_RATE}, {levels}" in CSHARP
    assert f"both {rule.MASK_RATE} and" in TEXT
    assert f"[::{good_images.MEDIAN_STEP}, ::{good_images.MEDIAN_STEP}]" in PYTHON
    assert CSHARP.count(f" += {good_images.MEDIAN_STEP})") == 2
    for name in (engines.INPUT, engines.HEATMAP, engines.SCORE, exported_file.PROPERTY):
        assert f'"{name}"' in PYTHON
        assert f'"{name}"' in CSHARP


def test_csharp_reads_the_same_metadata_as_python():
    in_python = set(re.findall(r'(?:metadata|rule|size)(?:\[|\.get\()"(\w+)"', PYTHON))
    in_csharp = set(re.findall(r'GetProperty\("(\w+)"', CSHARP))
    # Files that were exported before there were tiles do not name them.
    assert re.findall(r'\.get\("(\w+)"', PYTHON) == re.findall(r'TryGetProperty\("(\w+)"', CSHARP) == ["tiling"]
    assert in_python == in_csharp
    assert CSHARP.count("{") == CSHARP.count("}")
    assert CSHARP.count("(") == CSHARP.count(")")
