"""`hyperspot part` as a person and as a script meet it."""

import json
import shutil

import pytest

from hyperspot import open_part_set


def test_train_and_info(run, part_folder, tmp_path):
    model = tmp_path / "part.hyperspot"
    options = ("--short-side", 64, "--false-alarm-rate", 0.2, "--method", "padim", "--models", "shared")
    code, out, err = run("part", "train", part_folder, "-o", model, *options, "--json")
    assert code == 0, err
    trained = json.loads(out)
    assert (trained["model"], trained["parts"], trained["models"]) == (str(model), 24, "shared")
    assert trained["views"] == {"left": ["left"], "right": ["right"]}
    code, out, _ = run("part", "info", model, "--json")
    assert json.loads(out)["calibration"]["false_alarm_rate"] == 0.2
    code, out, _ = run("part", "info", model)
    assert code == 0
    assert "shared" in out
    code, out, _ = run("part", "info", part_folder, "--json")
    assert json.loads(out)["test_defective"] == 9
    assert run("part", "info", part_folder)[0] == 0


def test_train_with_tiles(run, part_folder, tmp_path):
    command = ("part", "train", part_folder, "-o", tmp_path / "part.hyperspot", "--smallest-defect")
    options = ("--short-side", 64, "--method", "padim", "--tile", 128, "--json")
    code, _, err = run(*command, "0.5mm", *options)
    assert code == 1
    assert "the views of a part have none; give it in pixels" in err
    code, out, err = run(*command, "8px", *options)
    assert code == 0, err
    assert run("part", "predict", json.loads(out)["model"], part_folder / "test" / "stain")[0] == 0
    assert set(json.loads(out)["tiles"]) == {"left", "right"}


@pytest.mark.filterwarnings("default::hyperspot.CalibrationWarning")
def test_few_parts_are_warned_of_once(run, part_folder, tmp_path):
    few = tmp_path / "few"
    for folder in sorted((part_folder / "train" / "good").iterdir())[:10]:
        shutil.copytree(folder, few / folder.name)
    command = ("part", "train", few, "-o", tmp_path / "part.hyperspot", "--short-side", 64, "--method", "padim")
    code, out, err = run(*command, "--group-by", "folder")
    assert code == 0, err
    assert "10 good parts" in out
    assert err.count("good images calibrate the threshold") == 1


def test_predict(run, part_file, part_folder, tmp_path):
    stains = part_folder / "test" / "stain"
    code, out, err = run("part", "predict", part_file, stains, "--out", tmp_path / "out", "--json")
    assert code == 0, err
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["part"] for line in lines] == ["000", "001", "002"]
    assert all(line["is_anomalous"] for line in lines)
    assert (tmp_path / "out" / "000" / "left.mask.png").is_file()
    assert lines[0]["overlay"] == str(tmp_path / "out" / "000.overlay.png")
    code, _, err = run("part", "predict", part_file, stains, "--out", tmp_path / "out")
    assert code == 1
    assert err.count("choose another --out, or pass --overwrite") == 3
    (tmp_path / "out" / "001.json").unlink()
    shutil.rmtree(tmp_path / "out" / "001")
    (tmp_path / "out" / "001.overlay.png").unlink()
    code, out, err = run("part", "predict", part_file, stains, "--out", tmp_path / "out")
    assert (code, len(out.splitlines())) == (1, 3)
    assert [part for part in ("000", "001", "002") if f"error: the part {part} was not saved" in err] == ["000", "002"]
    assert (tmp_path / "out" / "001.json").is_file()
    code, out, err = run("part", "predict", part_file, stains / "001", "--json")
    assert (code, json.loads(out)["part"]) == (0, "001")
    assert json.loads(out)["score"] == pytest.approx(lines[1]["score"], rel=1e-4)
    code, out, _ = run("part", "predict", part_file, stains, "--fail-on-anomaly", "--false-alarm-rate", 0.3)
    assert code == 3
    assert out.splitlines()[0].startswith("ANOMALOUS  score ")
    assert run("part", "predict", part_file, stains, "--overlay", "heatmap")[0] == 2


def test_predict_with_a_missing_view(run, part_file, part_folder, tmp_path):
    good = shutil.copytree(part_folder / "test" / "good", tmp_path / "good")
    (good / "003" / "left.png").unlink()
    code, out, err = run("part", "predict", part_file, good)
    assert code == 1
    assert len(out.splitlines()) == 7
    assert "error: the part 003 lacks the view left; add it, or allow missing views" in err
    code, out, err = run("part", "predict", part_file, good, "--allow-missing")
    assert code == 0, err
    assert "missing left  003" in out.splitlines()[3]
    (good / "003" / "left.png").write_bytes(b"no image")
    assert run("part", "predict", part_file, good)[0] == 1


def test_evaluate(run, part_file, part_folder, tmp_path):
    report = tmp_path / "report.html"
    code, out, err = run("part", "evaluate", part_file, part_folder, "--report", report, "--json")
    assert code == 0, err
    figures = json.loads(out)
    assert figures["promised_false_alarm_rate"] == 0.2
    assert set(figures["views"]) == {"left", "right"}
    assert figures["report"] == str(report)
    assert report.is_file()
    code, out, _ = run("part", "evaluate", part_file, part_folder, "--report", report)
    assert code == 0
    rows = {line.split()[0]: line for line in out.splitlines() if line}
    assert " of 9 " in rows["part"]
    assert " of 8 " in rows["left"]
    assert "promised for the part: at most 20.00 % false alarms" in out
    assert "good images" not in out


def test_recalibrate_and_export(run, part_file, part_folder, tmp_path):
    changed = tmp_path / "changed.hyperspot"
    command = ("part", "recalibrate", part_file, part_folder, "-o", changed, "--false-alarm-rate", 0.1, "--json")
    code, out, err = run(*command)
    assert code == 0, err
    assert (json.loads(out)["parts"], json.loads(out)["false_alarm_rate"]) == (24, 0.1)
    assert run(*command)[0] == 1
    code, _, err = run("part", "recalibrate", tmp_path / "none.hyperspot", part_folder, "-o", tmp_path / "part.onnx")
    assert code == 1
    assert "part.onnx does not end in .hyperspot; choose another name" in err
    line = tmp_path / "line.hyperspot"
    code, out, err = run("part", "export", changed, "-o", line)
    assert code == 0, err
    code, out, err = run("part", "predict", line, part_folder / "test" / "good", "--json", "--engine", "onnxruntime")
    assert code == 0, err
    assert len(out.splitlines()) == 8


@pytest.mark.parametrize("command", ["train", "predict"])
def test_patterns(run, part_file, part_folder, tmp_path, command):
    parts = open_part_set(part_folder).train if command == "train" else open_part_set(part_folder).test
    for number, part in enumerate(parts):
        for view, path in part.images.items():
            shutil.copy(path, tmp_path / f"{view}-{number:03}.png")
    pattern = ("--pattern", r"(?P<view>\w+)-(?P<part>\d+)")
    if command == "train":
        options = ("-o", tmp_path / "part.hyperspot", "--short-side", 64, "--method", "padim")
        code, _, err = run("part", "train", tmp_path, *options, *pattern)
    else:
        code, _, err = run("part", "predict", part_file, tmp_path, *pattern)
    assert code == 0, err


@pytest.mark.parametrize("command", [("predict", "test/good/000/left.png"), ("info",)])
def test_other_commands_name_the_right_one(run, part_file, part_folder, command, monkeypatch):
    monkeypatch.chdir(part_folder)
    name, *rest = command
    code, _, err = run(name, part_file, *rest)
    assert code == 1
    assert "holds the models of the views of a part; open it with `hyperspot part`" in err
