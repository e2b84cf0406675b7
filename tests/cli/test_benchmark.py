"""The command from images to table, on a made-up product with untrained features."""

import json
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pytest

from hyperspot import Detector
from hyperspot.benchmark import measuring, plans
from hyperspot.benchmark.measuring import measure
from hyperspot.benchmark.oracle import Oracle
from hyperspot.benchmark.protocol import PAPER_METHODS, Run, method_order, on_budget, settings_of
from hyperspot.benchmark.rd_copies import randomized
from hyperspot.data import load_mask, open_dataset
from hyperspot.data.demo_product.product_set import make_product_set
from hyperspot.data.rd_mvtec import rd
from hyperspot.errors import DataError, SettingsError
from hyperspot.images import InputSize, read_image
from hyperspot.methods import METHODS
from hyperspot.utils.progress import SILENT


@pytest.fixture(scope="module")
def products(tmp_path_factory):
    """Return a folder of two small products, one of them with an unreadable image."""
    root = tmp_path_factory.mktemp("products")
    make_product_set(root / "bottle", train=8, good=4, defective=6, size=64)
    shutil.copytree(root / "bottle", root / "broken")
    (root / "broken" / "train" / "good" / "003.png").write_bytes(b"no image")
    return root


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    """Take three timings only: no test here is about times."""
    monkeypatch.setattr(measuring, "TIMED_SECONDS", 0.0)


@pytest.fixture
def run(run):
    return partial(run, "benchmark")


def test_runs_tables_resuming_and_failures(run, products, tmp_path):
    out = tmp_path / "lines.jsonl"
    asked = ("--method", "padim", "--seeds", 0, "--out", out)
    code, printed, err = run(products, "--table", 4, *asked, "--weights", "random:0", "--json")
    rows = [json.loads(text) for text in printed.splitlines()]
    assert code == 1
    assert {row["category"] for row in rows} >= {"bottle"}
    assert rows[0]["what"] == "padim, random:0"
    assert 0 <= rows[0]["image_auroc"]["mean"] <= 100
    assert any("Failed: padim, broken" in note for note in rows[0]["notes"])
    assert "error: 1 run failed" in err
    lines = [json.loads(text) for text in out.read_text().splitlines()]
    good = next(line for line in lines if "error" not in line)
    assert {"fingerprint", "command", "versions", "seed", "last", "seconds", "peak_memory_mb", "threads"} <= good.keys()
    assert good["weights"] == "random:0"
    assert good["bank_mb"] > 0
    assert good["latency_ms"] > 0
    assert str(tmp_path) not in json.dumps(good)

    code, printed, err = run(products, "--table", 4, *asked, "--weights", "random:0", "--category", "bottle,none")
    assert code == 0
    assert "0 runs to do, 1 already recorded" in err
    assert "category none (not in the data)" in printed

    code, printed, _ = run("--from", out, "--table", 4, "--table", 8, "--markdown")
    assert code == 0
    assert printed.count("### Table") == 2
    assert "| bottle | padim, random:0 | resnet18 | 1 |" in printed

    for suffix, start in ((".svg", b"<?xml"), (".png", b"\x89PNG")):
        picture = tmp_path / f"latency{suffix}"
        assert run("--from", out, "--table", 8, "--plot", picture)[0] == 0
        assert picture.read_bytes().startswith(start)

    code, printed, _ = run("--from", out, "--table", 4, "--category", "bottle,zebra")
    assert code == 0
    (missing,) = [text for text in printed.splitlines() if "category zebra" in text]
    assert missing.startswith("No run of: method cfa; ")
    assert missing.endswith("; category zebra.")


def test_limits_of_images_are_named_in_the_table(run, products, tmp_path):
    asked = (products, "--table", 4, "--category", "bottle", "--method", "padim", "--seeds", 0, "--weights", "random:0")
    out = tmp_path / "lines.jsonl"
    limits = ("--max-train-images", 5, "--max-test-images", 4)
    code, printed, _ = run(*asked, *limits, "--out", out, "--markdown")
    assert code == 0
    assert "| padim, 5 train images, 4 test images, random:0 |" in printed
    assert "reduced (training images 5 instead of 8, test images 4 instead of 10)" in printed
    (line,) = [json.loads(text) for text in out.read_text().splitlines()]
    assert line["last"]["images"] == 4
    assert 0 < line["last"]["good_images"] < 4
    assert "--max-train-images 5 --max-test-images 4" in line["command"]
    assert "0 runs to do, 1 already recorded" in run(*asked, *limits, "--out", out)[2]
    assert "1 run to do, 0 already recorded" in run(*asked, "--out", out)[2]


def test_test_images_are_spread_over_good_and_anomalous(products):
    test = open_dataset(products / "bottle").test
    for count in range(2, len(test)):
        chosen = measuring._spread_out(test, count)
        assert len({sample.path for sample in chosen}) == count
        assert {sample.label for sample in chosen} == {0, 1}
    assert measuring._spread_out(test, 99) is test


def test_the_other_commands_need_neither_pandas_nor_matplotlib():
    program = "import sys; sys.modules['pandas'] = sys.modules['matplotlib'] = None; "
    program += "import hyperspot.cli.app, hyperspot.detector.detector, hyperspot.evaluation, hyperspot.report"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_pandas_the_command_names_the_extra(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    code, out, err = run("--from", "lines.jsonl")
    assert (code, out) == (1, "")
    assert "the benchmark needs pandas" in err
    assert "[benchmark]" in err


def test_the_figures_are_those_of_the_detector(products):
    settings = settings_of("padim", backbone="resnet18", seed=0)
    dataset = open_dataset(products / "bottle")
    run = Run("padim", "bottle", settings, dataset.fingerprint(), "random:0")
    found = measure(run, products, "bottle", "random:0", SILENT)
    expected = Detector.fit(dataset, settings=settings, weights="random:0").evaluate(dataset).to_dict()
    for name in ("image_auroc", "pixel_auroc", "aupro_30", "at_input"):
        # Images that are ready run together, and the size of a batch changes the last bits.
        assert found["last"][name] == pytest.approx(expected[name], abs=1e-5)
    assert "oracle" not in found
    assert found["bank_mb"] * 1e6 == pytest.approx(
        4 * sum(np.prod(shape) for shape in found["kept"].values()), rel=0.02
    )


def test_the_oracle_sees_ten_checkpoints_and_changes_nothing(products):
    settings = settings_of("cfa released", backbone="resnet18", seed=0, changes={"steps": 20, "levels": (4,)})
    dataset = open_dataset(products / "bottle")
    plain = Run("cfa released", "bottle", settings, dataset.fingerprint(), "random:0")
    watched = Run(**{**vars(plain), "oracle": True})
    last = measure(plain, products, "bottle", "random:0", SILENT)["last"]
    found = measure(watched, products, "bottle", "random:0", SILENT)
    assert found["last"]["at_input"] == last["at_input"]
    assert found["last"]["image_auroc"] == last["image_auroc"]
    assert len(found["history"]) == found["checkpoints"] == 10
    assert found["training_seconds"] is None
    for name in ("image_auroc", "pixel_auroc", "aupro_30"):
        values = [one[name] for one in found["history"]]
        final = last[name] if name == "image_auroc" else last["at_input"][name]
        assert values[-1] == pytest.approx(final, abs=1e-6)
        assert found["oracle"][name] == max(values)


def test_a_method_without_checkpoints_has_no_oracle(products):
    settings = settings_of("padim", backbone="resnet18", seed=0)
    run = Run("padim", "bottle", settings, "x", "random:0", oracle=True, measure="cost", train_images=4)
    found = measure(run, products, "bottle", "random:0", SILENT)
    assert found["watched"] is True
    assert found["checkpoints"] == 0
    assert "oracle" not in found
    assert found["training_seconds"] > 0
    assert "last" not in found
    dataset = open_dataset(products / "bottle")
    assert Oracle(dataset, InputSize.for_sizes([(64, 64)], 64, "keep"), 4.0).best() == {}
    with pytest.raises(DataError, match="9 were asked for"):
        measure(Run(**{**vars(run), "train_images": 9}), products, "bottle", "random:0", SILENT)


def test_randomized_images_and_masks_share_their_draw(products):
    dataset = open_dataset(products / "bottle")
    with randomized(dataset, 2) as turned:
        assert (len(turned.train), len(turned.test)) == (len(dataset.train), len(dataset.test))
        assert [photo.label for photo in turned.test].count(1) == 6
        by_stem = {photo.path.stem: photo for photo in turned.test}
        for number, photo in enumerate(dataset.test, len(dataset.train)):
            image = read_image(photo.path)
            mask = load_mask(photo, *image.shape[:2]) if photo.masks else None
            key = f"bottle/{photo.path.relative_to(dataset.root).as_posix()}"
            expected, expected_mask = rd(image, mask, key=key, version=2)
            found = by_stem[f"{number:05}"]
            np.testing.assert_array_equal(read_image(found.path), expected)
            if expected_mask is not None:
                np.testing.assert_array_equal(load_mask(found, *expected.shape[:2]), expected_mask)
    assert not turned.root.exists()
    with randomized(dataset, None) as same:
        assert same is dataset


def asked(**more):
    categories = (plans.Category("bottle", "bottle", "x", 60, 40), plans.Category("wood", "wood", "y", 60, 40))
    return plans.Asked(
        **{"data": ".", "categories": categories, "methods": tuple(METHODS), "backbones": {"resnet18": "abc"}} | more
    )


def test_plans_have_the_runs_that_tables_are_made_of(tmp_path):
    def runs(table, **more):
        return [task.run for task in plans.plan(table, asked(data=tmp_path, **more))]

    counts = {one.train_images for one in runs(1)}
    assert counts == {25, 50, 60}
    assert {one.category for one in runs(1)} == {"bottle"}
    assert {one.measure for one in runs(1)} == {"cost"}
    assert {one.version for one in runs(3)} == set(range(5))
    assert {(one.settings.short_side, one.settings.crops) for one in runs(3)} == {(224, "full")}
    assert {one.settings.method_settings.gamma_c for one in runs(6)} == {1, 2, 4, 8}
    assert {one.settings.seed for one in runs(4)} == {0, 1, 2}
    assert {one.settings.method for one in runs(4)} == set(METHODS)
    assert all(one.oracle for one in runs(9))
    assert not any(one.oracle for one in runs(3, oracle=True))
    assert all(task.timed for task in plans.plan(6, asked(data=tmp_path)))
    timed = [task.run for task in plans.plan(8, asked(data=tmp_path)) if task.timed]
    assert {(one.category, one.settings.seed, one.measure) for one in timed} == {("bottle", 0, "cost")}
    assert {one.recipe for one in timed} == {one.recipe for one in runs(8)}
    assert len(runs(8)) == len(runs(4)) + len(timed)
    quick = runs(4, budget="quick", methods=("cfa", "patchcore"), seeds=(0,))
    images = ("training images", 60, 32)
    assert {one.recipe: (one.budget, one.reduced, one.train_images) for one in quick} == {
        "cfa released": ("quick", (("steps", 1500, 150),), None),
        "cfa default": ("quick", (images,), 32),
        "patchcore": ("quick", (images,), 32),
    }
    limited = runs(4, methods=("patchcore",), seeds=(0,), max_train_images=40, max_test_images=9)
    assert {(one.train_images, one.test_images, one.budget) for one in limited} == {(40, 9, "full")}
    assert {one.train_images for one in runs(1, max_train_images=30)} == {25, 30}
    assert {one.recipe for one in runs(12)} == {one.recipe for one in runs(4)}


def test_methods_are_taken_from_the_registry(monkeypatch):
    found, absent = plans.find_methods([])
    assert set(found) == set(METHODS)
    assert set(found) | {one.name for one in absent} == set(PAPER_METHODS) | set(METHODS)
    monkeypatch.setitem(METHODS, "novel", METHODS["padim"])
    assert plans.find_methods(["novel"]) == (["novel"], [])
    assert "novel" in plans.recipes_for(8, METHODS)
    assert method_order(["novel", "spade", "cfa"]) == ["cfa", "spade", "novel"]
    with pytest.raises(SettingsError, match="magic"):
        plans.find_methods(["magic"])


def test_nothing_to_run_for_want_of_weights_is_a_mistake(run, products, tmp_path):
    asked = ("--table", 4, "--method", "padim", "--out", tmp_path / "lines.jsonl")
    code, printed, err = run(products, *asked, "--weights", tmp_path)
    assert (code, printed) == (1, "")
    assert "there is no run to make (resnet18: " in err
    assert "--backbone compact needs no weights" in err


def test_a_quick_run_without_a_training_length_is_limited_to_few_images():
    settings = settings_of("spade", backbone="resnet18", seed=0)
    run = Run("spade", "bottle", settings, "x", "abc")
    assert on_budget(run, "quick", 32) == run
    assert on_budget(run, "quick", 33).reduced == (("training images", 33, 32),)


def test_backbones_without_weights_are_absent(tmp_path):
    found, absent = plans.find_backbones(["resnet18", "vgg19_bn"], str(tmp_path))
    assert found == {}
    assert [one.name for one in absent] == ["resnet18", "vgg19_bn"]
    assert plans.find_backbones(["resnet18"], "random:3") == ({"resnet18": "random:3"}, [])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--table", "2"], "--from"),
        (["{products}", "--table", "13"], "no table 13"),
        (["{products}", "--from", "x.jsonl"], "DATA"),
        (["--from", "{tmp}/none.jsonl"], "none.jsonl"),
        (["{products}", "--method", "magic"], "magic"),
        (["{products}", "--seeds", "one"], "one"),
        (["{products}", "--category", "none"], "none"),
        (["{products}", "--set", "ratio=0.01"], "--method"),
        (["{products}", "--json", "--markdown"], "--markdown"),
        (["{products}", "--table", "4", "--plot", "x.svg"], "--plot"),
        (["{tmp}/nowhere"], "nowhere"),
    ],
)
def test_mistakes_get_one_sentence(run, products, tmp_path, arguments, named):
    places = {"products": products, "tmp": tmp_path}
    given = [argument.format(**places) for argument in arguments]
    code, out, err = run(*given, "--out", tmp_path / "lines.jsonl")
    assert code == 1
    assert out == ""
    assert err.strip().splitlines()[-1].startswith("error:")
    assert named in err


def test_a_method_of_the_paper_that_this_version_lacks_is_named(run, products, tmp_path, monkeypatch):
    monkeypatch.delitem(METHODS, "vae")
    code, out, err = run(products, "--method", "vae", "--out", tmp_path / "lines.jsonl")
    assert (code, out) == (1, "")
    assert "vae: not in this version" in err
