"""The command line as a person and as a script meet it."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

FIELDS = {
    "image_auroc", "pixel_auroc", "aupro_30", "aupro_05", "aupimo", "pixel_ap", "image_f1_max", "pixel_f1_max",
    "seg_f1", "promised_false_alarm_rate", "observed_false_alarm_rate", "images", "seconds", "operating_points",
    "advice",
}  # fmt: skip

HEAVY = {"torch", "numpy", "scipy", "sklearn", "pydantic", "PIL", "jinja2", "safetensors", "huggingface_hub"}


CLI = (
    "app", "benchmark", "console", "demo", "evaluate", "export", "info", "options", "part", "part_summaries", "predict",
    "progress", "recalibrate", "roi", "serve", "settings_options", "summaries", "train", "update",
)  # fmt: skip


def test_help_is_made_without_heavy_libraries():
    """Counted, not timed: a clock measures how busy the machine is as well."""
    script = (
        "import sys; sys.argv = ['hyperspot', '--help']\nfrom hyperspot.cli import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.split())
    assert {name for name in loaded if name.startswith("hyperspot.")} == {
        f"hyperspot.{name}"
        for name in (
            "choices",
            "cli",
            *(f"cli.{module}" for module in CLI),
            "errors",
            "utils",
            "utils.optional_packages",
        )
    }
    assert {name.partition(".")[0] for name in loaded - set(sys.stdlib_module_names)} & HEAVY == set()
    assert len(loaded) < 400, "as of 2026 it takes 230 modules, those of Python itself, rich and typer included"
    for command in ("demo", "train", "predict", "evaluate", "recalibrate", "update", "benchmark", "info"):
        assert command in done.stdout


def test_train_predict_evaluate_info(run, product, tmp_path):
    model = tmp_path / "part.safetensors"
    code, out, _ = run(
        "train", product, "-o", model, "--weights", "random:0", "--short-side", 64, "--set", "steps=2",
        "--false-alarm-rate", 0.2, "--json",
    )  # fmt: skip
    assert code == 0
    assert json.loads(out)["model"] == str(model)

    code, out, _ = run("predict", model, product / "test" / "good", "--out", tmp_path / "out", "--json")
    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert len(lines) == 8
    assert {"image", "score", "p_value", "is_anomalous", "regions", "heatmap", "mask", "milliseconds"} <= set(lines[0])
    assert len(list((tmp_path / "out").glob("*.overlay.png"))) == 8

    heated = ("predict", model, product / "test" / "good" / "000.png", "--overlay", "side-by-side")
    assert run(*heated, "--out", tmp_path / "wide", "--false-alarm-rate", 0.5)[0] == 0
    (wide,) = (tmp_path / "wide").glob("*.overlay.png")
    with Image.open(wide) as drawn, Image.open(product / "test" / "good" / "000.png") as image:
        assert drawn.width > 3 * image.width
    code, out, _ = run(*heated, "--out", tmp_path / "small", "--overlay-format", "jpeg", "--json")
    assert code == 0
    with Image.open(json.loads(out)["overlay"]) as drawn:
        assert drawn.format == "JPEG"
    code, _, err = run(*heated)
    assert code == 2
    assert "give --out FOLDER" in err
    code, _, err = run(*heated, "--out", tmp_path / "never", "--false-alarm-rate", 0.001)
    assert code == 1
    assert "the smallest possible rate is" in err

    code, out, _ = run("evaluate", model, product, "--json")
    figures = json.loads(out)
    assert code == 0
    assert set(figures) >= FIELDS
    assert figures["images"] == 17
    assert (tmp_path / "part.product.report.html").is_file()

    code, out, _ = run("info", model, "--json")
    assert code == 0
    assert json.loads(out)["settings"]["short_side"] == 64
    code, out, _ = run("info", product, "--json")
    assert code == 0
    assert json.loads(out)["layout"] == "mvtec"
    for readable in (model, product):
        assert run("info", readable)[0] == 0


def test_info_lists_the_products_of_a_folder(run, product, tmp_path):
    for name in ("nut9", "nut10"):
        shutil.copytree(product, tmp_path / name)
    code, out, err = run("info", tmp_path, "--json")
    assert (code, err) == (0, "")
    assert [json.loads(line)["name"] for line in out.splitlines()] == ["nut9", "nut10"]
    (tmp_path / "nut10" / "ground_truth" / "lost").mkdir()
    shutil.copy(product / "train" / "good" / "000.png", tmp_path / "nut10" / "ground_truth" / "lost" / "0.png")
    code, out, err = run("info", tmp_path)
    assert code == 0
    rows = [line.split() for line in out.splitlines()[-2:]]
    assert [row[:5] for row in rows] == [[name, "mvtec", "24", "8", "9"] for name in ("nut9", "nut10")]
    assert err == "warning: nut10: ground_truth/lost/0.png is a mask without an image; it is left out\n"
    (tmp_path / "nut8" / "train" / "good").mkdir(parents=True)
    code, out, err = run("info", tmp_path, "--json")
    assert code == 1
    assert len(out.splitlines()) == 2
    assert err.startswith("error: ")
    assert "nut8 holds no image" in err


def test_info_decodes_everything_where_asked(run, product, model_file, tmp_path):
    root = shutil.copytree(product, tmp_path / "nut")
    code, out, _ = run("info", root, "--check", "--json")
    assert code == 0
    assert json.loads(out)["damaged"] == []
    cut = root / "train" / "good" / "000.png"
    cut.write_bytes(cut.read_bytes()[:-100])
    assert run("info", root)[0] == 0
    code, out, err = run("info", root, "--check")
    assert code == 1
    assert "decoded" in out
    assert "damaged" not in out
    assert err.splitlines()[-1].startswith(f"error: {cut} is damaged")
    code, out, _ = run("info", root, "--check", "--json")
    assert code == 1
    assert [sentence.partition(" ")[0] for sentence in json.loads(out)["damaged"]] == [str(cut)]
    assert run("info", model_file, "--check")[0] == 2


def test_anomalies_can_fail_the_command(run, detector, product, tmp_path):
    model = detector.save(tmp_path / "part.safetensors")
    calls = [verdict.is_anomalous for verdict in detector.predict_many(sorted(product.glob("test/*/*.png")))]
    assert any(calls)
    photos = [product / "test" / folder.name for folder in sorted((product / "test").iterdir())]
    assert run("predict", model, *photos, "--fail-on-anomaly")[0] == 3
    assert run("predict", model, *photos)[0] == 0


def test_one_bad_photo_stops_nothing(run, model_file, product, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    good = sorted((product / "test" / "good").iterdir())[:2]
    code, out, err = run("predict", model_file, good[0], broken, good[1], "--json")
    assert code == 1
    assert [json.loads(line)["image"] for line in out.splitlines()] == [str(photo) for photo in good]
    assert err.count("error:") == 1
    assert "broken.png" in err


def test_each_kind_of_warning_on_photos_is_told_of_once(run, model_file, product, tmp_path):
    for number, photo in enumerate(sorted((product / "test" / "good").iterdir())[:3]):
        gray = np.asarray(Image.open(photo).convert("L")).astype(np.uint16)
        Image.fromarray(gray * np.uint16(16)).save(tmp_path / f"{number}.png")
        Image.open(photo).save(tmp_path / f"{number}.jpg", exif=b"Exif\0\0no such thing")
    (tmp_path / "cut.tiff").write_bytes(b"II*\0\x08\0\0\0\x09\0")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        code, out, err = run("predict", model_file, tmp_path, "--json")
    assert code == 1
    assert len(out.splitlines()) == 6
    assert err.count("arning:") == 2, "none of Pillow's, which name no photo"
    assert ".png has 16 bits and uses 12" in err
    assert ".jpg has unreadable EXIF data" in err
    assert err.count("error:") == 1


def test_photos_of_one_name_do_not_overwrite_each_other(run, model_file, product, tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").write_bytes(sorted((product / "test" / "good").iterdir())[0].read_bytes())
    assert run("predict", model_file, tmp_path / "a", tmp_path / "b" / "*.png", "--out", tmp_path / "out")[0] == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("*.json")) == ["1-2.json", "1.json"]


def test_a_list_on_stdin_is_read(run, model_file, product, monkeypatch):
    photos = sorted((product / "test" / "good").iterdir())[:3]
    listed = b"\xef\xbb\xbf" + b"\r\n\n".join(os.fsencode(photo) for photo in photos)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(listed)))
    code, out, _ = run("predict", model_file, "-", "--json")
    assert code == 0
    assert len(out.splitlines()) == 3


def test_a_list_that_is_no_text_or_closed_is_a_mistake(run, model_file, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe.png\n")))
    code, _, err = run("predict", model_file, "-")
    assert code == 1
    assert "does not exist" in err
    monkeypatch.setattr("sys.stdin", None)
    code, _, err = run("predict", model_file, "-")
    assert code == 1
    assert "no list on stdin" in err


@pytest.mark.parametrize(
    "name", ["[red]x[b].png", ":car:.png", "line\nbreak.png", "\x1b[31m.png", os.fsdecode(b"\xff.png")]
)
def test_file_names_of_any_kind_are_told_as_they_are(run, model_file, product, tmp_path, name):
    photo = tmp_path / name
    photo.write_bytes(sorted((product / "test" / "good").iterdir())[0].read_bytes())
    code, out, _ = run("predict", model_file, photo)
    assert code == 0
    assert len(out.splitlines()) == 1
    assert out.rstrip().endswith(name.encode("unicode_escape").decode())
    photo.unlink()
    code, _, err = run("predict", model_file, photo)
    assert code == 1
    assert name.encode("unicode_escape").decode() in err.splitlines()[-1]
    code, out, _ = run("predict", model_file, sorted((product / "test" / "good").iterdir())[0], "--json")
    assert json.loads(out)


def test_a_terminal_without_unicode_is_no_error(model_file):
    done = subprocess.run(
        [sys.executable, "-m", "hyperspot", "info", str(model_file)],
        capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, check=True,
    )  # fmt: skip
    assert b"mask_floor" in done.stdout


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")  # noqa: PTH110
def test_a_full_disk_is_told_in_one_sentence(model_file):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        command = [sys.executable, "-m", "hyperspot", "info", str(model_file), "--json"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("error: no space left")
    assert "Traceback" not in done.stderr


def test_links_in_circles_are_walked_once(run, model_file, product, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(sorted((product / "test" / "good").iterdir())[0].read_bytes())
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    for named in ([tmp_path, "-r"], [tmp_path / "**" / "*.png"]):
        code, out, _ = run("predict", model_file, *named, "--json")
        assert code == 0
        assert len(out.splitlines()) == 1


@pytest.mark.parametrize("name", ["part.onnx", "part.xml"])
def test_exported_files_are_described_evaluated_and_recalibrated(run, model_file, product, tmp_path, name):
    exported = tmp_path / name
    assert run("export", model_file, "-o", exported)[0] == 0
    code, out, _ = run("info", exported, "--json")
    assert code == 0
    assert json.loads(out)["settings"]["method"] == "cfa"
    assert run("info", exported)[0] == 0
    expected = json.loads(run("evaluate", model_file, product, "--json")[1])
    for rate, alarms in ((None, expected["observed_false_alarm_rate"]), (0.5, None)):
        options = [] if rate is None else ["--false-alarm-rate", rate]
        code, out, _ = run("evaluate", exported, product, "--json", *options)
        found = json.loads(out)
        assert code == 0
        assert found["image_auroc"] == expected["image_auroc"]
        assert found["promised_false_alarm_rate"] == (rate or 0.2)
        assert found["observed_false_alarm_rate"] == alarms or found["threshold"] < expected["threshold"]
    changed = tmp_path / f"changed{exported.suffix}"
    code, out, _ = run("recalibrate", exported, product / "test" / "good", "-o", changed, "--json")
    assert code == 0
    summary = json.loads(out)
    assert summary["images"] == 8
    assert summary["threshold"] != summary["threshold_before"]
    code, out, _ = run("predict", changed, product / "test" / "good", "--json")
    scores = sorted(json.loads(line)["score"] for line in out.splitlines())
    assert json.loads(run("info", changed, "--json")[1])["decision_rule"]["scores"] == pytest.approx(scores, rel=1e-5)
    code, _, err = run("recalibrate", exported, product / "test" / "good", "-o", changed)
    assert code == 1
    assert "already exists" in err


def test_a_model_file_is_recalibrated(run, model_file, product, tmp_path):
    changed = tmp_path / "changed.safetensors"
    code, out, _ = run(
        "recalibrate", model_file, product / "test" / "good", "-o", changed, "--false-alarm-rate", 0.25, "--json"
    )
    assert code == 0
    assert json.loads(out)["false_alarm_rate"] == 0.25
    alarms = [
        json.loads(line)["is_anomalous"]
        for line in run("predict", changed, product / "test" / "good", "--json")[1].splitlines()
    ]
    assert sum(alarms) <= 0.25 * 9
    code, _, err = run("recalibrate", model_file, product / "test" / "good", "-o", tmp_path / "x.onnx")
    assert code == 1
    assert ".safetensors" in err


def test_nothing_is_overwritten_silently(run, model_file, product, tmp_path, monkeypatch):
    image = sorted((product / "test" / "good").iterdir())[0]
    assert run("predict", model_file, image, "--out", tmp_path / "out")[0] == 0
    code, _, err = run("predict", model_file, image, "--out", tmp_path / "out")
    assert code == 1
    assert "already exists" in err
    assert "--overwrite" in err
    assert run("predict", model_file, image, "--out", tmp_path / "out", "--overwrite")[0] == 0
    monkeypatch.chdir(tmp_path)
    (tmp_path / "product.safetensors").write_bytes(b"mine")
    code, _, err = run("train", product)
    assert code == 1
    assert "product.safetensors already exists" in err
    assert (tmp_path / "product.safetensors").read_bytes() == b"mine"
    code, _, err = run("train", product, "-o", "part.onnx")
    assert code == 1
    assert "hyperspot export" in err


@pytest.mark.parametrize("chosen", ["csv", "coco", "yolo"])
def test_results_come_in_the_formats_of_other_tools(run, model_file, product, tmp_path, chosen):
    images = sorted(product.glob("test/*/*.png"))
    code, out, _ = run("predict", model_file, *images, "--format", "jsonl")
    expected = [json.loads(line) for line in out.splitlines()]
    code, out, _ = run("predict", model_file, *images, "--format", chosen, "--out", tmp_path / "out")
    assert code == 0
    if chosen == "csv":
        rows = list(csv.DictReader(io.StringIO(out)))
        assert [row["image"] for row in rows] == [one["image"] for one in expected]
        assert [json.loads(row["regions"]) for row in rows] == [one["regions"] for one in expected]
    elif chosen == "coco":
        document = json.loads(out)
        assert [one["file_name"] for one in document["images"]] == [one["image"] for one in expected]
        assert len(document["annotations"]) == sum(len(one["regions"]) for one in expected) > 0
    else:
        counts = [
            len((tmp_path / "out" / "labels" / f"{Path(one['json']).stem}.txt").read_text().splitlines())
            for one in map(
                json.loads, run("predict", model_file, *images, "--json", "--out", tmp_path / "again")[1].splitlines()
            )
        ]
        assert counts == [len(one["regions"]) for one in expected]
        assert run("predict", model_file, images[0], "--format", "yolo")[0] == 2


def test_stdin_is_answered_line_by_line(model_file, product):
    images = sorted((product / "test" / "good").iterdir())[:3]
    command = [sys.executable, "-m", "hyperspot", "predict", str(model_file), "-", "--json"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        for image in images:
            process.stdin.write(f"{image}\n")
            process.stdin.flush()
            # Answered before the next line is written.
            assert json.loads(process.stdout.readline())["image"] == str(image)
        process.stdin.close()
    assert process.returncode == 0


def test_no_work_is_done_where_its_result_cannot_be_kept(run, product, model_file, tmp_path):
    """The data do not exist, but it is the place of the result that is refused first, before any work."""
    for place in (tmp_path, tmp_path / "no" / "m.safetensors", "/dev/null"):
        code, _, err = run("train", tmp_path / "missing", "-o", place)
        assert code == 1
        assert str(place if place != tmp_path / "no" / "m.safetensors" else tmp_path / "no") in err
    code, _, err = run("evaluate", model_file, product, "--report", tmp_path)
    assert code == 1
    assert "judging" not in err
    assert list(tmp_path.iterdir()) == []
    assert not Path("/dev/null").is_file()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["train", "{empty}", "-o", "{tmp}/m.safetensors"], "empty"),
        (["train", "{tmp}/missing"], "missing"),
        (["train", "{product}", "-o", "{tmp}/no/m.safetensors"], "no"),
        (["train", "{product}", "--method", "magic"], "magic"),
        (["train", "{product}", "--set", "gamma_c"], "name=value"),
        (["train", "{product}", "--set", "gama_c=2"], "gama_c"),
        (["train", "{product}", "--short-side", "100"], "short_side"),
        (["train", "{product}", "--weights", "{tmp}/none.safetensors"], "none.safetensors"),
        (["train", "{product}", "--false-alarm-rate", "0.0001"], "0.0001"),
        (["predict", "{tmp}/none.safetensors", "{product}/test/good"], "none.safetensors"),
        (["predict", "{model}", "{tmp}/nothing.png"], "nothing.png"),
        (["predict", "{model}", "{empty}"], "empty"),
        (["evaluate", "{model}", "{product}/train/good"], "test"),
        (["info", "{tmp}/missing"], "missing"),
        (["info", "{product}/train/good/000.png"], "000.png"),
        (["info", "{product}", "--layout", "csv"], "CSV"),
        (["train", "{product}", "--set", "alpha=inf"], "alpha"),
        (["train", "{product}", "--false-alarm-rate", "5e-324"], "good images"),
        (["predict", "{empty}", "{product}/test/good"], "is a folder"),
        (["predict", "{model}", "{product}/test/good", "--engine", "tpu"], "tpu"),
        (["predict", "{model}", "{tmp}/" + "x" * 300], "too long"),
    ],
)
def test_mistakes_get_one_sentence_and_exit_code_1(run, product, model_file, tmp_path, arguments, named):
    (tmp_path / "empty").mkdir()
    places = {"tmp": tmp_path, "product": product, "model": model_file, "empty": tmp_path / "empty"}
    code, out, err = run(*(argument.format(**places) for argument in arguments))
    assert code == 1
    assert out == ""
    assert err.strip().splitlines()[-1].startswith("error:")
    assert named in err
    assert "Traceback" not in err


def test_wrong_usage_is_exit_code_2(run):
    assert run("predict")[0] == 2
    assert run("train", "here", "--aspect", "round")[0] == 2
    code, _, err = run("train", "")
    assert code == 2
    assert "empty" in err


def test_demo_refuses_weights_that_cannot_be_used_before_it_makes_photos(run, tmp_path):
    damaged = tmp_path / "compact.safetensors"
    damaged.write_bytes(b"no weights")
    for weights in (tmp_path / "nope", damaged, "random:x"):
        code, _, err = run("demo", "--folder", tmp_path / "demo", "--weights", weights)
        assert code == 1
        assert str(weights) in err
    assert not (tmp_path / "demo").exists()


def test_demo_finds_its_defects_without_a_network(run, tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("the demo asked for the network")

    monkeypatch.delenv("HYPERSPOT_WEIGHTS", raising=False)
    monkeypatch.setenv("HYPERSPOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)
    code, out, _ = run("demo", "--folder", tmp_path / "demo", "--json")
    figures = json.loads(out)
    assert code == 0
    assert figures["images"] == 40
    assert (tmp_path / "demo" / "report.html").is_file()
    assert figures["image_auroc"] > 0.95
    assert figures["pixel_auroc"] > 0.95
