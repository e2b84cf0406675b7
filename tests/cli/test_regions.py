"""Regions of interest and rules on the command line, from training to the result."""

import csv
import io
import json

import numpy as np
import pytest
from PIL import Image

ROI = {"image_size": [128, 128], "include": [[[0, 0], [128, 0], [128, 100], [0, 100]]], "mm_per_pixel": 0.1}


@pytest.fixture(scope="module")
def bad(product, tmp_path_factory):
    """Return a good image with a bright bar inside the region of interest."""
    image = np.array(Image.open(sorted((product / "test" / "good").iterdir())[0]).convert("RGB"))
    image[60:66, 30:90] = (255, 0, 255)
    path = tmp_path_factory.mktemp("bad") / "bad.png"
    Image.fromarray(image).save(path)
    return path


@pytest.fixture(scope="module")
def trained(product, tmp_path_factory):
    """Return the model trained by the command with a region of interest."""
    from typer.testing import CliRunner

    from hyperspot.cli.app import app

    folder = tmp_path_factory.mktemp("roi")
    (folder / "roi.json").write_text(json.dumps(ROI))
    options = ["--short-side", "128", "--false-alarm-rate", "0.2", "--roi", str(folder / "roi.json")]
    done = CliRunner().invoke(
        app, ["train", str(product), "-o", str(folder / "part.safetensors"), *options, "--min-length", "1mm", "--json"]
    )
    assert done.exit_code == 0, done.output
    return folder / "part.safetensors"


def test_predict_states_sizes_and_reasons(trained, bad, run):
    code, out, _ = run("predict", str(trained), str(bad), "--json")
    found = json.loads(out)
    assert code == 0
    assert found["is_anomalous"]
    assert found["reasons"][0].startswith("region 1: length ")
    assert found["regions"][0]["length_mm"] == pytest.approx(0.1 * found["regions"][0]["length_px"])
    code, out, _ = run("predict", str(trained), str(bad), "--min-length", "99mm", "--json")
    found = json.loads(out)
    assert (found["is_anomalous"], found["statistical_is_anomalous"], found["reasons"]) == (False, True, [])
    code, out, _ = run("predict", str(trained), str(bad), "--format", "csv")
    (row,) = csv.DictReader(io.StringIO(out))
    assert json.loads(row["reasons"])[0].startswith("region 1: length ")
    assert json.loads(row["regions"])[0]["area_mm2"] > 0
    code, out, _ = run("predict", str(trained), str(bad))
    assert "mm2" in out
    assert "region 1: length" in out
    assert "accepted by the rules" in run("predict", str(trained), str(bad), "--min-length", "99mm")[1]


def test_recalibrate_takes_another_region(trained, product, bad, tmp_path, run):
    roi = tmp_path / "roi.json"
    roi.write_text(json.dumps({"image_size": [128, 128], "include": [[[0, 70], [128, 70], [128, 128], [0, 128]]]}))
    good, output = str(product / "train" / "good"), str(tmp_path / "other.safetensors")
    code, _, err = run("recalibrate", str(trained), good, "-o", output, "--roi", str(roi), "--false-alarm-rate", "0.1")
    assert code == 0, err
    assert json.loads(run("predict", output, str(bad), "--json")[1])["is_anomalous"] is False
    assert "include" in run("info", output)[1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--min-length", "3 miles"), "'3 miles' is not a length"),
        (("--min-area", "1mm2"), "--mm-per-pixel"),
        (("--roi", "missing.json"), "missing.json cannot be read"),
    ],
)
def test_mistakes_are_named(product, tmp_path, run, options, message):
    code, _, err = run("train", str(product), "-o", str(tmp_path / "part.safetensors"), *options)
    assert code == 1
    assert message in err
    assert "Traceback" not in err
