"""`hyperspot update`: what it writes, names, refuses and undoes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hyperspot import Detector

pytestmark = pytest.mark.filterwarnings("default::hyperspot.errors.CalibrationWarning")


@pytest.fixture
def model(model_file: Path, tmp_path: Path) -> Path:
    """Return a copy of the model file, in a folder of its own."""
    return Path(shutil.copy(model_file, tmp_path / "part.safetensors"))


@pytest.fixture
def new(product: Path, tmp_path: Path) -> Path:
    """Return eight new good images, a training image and a bad image."""
    folder = tmp_path / "new"
    shutil.copytree(product / "test" / "good", folder)
    shutil.copy(product / "train" / "good" / "003.png", folder / "old.png")
    image = np.array(Image.open(folder / "000.png"))
    image[40:80, 40:80] = np.random.default_rng(0).integers(0, 256, (40, 40, 3))
    Image.fromarray(image).save(folder / "bad.png")
    return folder


def test_an_update_in_place_keeps_the_version_before_and_is_undone(model: Path, new: Path, run):
    before = model.read_bytes()
    code, out, err = run("update", model, new, "--json")
    assert code == 0, err
    printed = json.loads(out)
    previous = model.with_name("part.previous.safetensors")
    assert (printed["model"], printed["previous"]) == (str(model), str(previous))
    assert (printed["images"], printed["known"]) == (9, ["old.png"])
    assert printed["odd"][0] == "bad.png"
    assert printed["calibration_images"] == 24 + 9
    assert "old.png was learned before and is left out" in err
    assert previous.read_bytes() == before
    assert len(Detector.load(model, device="cpu").decision_rule.calibration.scores) == 33
    code, out, _ = run("update", model, "--undo")
    assert code == 0
    assert "version before" in out
    assert model.read_bytes() == before
    assert not previous.exists()
    code, _, err = run("update", model, "--undo")
    assert code == 1
    assert "part.previous.safetensors does not exist" in err


def test_another_file_leaves_the_model_as_it_is(model: Path, new: Path, tmp_path: Path, run):
    before = model.read_bytes()
    output = tmp_path / "new.safetensors"
    code, out, err = run("update", model, new, "-o", output)
    assert code == 0, err
    assert "check: the model before calls" in out
    assert "are they good? bad.png" in out
    assert model.read_bytes() == before
    assert not model.with_name("part.previous.safetensors").exists()
    code, _, err = run("update", model, new, "-o", output)
    assert code == 1
    assert "new.safetensors already exists" in err
    code, out, _ = run("info", output)
    assert code == 0
    assert "Updates" in out
    row = next(line for line in out.partition("Updates")[2].splitlines() if line.startswith("20"))
    assert row.split()[1:] == ["9", "1", "1", "no", "new"]
    code, _, err = run("update", output, new)
    assert code == 1
    assert "all 10 images were learned before" in err


def test_a_dry_run_writes_nothing(model: Path, new: Path, tmp_path: Path, run):
    there = sorted(tmp_path.iterdir())
    before = model.read_bytes()
    code, out, err = run("update", model, new, "--dry-run", "--json")
    assert code == 0, err
    printed = json.loads(out)
    assert (printed["model"], printed["seconds"], printed["images"]) == (None, None, 9)
    assert "bad.png" in printed["odd"]
    assert printed["threshold"] == printed["threshold_before"]
    assert model.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == there
    assert "nothing was written" in run("update", model, new, "--dry-run")[1]


def test_what_cannot_be_updated_is_one_sentence(model: Path, new: Path, tmp_path: Path, run):
    exported = tmp_path / "part.onnx"
    assert run("export", model, "-o", exported)[0] == 0
    code, _, err = run("update", exported, new)
    assert code == 1
    assert "is an exported file; give the model file that it was exported from" in err
    assert run("update", model)[0] == 2
    assert run("update", model, new, "--undo")[0] == 2
