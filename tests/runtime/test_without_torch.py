"""What `hyperspot[runtime]` installs is enough to judge: the packages for training are blocked here."""

import importlib.util
import json
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hyperspot.errors import HyperspotError, MissingPackageError
from hyperspot.hardware import native
from hyperspot.images import read_image
from hyperspot.runtime import available
from hyperspot.utils import optional_packages as extras

FROM_TYPER = {"pydantic"}
"""Wanted for training, but always there."""
EXPORTING = {"onnx", "onnx_ir", "onnxscript"}
BLOCKED = sorted((extras.TRAINING | EXPORTING) - FROM_TYPER)
BLOCK = f"import sys\nfor name in {BLOCKED}:\n    sys.modules[name] = None\n"
COMMAND_LINE = BLOCK + "from hyperspot.cli import main\nmain()"
JUDGE = """
from hyperspot import ExportedDetector
from hyperspot.hardware import native
import json
import numpy
verdict = ExportedDetector.load(sys.argv[1], engine=sys.argv[2]).predict(sys.argv[3])
verdict.overlay()
numpy.save(sys.argv[4], verdict.heatmap)
regions = [region.to_dict() for region in verdict.regions]
print(json.dumps({"score": verdict.score, "regions": regions, "search": native.LEVELS[native.level()]}))
"""


def process(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def hyperspot(*arguments: object) -> str:
    done = process(COMMAND_LINE, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def exported(detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("onnxscript") is None:
        pytest.skip("needs hyperspot[export]: onnx and onnxscript")
    from hyperspot.export.exporting import export

    return export(detector, tmp_path_factory.mktemp("exported") / "part.onnx")


@pytest.fixture(scope="module")
def defective(product: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a good photo with a square of noise, which untrained features see, too."""
    photo = read_image(sorted(product.glob("test/good/*.png"))[0])
    photo[40:80, 30:70] = np.random.default_rng(0).integers(0, 256, (40, 40, 3))
    path = tmp_path_factory.mktemp("defective") / "noise.png"
    Image.fromarray(photo).save(path)
    return path


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_library_judges(detector, exported, defective, tmp_path, engine):
    if engine not in available():
        pytest.skip(f"{engine} is not installed")
    done = process(BLOCK + JUDGE, exported, engine, defective, tmp_path / "heatmap.npy")
    assert done.returncode == 0, done.stderr
    found, expected = json.loads(done.stdout), detector.predict(defective)
    assert expected.is_anomalous
    assert expected.regions
    assert found["score"] == pytest.approx(expected.score, rel=1e-5)
    assert len(found["regions"]) == len(expected.regions)
    assert found["search"] == native.LEVELS[native.level()]
    np.testing.assert_allclose(np.load(tmp_path / "heatmap.npy"), expected.heatmap, atol=1e-4 * expected.heatmap.max())


def test_the_command_line_judges(detector, exported, defective, tmp_path):
    said = json.loads(hyperspot("predict", exported, defective, "--out", tmp_path, "--json"))
    assert said["score"] == pytest.approx(detector.predict(defective).score, rel=1e-5)
    assert Path(said["mask"]).is_file()
    assert len(list(tmp_path.iterdir())) == 4


def test_the_command_line_evaluates_and_recalibrates(detector, exported, product, tmp_path):
    report = tmp_path / "report.html"
    figures = json.loads(hyperspot("evaluate", exported, product, "--report", report, "--json"))
    assert figures["image_auroc"] == pytest.approx(detector.evaluate(product).image_auroc, abs=1e-4)
    assert report.is_file()
    changed = tmp_path / f"changed{exported.suffix}"
    good = product / "test" / "good"
    assert json.loads(hyperspot("recalibrate", exported, good, "-o", changed, "--json"))["images"] == 8
    assert changed.is_file()


def test_the_command_line_tells(exported, product):
    assert "predict" in hyperspot("--help")
    assert json.loads(hyperspot("info", exported, "--json"))["settings"]["method"] == "cfa"
    assert json.loads(hyperspot("info", product, "--json"))["layout"] == "mvtec"
    engines = json.loads(hyperspot("info", "--engines", "--json"))["engines"]
    assert list(engines) == [name for name in available() if name != "torch"]


def test_the_command_line_recalibrates(exported, product, tmp_path):
    changed = tmp_path / "changed.onnx"
    rate = ("--false-alarm-rate", 0.2)
    found = json.loads(hyperspot("recalibrate", exported, product / "test" / "good", "-o", changed, *rate, "--json"))
    assert (found["images"], found["false_alarm_rate"]) == (8, 0.2)
    image = sorted(product.glob("test/good/*.png"))[0]
    p_value = json.loads(hyperspot("predict", changed, image, "--json"))["p_value"]
    assert p_value * 9 == pytest.approx(round(p_value * 9)), "the p-value ranks the image among 8 others"


@pytest.mark.parametrize("command", ["train", "demo", "evaluate", "export", "benchmark", "info", "predict"])
def test_a_command_that_takes_more_says_what_to_install(command, product, model_file, defective, tmp_path):
    arguments = {
        "train": (product, "-o", tmp_path / "part.safetensors"),
        "demo": ("--folder", tmp_path / "demo"),
        "evaluate": (model_file, product),
        "export": (model_file, "-o", tmp_path / "part.onnx"),
        "benchmark": (product, "--table", 4, "--out", tmp_path / "runs.jsonl"),
        "info": (model_file,),
        "predict": (model_file, defective),
    }[command]
    done = process(COMMAND_LINE, command, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    doing = f"predicting with the model file {model_file}" if command in ("predict", "evaluate") else "this command"
    install = re.escape(f"which is not installed; install it with {extras.install_command('train')}\n")
    assert re.fullmatch(rf"error: {re.escape(doing)}.* needs (torch|scipy), {install}", done.stderr), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_library_says_what_to_install():
    script = BLOCK + "import hyperspot\ntry: hyperspot.Detector\n"
    script += "except hyperspot.HyperspotError as error: print(isinstance(error, ImportError), error)"
    said = process(script).stdout
    install = f"install it with {extras.install_command('train')}"
    assert said == f"True hyperspot.Detector needs torch, which is not installed; {install}\n"


def test_other_missing_modules_are_told_as_they_are():
    with pytest.raises(ModuleNotFoundError, match="no such thing") as raised:
        extras.explain(ModuleNotFoundError("no such thing", name="nothing.at.all"), "training")
    assert not isinstance(raised.value, HyperspotError)
    explained = extras.explain(ModuleNotFoundError("No module named 'sklearn'", name="sklearn.cluster"), "training")
    assert isinstance(explained, MissingPackageError)
    assert str(explained).startswith("training needs sklearn, which is not installed; install it with `pip install ")


def test_the_list_of_packages_is_that_of_the_extra():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = {"base": project["dependencies"], **project["optional-dependencies"]}
    asked = {extra: {re.split(r"[^\w-]", one)[0] for one in wanted} for extra, wanted in named.items()}
    brought_by = metadata.packages_distributions()
    distributions = {
        distribution.lower().replace("_", "-") for name in extras.TRAINING for distribution in brought_by[name]
    }
    assert distributions == asked["train"]
    assert not asked["train"] & (asked["base"] | asked["runtime"] | asked["onnxruntime"])
