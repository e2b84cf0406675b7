"""Exported files judge as the detector does, without torch, whatever engine runs them."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hyperspot import Detector
from hyperspot.cli import app as cli
from hyperspot.errors import MissingPackageError, ModelFileError, SettingsError
from hyperspot.hardware import native
from hyperspot.images import read_image
from hyperspot.methods import method_class
from hyperspot.runtime import ExportedDetector, available, exported_file, is_exported, open_engine
from hyperspot.runtime.engines import TorchEngine

SCORE_TOLERANCE = 1e-5
"""Relative: what 32-bit floats in another order of summation may differ by."""
MAP_TOLERANCE = 1e-4
"""Of the largest value. Where a patch all but coincides with a memory vector, the root of a difference of nearly
equal numbers loses digits in every engine, torch included: on MVTec bottle each is 6e-5 to 1e-4 from float64."""
WITHOUT_TORCH = """
import sys
sys.modules["torch"] = None
import numpy as np
from pathlib import Path
from hyperspot.runtime import ExportedDetector
exported = ExportedDetector.load(sys.argv[1], engine=sys.argv[2])
with np.load(sys.argv[3]) as given:
    for name, frames in given.items():
        maps, scores = exported.engine.run(frames)
        np.savez(Path(sys.argv[4]) / f"{name}.npz", maps=maps, scores=scores)
"""

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("onnxscript") is None, reason="needs hyperspot[export]: onnx and onnxscript"
)


def needs(*engines: str) -> None:
    for engine in engines:
        if engine not in available():
            pytest.skip(f"needs hyperspot[runtime]: {engine} is not installed")


def frames_of(detector: Detector, photos: list[Path]) -> np.ndarray:
    images = [read_image(photo) for photo in photos]
    return np.stack([detector.anomaly_model.input_size.letterbox(*image.shape[:2]).apply(image) for image in images])


def assert_alike(found: np.ndarray, expected: np.ndarray, tolerance: float = MAP_TOLERANCE) -> None:
    assert found.shape == expected.shape
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


@pytest.fixture(scope="module")
def photos(product: Path) -> list[Path]:
    return sorted(product.glob("test/*/*.png"))


@pytest.fixture(scope="module")
def exported(detector: Detector, model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the detector's exported files by their format: one written by the library, one by the command line."""
    from hyperspot.export.exporting import export

    folder = tmp_path_factory.mktemp("exported")
    files = {"onnx": export(detector, folder / "part.onnx")}
    if "openvino" in available():
        files["openvino"] = folder / "part.xml"
        with pytest.MonkeyPatch.context() as patched:
            arguments = ["export", model_file, "--format", "openvino", "-o", files["openvino"]]
            patched.setattr(sys, "argv", ["hyperspot", *map(str, arguments)])
            with pytest.raises(SystemExit) as ended:
                cli.main()
        assert not ended.value.code
    return files


@pytest.fixture(scope="module")
def oblong(product: Path) -> Detector:
    """Return a detector whose frame is not square and whose heatmap is fused from two views."""
    strips = [read_image(photo)[:96] for photo in sorted(product.glob("train/good/*.png"))[:8]]
    return Detector.fit(strips, weights="random:1", short_side=64, crops="fused", calibration="none")


@pytest.fixture(scope="module")
def oblong_file(oblong: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from hyperspot.export.exporting import export

    return export(oblong, tmp_path_factory.mktemp("oblong") / "oblong.onnx")


@pytest.mark.parametrize(("form", "engine"), [("onnx", "onnxruntime"), ("onnx", "openvino"), ("openvino", "openvino")])
def test_a_process_without_torch_gives_the_same_numbers(detector, exported, photos, tmp_path, form, engine):
    needs(engine)
    batches = {"one": frames_of(detector, photos[:1]), "three": frames_of(detector, photos[-3:])}
    np.savez(tmp_path / "frames.npz", **batches)
    subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT_TORCH, exported[form], engine, tmp_path / "frames.npz", tmp_path],
        check=True,
    )
    for name, frames in batches.items():
        maps, scores = TorchEngine(detector.anomaly_model).run(frames)
        with np.load(tmp_path / f"{name}.npz") as found:
            assert_alike(found["maps"], maps)
            assert_alike(found["scores"], scores, SCORE_TOLERANCE)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_frame_that_is_not_square_and_fused_views(oblong, oblong_file, photos, engine):
    needs(engine)
    assert oblong.anomaly_model.input_size.height != oblong.anomaly_model.input_size.width
    opened = open_engine(oblong_file, engine)
    for chosen in (photos[:1], photos[-3:]):
        frames = frames_of(oblong, chosen)
        maps, scores = TorchEngine(oblong.anomaly_model).run(frames)
        found_maps, found_scores = opened.run(frames)
        assert_alike(found_maps, maps)
        assert_alike(found_scores, scores, SCORE_TOLERANCE)


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_the_whole_verdict_is_the_detectors(detector, exported, photos, form):
    needs("openvino" if form == "openvino" else available()[0])
    judging = ExportedDetector.load(exported[form])
    letterboxed = np.pad(read_image(photos[0]), ((0, 0), (0, 90), (0, 0)), mode="reflect")
    for photo in [photos[0], photos[-1], letterboxed]:
        expected, found = detector.predict(photo), judging.predict(photo)
        assert (found.p_value, found.is_anomalous, found.path) == (
            expected.p_value,
            expected.is_anomalous,
            expected.path,
        )
        assert found.score == pytest.approx(expected.score, rel=SCORE_TOLERANCE)
        assert_alike(found.heatmap, expected.heatmap)
        assert (found.mask != expected.mask).mean() < 1e-3
        assert found.heat_range == expected.heat_range


def test_the_file_tells_what_it_is_and_nothing_of_the_machine(detector, exported):
    needs(available()[0])
    description = ExportedDetector.load(exported["onnx"]).description
    assert description["settings"] == detector.settings.model_dump(mode="json")
    assert description["record"] == json.loads(json.dumps(detector.record))
    assert description["decision_rule"]["scores"] == list(detector.decision_rule.calibration.scores)
    assert description["opset"] == 20
    for path in (exported["onnx"], *exported["onnx"].parent.glob("*.xml")):
        content = path.read_bytes()
        assert str(Path(__file__).parents[2]).encode() not in content
        assert b"site-packages" not in content
    assert [path.name for path in exported["onnx"].parent.iterdir() if path.name.startswith(".")] == []


def test_bf16_is_for_the_backbone_alone(detector, exported, photos):
    needs("openvino")
    frames = frames_of(detector, photos[:2])
    expected, _ = TorchEngine(detector.anomaly_model).run(frames)
    for path in exported.values():
        opened = open_engine(path, "openvino", precision="bf16")
        maps, scores = opened.run(frames)
        assert opened.precision == "bf16"
        assert np.abs(maps - expected).max() <= 0.04 * expected.max()
        # The tail is in 32 bits: the score is a value of the heatmap, with no rounding in between.
        np.testing.assert_array_equal(scores, maps.max((1, 2)))


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_the_search_of_openvino_is_the_compiled_one(exported, form):
    """Of the nearest vector alone, in the levels as they are projected: two of the grid and C4."""
    needs("openvino")
    if not native.level():
        pytest.skip("no compiled search here")
    (search,) = open_engine(exported[form], "openvino")._compiled._searches.values()
    assert search.possible
    assert search.k == 1
    assert len(search.tokens) == 3


def test_a_file_of_the_former_format_is_to_be_exported_again(exported, tmp_path):
    loaded = ExportedDetector.load(exported["onnx"])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(exported_file, "FORMAT", exported_file.FORMAT - 1)
        former = loaded.save(tmp_path / "former.onnx")
    with pytest.raises(ModelFileError, match=r"former\.onnx was exported by an older hyperspot .*; export it again$"):
        ExportedDetector.load(former)


@pytest.mark.parametrize("form", ["onnx", "openvino"])
@pytest.mark.parametrize("part", ["start", "middle", "end"])
def test_damage_is_told_in_one_sentence(exported, tmp_path, form, part):
    needs("openvino" if form == "openvino" else available()[0])
    copy = copied(exported[form], tmp_path)
    weighty = copy.with_suffix(".bin") if form == "openvino" else copy
    content = bytearray(weighty.read_bytes())
    place = {"start": 0, "middle": len(content) // 2, "end": len(content) - 1}[part]
    content[place] ^= 0xFF
    weighty.write_bytes(bytes(content))
    with pytest.raises(ModelFileError, match=copy.name):
        ExportedDetector.load(copy)


def test_foreign_and_incomplete_files_are_told_from_good_ones(exported, tmp_path):
    foreign = tmp_path / "foreign.onnx"
    for content in (b"", b"\x08\x0a" * 50, exported["onnx"].read_bytes()[:5000]):
        foreign.write_bytes(content)
        with pytest.raises(ModelFileError, match=r"foreign\.onnx"):
            ExportedDetector.load(foreign)
    with pytest.raises(ModelFileError, match=r"missing\.onnx does not exist"):
        ExportedDetector.load(tmp_path / "missing.onnx")
    if "openvino" in exported:
        lonely = copied(exported["openvino"], tmp_path)
        lonely.with_suffix(".bin").unlink()
        with pytest.raises(ModelFileError, match=r"part\.bin .* does not exist"):
            ExportedDetector.load(lonely)


def copied(path: Path, folder: Path) -> Path:
    for part in (path, path.with_suffix(".bin")):
        if part.is_file():
            (folder / part.name).write_bytes(part.read_bytes())
    return folder / path.name


OTHERS: dict[str, tuple[str, dict[str, object]]] = {
    "patchcore": ("patchcore", {}),
    "padim": ("padim", {}),
    "cflow": ("cflow", {"steps": 20, "places_per_step": 64}),
    "cutpaste by gradient": ("cutpaste", {"steps": 2, "images_per_step": 2, "localization": "gradient"}),
    "cutpaste by patches": (
        "cutpaste",
        {"steps": 2, "images_per_step": 2, "localization": "patches", "patch_steps": 2, "patches_per_step": 2},
    ),
    "patch_svdd": ("patch_svdd", {"steps": 2, "crops_per_step": 1}),
    "vae": ("vae", {"steps": 2, "images_per_step": 2}),
}


@pytest.mark.parametrize("case", list(OTHERS))
def test_other_methods_are_exported_too(product, tmp_path, monkeypatch, photos, case):
    from hyperspot.export.exporting import export

    method, changes = OTHERS[case]
    sources = sorted(product.glob("train/good/*.png"))[:8]
    weights = "random:0" if method_class(method).uses_backbone else None
    fitted = Detector.fit(
        sources, method=method, method_settings=changes, weights=weights, short_side=64, calibration="none"
    )
    written = export(fitted, tmp_path / "part.onnx")
    if not weights and "openvino" in available():
        # Where there is no backbone there is nothing to run in bf16, whatever the CPU is quick at.
        monkeypatch.setattr("hyperspot.runtime.engines.native_precision", lambda: "bf16")
        assert ExportedDetector.load(written, engine="openvino").engine.precision == "f32"
    for engine in (None,) if weights else ("onnxruntime", "openvino"):
        if engine:
            needs(engine)
        loaded = ExportedDetector.load(written, engine=engine)
        for photo in photos[:3]:
            ours, theirs = fitted.predict(photo), loaded.predict(photo)
            np.testing.assert_allclose(theirs.input_map, ours.input_map, rtol=1e-4, atol=1e-4)
            assert theirs.score == pytest.approx(ours.score, rel=1e-5)


def test_what_cannot_be_exported_is_said(detector, product, tmp_path):
    from hyperspot.export.exporting import export

    with pytest.raises(SettingsError, match=r"part\.pt tells no format"):
        export(detector, tmp_path / "part.pt")
    with pytest.raises(SettingsError, match=r"ends in \.xml"):
        export(detector, tmp_path / "part.onnx", "openvino")
    with pytest.raises(ModelFileError, match="there is no folder"):
        export(detector, tmp_path / "none" / "part.onnx")
    photos = sorted(product.glob("train/good/*.png"))[:3]
    spade = Detector.fit(photos, method="spade", weights="random:0", short_side=64, calibration="none")
    with pytest.raises(SettingsError, match="'spade' cannot be exported"):
        export(spade, tmp_path / "spade.onnx")
    assert list(tmp_path.iterdir()) == []


def test_engines_are_chosen_by_what_is_installed_and_what_the_file_is(exported, monkeypatch):
    onnx = exported["onnx"]
    with pytest.raises(SettingsError, match="no engine 'magic'"):
        open_engine(onnx, "magic")
    with pytest.raises(SettingsError, match="does not read"):
        open_engine(Path("part.xml"), "onnxruntime")
    monkeypatch.setattr("hyperspot.runtime.engines.available", lambda: ("torch",))
    with pytest.raises(MissingPackageError, match="needs openvino or onnxruntime"):
        open_engine(onnx)
    assert is_exported(onnx)
    assert not is_exported(Path("part.safetensors"))


def test_nothing_is_reported_to_the_vendor():
    needs("openvino")
    script = "import sys\nfrom hyperspot.runtime.openvino_import import import_openvino\nimport_openvino().Core()\n"
    script += "assert not [name for name in sys.modules if name.startswith('openvino_telemetry')]"
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("form", ["onnx", "openvino"])
def test_the_command_line_predicts_without_torch(detector, exported, photos, form):
    needs("openvino" if form == "openvino" else available()[0])
    script = "import sys; sys.modules['torch'] = None\nfrom hyperspot.cli import main\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", script, "predict", exported[form], photos[0], "--json"],
        capture_output=True,
        text=True,
        check=True,
    )
    found, expected = json.loads(done.stdout), detector.predict(photos[0])
    assert found["score"] == pytest.approx(expected.score, rel=SCORE_TOLERANCE)
    assert found["p_value"] == expected.p_value
