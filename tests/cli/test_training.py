"""What `train` and `info` say about the images, and `predict` and `evaluate` about a shift."""

import copy
import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hyperspot import Calibration, Detector, read_image

QUICK = ("--short-side", 96, "--false-alarm-rate", 0.2)


@pytest.fixture
def data(product: Path, tmp_path: Path) -> Path:
    """Return the product with a noisy copy of a training image, in a folder of its own."""
    folder = shutil.copytree(product, tmp_path / "product")
    image = read_image(folder / "train" / "good" / "003.png")
    noisy = np.clip(image + np.random.default_rng(0).normal(0, 2, image.shape), 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(folder / "train" / "good" / "003b.png")
    return folder


def test_train_names_copies_and_the_images_that_set_the_threshold(data: Path, tmp_path: Path, run):
    code, out, err = run("train", data, "-o", tmp_path / "part.safetensors", *QUICK)
    assert code == 0
    warning = next(line for line in err.splitlines() if line.startswith("warning:"))
    assert "train/good/003.png and train/good/003b.png look like one part" in warning
    assert "--group-by" in warning
    assert "check: these images set the threshold; are they good? train/good/" in out
    assert not (tmp_path / "part.training.html").exists()


def test_the_report_stands_beside_the_model(data: Path, tmp_path: Path, run):
    code, out, err = run("train", data, "-o", tmp_path / "part.safetensors", *QUICK, "--report", "--json")
    assert code == 0, err
    printed = json.loads(out)
    page = tmp_path / "part.training.html"
    assert printed["report"] == str(page)
    text = page.read_text("utf-8")
    assert printed["threshold_images"]
    for name in printed["threshold_images"]:
        assert name in text
    assert printed["estimated_power"]["images"] == 60
    assert f"{100 * printed['estimated_power']['detection_rate']:.1f} %" in text


def test_images_of_one_group_are_no_copies_of_each_other(data: Path, tmp_path: Path, run):
    code, _, err = run(
        "train", data, "-o", tmp_path / "part.safetensors", *QUICK, "--group-by", r"^(\d+)", "--report", "--json"
    )
    assert code == 0, err
    assert "look like one part" not in err
    assert '<h2 id="groups">' in (tmp_path / "part.training.html").read_text("utf-8")


def test_a_rule_that_does_not_fit_is_an_error_before_training(data: Path, tmp_path: Path, run):
    code, _, err = run("train", data, "-o", tmp_path / "part.safetensors", *QUICK, "--group-by", r"lot(\d+)")
    assert code == 1
    assert "000.png does not match --group-by" in err
    assert not (tmp_path / "part.safetensors").exists()


def test_info_names_near_duplicates_across_splits(data: Path, run):
    shutil.move(data / "train" / "good" / "003b.png", data / "test" / "good" / "003b.png")
    _, out, _ = run("info", data, "--json")
    assert json.loads(out)["problems"] == [
        "train/good/003.png and test/good/003b.png look like one part, and are training and test images at once; keep "
        "one"
    ]


@pytest.fixture
def good(product: Path, tmp_path: Path) -> Path:
    """Return 40 new good images of the product, none of which was trained on."""
    from hyperspot import make_product_set

    return make_product_set(tmp_path / "new", seed=5, train=0, good=40, defective=0, size=128) / "test" / "good"


@pytest.fixture
def shifted_model(detector, tmp_path: Path) -> Path:
    """Return a model whose calibration images scored far lower than new images, but for a few that let those pass."""
    scores = detector.decision_rule.calibration.scores
    calibration = Calibration.from_scores("split", 0.05, [*(scores / 2), *[10 * scores.max()] * 3])
    rule = replace(detector.decision_rule, calibration=calibration)
    return detector.with_decision_rule(rule).save(tmp_path / "shifted.safetensors")


def test_predict_warns_once_if_passed_images_score_higher(model_file: Path, shifted_model: Path, good: Path, run):
    code, _, err = run("predict", model_file, good, "--false-alarm-rate", 0.05)
    assert code == 0
    assert "the calibration images" not in err
    code, _, err = run("predict", shifted_model, good)
    assert code == 0
    lines = [line for line in err.splitlines() if line.startswith("warning:")]
    assert len(lines) == 1
    assert "the last 40 passed images score higher than the calibration images (p = " in lines[0]
    assert lines[0].endswith("recalibrate with current good images")


def test_a_model_trained_with_groups_is_not_tested(shifted_model: Path, good: Path, tmp_path: Path, run):
    grouped = Detector.load(shifted_model)
    grouped.record = {**grouped.record, "data": {**grouped.record["data"], "groups": 8}}
    model = grouped.save(tmp_path / "grouped.safetensors")
    code, _, err = run("predict", model, good)
    assert code == 0
    assert "the calibration images" not in err
    _, out, _ = run("evaluate", model, good.parents[1], "--json")
    assert json.loads(out)["drift"] is None


def test_its_recalibration_warns_in_one_line(detector, good: Path, tmp_path: Path, run):
    grouped = copy.copy(detector)
    grouped.record = {**detector.record, "data": {**detector.record["data"], "groups": 8}}
    model = grouped.save(tmp_path / "grouped.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, _, err = run("recalibrate", model, good, "-o", tmp_path / "changed.safetensors")
    assert code == 0
    assert next(line for line in err.splitlines() if "trained with groups" in line).startswith("warning: the model was")


def test_evaluate_tells_the_shift_of_good_images(model_file: Path, shifted_model: Path, good: Path, run):
    data = good.parents[1]
    _, out, _ = run("evaluate", model_file, data, "--json")
    usual = json.loads(out)
    assert usual["drift"] > 0.001
    assert not any("score higher" in sentence for sentence in usual["advice"])
    _, out, _ = run("evaluate", shifted_model, data, "--json")
    shifted = json.loads(out)
    assert shifted["drift"] < 0.001
    assert any("good test images score higher than the calibration images" in one for one in shifted["advice"])


def test_tiles_are_chosen_described_and_refused(run, product, tmp_path):
    model = tmp_path / "tiled.safetensors"
    train = ("train", product, "-o", model, "--short-side", 64, "--false-alarm-rate", 0.2, "--json")
    code, out, _ = run(*train, "--tile", "auto")
    assert code == 0
    assert json.loads(out)["tiles"].startswith("1 tile of 128 x 128 pixels per image, and the whole image")
    code, out, _ = run("predict", model, product / "test" / "good", "--json")
    assert code == 0
    assert all("score" in json.loads(line) for line in out.splitlines())
    code, out, _ = run("info", model, "--json")
    assert json.loads(out)["input_size"]["height"] == 128
    code, _, err = run(*train, "--tile", 64, "--smallest-defect", "0.4mm")
    assert code == 1
    assert "--mm-per-pixel" in err
    code, out, err = run(*train, "--tile", 64, "--smallest-defect", "0.4mm", "--mm-per-pixel", "0.02")
    assert code == 0, err
    assert "at 1.25 image pixels per tile pixel" in json.loads(out)["tiles"]
    code, _, err = run(*train, "--tile", "some")
    assert code == 1
    assert "tile" in err
