"""Every table from made-up lines, against values worked out by hand."""

import json
import math
import statistics
import xml.etree.ElementTree as ET

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from rich.console import Console

from hyperspot.benchmark.plans import IMAGE_COUNTS, TITLES, Absent
from hyperspot.benchmark.plots import COLORS, MARKERS, Series, plot
from hyperspot.benchmark.plots import draw as draw_plot
from hyperspot.benchmark.protocol import ADDED_SETTINGS, DEFAULT, TILED, key, settings_of
from hyperspot.benchmark.render import Column, Given, Spread, Table
from hyperspot.benchmark.runs import mean_over, spread
from hyperspot.benchmark.tables import BODIES, draw
from hyperspot.errors import DataError, SettingsError


def rows_of(table, **wanted):
    return [row for row in table.rows if all(row.get(name) == value for name, value in wanted.items())]


def parts(spread):
    return spread.mean, spread.deviation, spread.count


def test_spreads_are_sample_deviations_over_seeds_of_means_over_categories():
    found = spread(pd.Series([10.0, None, 30.0]))
    assert (found.mean, found.count) == (pytest.approx(20), 2)
    assert found.deviation == pytest.approx(math.sqrt(200))
    assert spread(pd.Series([0.5])) == Spread(0.5, None, 1)
    assert spread(pd.Series([None], dtype=float)) is None
    values = pd.DataFrame({"a": {0: 90.0, 1: 70.0, 2: 10.0}, "b": {0: 50.0, 1: 90.0}})
    found = mean_over(values, ["a", "b"])
    assert (found.mean, found.count) == (pytest.approx(75), 2)
    assert found.deviation == pytest.approx(statistics.stdev([70, 80]))
    apart = mean_over(pd.DataFrame({"a": {0: 0.2}, "b": {1: 0.4}}), ["a", "b"])
    assert (apart.mean, apart.deviation) == (pytest.approx(0.3), None)
    assert mean_over(values, ["a", "c"]) is None
    assert mean_over(values, []) is None


def test_table_2_compares_means_over_the_same_categories(line):
    lines = [line("patchcore", "bottle", seed, image) for seed, image in ((0, 0.98), (1, 1.0))]
    lines += [line("patchcore", "carpet", seed, image) for seed, image in ((0, 0.90), (1, 0.94))]
    lines += [line("patchcore", "magnetic_tile", 0, 0.5)]
    table = draw(2, lines)
    (objects,) = rows_of(table, what="patchcore", group="objects")
    (textures,) = rows_of(table, what="patchcore", group="textures")
    (everything,) = rows_of(table, what="patchcore", group="all")
    (other,) = rows_of(table, what="patchcore", group="other")
    assert objects["image_auroc"].mean == pytest.approx(99)
    assert textures["image_auroc"].mean == pytest.approx(92)
    assert everything["image_auroc"].mean == pytest.approx(95.5)
    assert everything["image_auroc"].deviation == pytest.approx(statistics.stdev([94, 97]))
    assert parts(other["image_auroc"]) == (pytest.approx(50), None, 1)
    assert everything["published_image"].value == pytest.approx((100 + 98.6) / 2)
    assert everything["paper_image"].value == 99.1
    assert everything["categories"] == "2 of 15"
    assert everything["pixel_auroc"].mean == pytest.approx(90)
    assert everything["original_pixel"].mean == pytest.approx(85)
    assert other["published_image"] is None
    assert (everything["published_backbone"], everything["paper_backbone"]) == ("wide_resnet50_2", "wide_resnet50_2")
    assert rows_of(table, what="spade") == []
    (missing,) = [note for note in table.notes if note.startswith("No run of:")]
    assert "method spade" in missing
    assert "method patchcore" not in missing
    (spade,) = rows_of(draw(2, [line("spade", "bottle", 0, 0.9)]), what="spade", group="all")
    assert any("is not SPADE's" in note for note in spade["paper_image"].notes)


def test_table_3_is_mean_and_deviation_over_versions(line):
    lines = []
    for version, image in enumerate((0.80, 0.82, 0.84, 0.86, 0.88)):
        for seed, shift in ((0, -0.01), (1, 0.01)):
            lines.append(line("padim", "bottle", seed, image + shift, version=version))
    lines.append(line("padim", "bottle", 0, 0.1))
    table = draw(3, lines)
    (row,) = rows_of(table, what="padim", category="bottle")
    assert row["image_auroc"].mean == pytest.approx(84)
    assert row["image_auroc"].deviation == pytest.approx(statistics.stdev([80, 82, 84, 86, 88]))
    assert row["versions"] == "5"
    (vae,) = rows_of(table, what="published VAE")
    assert vae["paper_pro"].value == 27.8
    assert any("pixel AUROC" in note for note in vae["paper_image"].notes)


def test_table_4_marks_development_categories_and_the_difference(line):
    wide = {"backbone": "wide_resnet50_2"}
    lines = [line("cfa released", "screw", seed, image, **wide) for seed, image in ((0, 0.9), (1, 0.92), (2, 0.94))]
    lines += [line("cfa released", "carpet", 0, 0.99, **wide, watched=True, oracle={"image_auroc": 1.0}, history=[])]
    table = draw(4, lines)
    (screw,) = rows_of(table, category="screw (dev.)")
    assert parts(screw["image_auroc"]) == (pytest.approx(92), pytest.approx(2), 3)
    assert screw["difference"] == pytest.approx(92 - 97.3)
    assert screw["oracle"] is None
    (carpet,) = rows_of(table, category="carpet")
    assert carpet["published_image"].value == 99.5
    assert any("misprint" in note or "prints 97.3" in note for note in carpet["published_image"].notes)
    assert carpet["oracle"].mean == pytest.approx(100)
    assert any(note.startswith("Development categories") and "screw" in note for note in table.notes)


def test_a_difference_needs_the_same_backbone(line):
    lines = [line("cfa released", "screw", 0, 0.9), line("cutpaste", "screw", 0, 0.9, backbone="none")]
    table = draw(4, lines)
    (cfa,) = rows_of(table, what="cfa released")
    assert (cfa["published_image"].value, cfa["published_backbone"], cfa["difference"]) == (
        97.3,
        "wide_resnet50_2",
        None,
    )
    (cutpaste,) = rows_of(table, what="cutpaste")
    assert cutpaste["published_backbone"] == "none"
    assert cutpaste["difference"] == pytest.approx(90 - 86.3)


def test_the_detection_rate_comes_first_if_a_line_has_it(line, figures):
    rates = {"promised_false_alarm_rate": 0.01, "detection_rate": 0.8, "observed_false_alarm_rate": 0.02}
    measured = line("padim", "bottle", 0, 1.0, last=figures(1.0, **rates))
    for number in (2, 4, 8, 12):
        assert not any(column.key in rates for column in draw(number, [line("padim", "bottle", 0, 1.0)]).visible)
        table = draw(number, [measured])
        keys = [column.key for column in table.visible]
        assert keys.index("detection_rate") < keys.index("observed_false_alarm_rate") < keys.index("image_auroc")
        (row,) = rows_of(table, what="padim", **({"group": "all"} if number == 2 else {}))
        assert (row["detection_rate"].mean, row["observed_false_alarm_rate"].mean) == (80, 2)


def test_runs_on_fewer_images_have_their_own_row(line):
    few = {"train_images": 32, "reduced": [["training images", 209, 32]]}
    lines = [line("patchcore", "bottle", 0, 0.9), line("patchcore", "bottle", 0, 0.5, **few)]
    lines.append(line("patchcore", "bottle", 1, 0.4, **few, budget="quick"))
    table = draw(4, lines)
    assert {row["what"]: row["image_auroc"].mean for row in table.rows} == {
        "patchcore": pytest.approx(90),
        "patchcore, 32 train images": pytest.approx(50),
        "patchcore, quick": pytest.approx(40),
    }
    notes = [note for note in table.notes if "training images 32 instead of 209" in note]
    assert len(notes) == 2


def test_table_5_means_only_what_every_variant_has(line):
    lines = [line("cfa released", "bottle", 0, 0.9), line("cfa released", "screw", 0, 0.7)]
    lines += [line("cfa released, no descriptor training", "bottle", 0, 0.8)]
    lines += [line("cfa released, fixed radius", "bottle", 0, 0.85)]
    table = draw(5, lines)
    (both,) = rows_of(table, what="cfa released", category="mean of 1 shared")
    (none,) = rows_of(table, losses="none", category="mean of 1 shared")
    (fixed,) = rows_of(table, what="cfa released, fixed radius", category="mean of 1 shared")
    assert both["image_auroc"].mean == pytest.approx(90)
    assert both["paper_image"].value == 98.9
    assert none["paper_pixel"].value == 92.4
    assert fixed["paper_image"] is None


@pytest.mark.parametrize(
    "odd",
    [
        {"changes": {"patches_per_step": 0}},
        {"budget": "quick", "reduced": [["steps", 1500, 150]]},
        {"weights": "random:0"},
        {"backbone": "compact"},
    ],
)
def test_means_of_tables_5_and_6_do_not_shrink_to_what_one_odd_run_has(line, odd):
    lines = [
        line(recipe, category, 0, image, image, images_per_second=10.0)
        for recipe in ("cfa released", "cfa released, no descriptor training", "cfa released, gamma 1/2")
        for category, image in (("bottle", 0.9), ("wood", 0.8))
    ]
    lines.append(line("cfa released", "bottle", 0, 0.99, 0.99, images_per_second=90.0, **odd))
    means = {
        (row["what"], row["backbone"]): (row["category"], row["image_auroc"])
        for row in draw(5, lines).rows
        if row["category"] not in ("bottle", "wood")
    }
    assert len(means) == 3
    for what in ("cfa released", "cfa released, no descriptor training"):
        title, mean = means.pop((what, "resnet18"))
        assert title == "mean of 2 shared"
        assert mean.mean == pytest.approx(85)
    ((title, mean),) = means.values()
    if "backbone" in odd:
        assert (title, mean.mean) == ("mean of 1 shared", pytest.approx(99))
    else:
        assert (title, mean) == ("lacks 1 of 2 shared", None)
    full, half, *others = sorted(draw(6, lines).rows, key=lambda row: (row["categories"] != "2", row["gamma"]))
    for row in (full, half):
        assert row["categories"] == "2"
        assert row["pixel_auroc"].mean == pytest.approx(85)
    (other,) = others
    if "backbone" in odd:
        assert other["pixel_auroc"].mean == pytest.approx(99)
    else:
        assert other["categories"] == "lacks 1 of 2"
        assert [other[name] for name in ("pixel_auroc", "throughput", "speedup")] == [None, None, None]


def test_a_changed_run_of_all_shared_categories_has_a_mean_and_alone_stands_for_itself(line):
    changed = [line("cfa released", name, 0, 0.9, changes={"patches_per_step": 0}) for name in ("bottle", "wood")]
    plain = [line("cfa released", "wood", 0, 0.7), line("cfa released, fixed radius", "wood", 0, 0.6)]
    for lines, title in ((changed + plain, "mean of 1 shared"), (changed, "mean of 2 shared")):
        (row,) = rows_of(draw(5, lines), what="cfa released, patches_per_step=0", category=title)
        assert row["image_auroc"].mean == pytest.approx(90)


def test_table_6_is_throughput_relative_to_no_compression(line, tmp_path):
    lines = [line("cfa released", "bottle", 0, 1.0, 0.97, images_per_second=10.0)]
    lines += [line("cfa released, gamma 1/2", "bottle", 0, 1.0, 0.96, images_per_second=25.0)]
    lines += [line("cfa released, gamma 1/2", "bottle", 1, 1.0, 0.98, images_per_second=5.0, jobs=2)]
    table = draw(6, lines)
    (half,) = rows_of(table, gamma="1/2")
    assert half["pixel_auroc"].mean == pytest.approx(97)
    # The run that had another beside it is not timed while there is one that had not.
    assert half["throughput"] == Spread(25.0, None, 1)
    assert half["speedup"] == pytest.approx(2.5)
    assert half["paper_speedup"] == pytest.approx(93 / 48)
    plot(table, tmp_path / "compression.svg")
    assert ET.parse(tmp_path / "compression.svg").getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_table_7_lists_absent_backbones(line):
    lines = [line("cfa released", "bottle", 0, 0.9), line("cfa released", "bottle", 0, 0.95, backbone="vgg19_bn")]
    table = draw(7, lines, [Absent("backbone", "wide_resnet50_2", "no weights of it here")])
    (missing,) = [note for note in table.notes if note.startswith("No run of:")]
    assert "backbone wide_resnet50_2 (no weights of it here)" in missing
    assert "backbone efficientnet_b5;" in missing
    assert "vgg19_bn" not in missing
    (ours,) = rows_of(table, backbone="vgg19_bn", what="cfa released")
    assert ours["image_auroc"].mean == pytest.approx(95)
    (theirs,) = rows_of(table, backbone="vgg19_bn", what="published CFA++")
    assert theirs["paper_image"].value == 96.2


def test_table_8_shows_accuracy_and_time(line):
    lines = [
        line("padim", name, seed, 0.9, latency_ms=ms) for name, seed, ms in (("bottle", 0, 20.0), ("wood", 0, 40.0))
    ]
    table = draw(8, lines)
    (row,) = rows_of(table, what="padim")
    assert row["latency_ms"].mean == pytest.approx(30)
    assert row["image_auroc"].mean == pytest.approx(90)
    assert row["threads"] == "2"
    crowded = draw(8, [one | {"jobs": 2} for one in lines])
    assert any("2 of the timed runs ran beside others" in note for note in crowded.notes)


def test_table_8_takes_times_from_runs_made_for_them(line):
    cost = line(
        "padim", "wood", 0, None, measure="cost", budget="quick", train_images=200, latency_ms=7.0, precision="bf16"
    )
    fewer = {**cost, "train_images": 25, "latency_ms": 1.0}
    lines = [
        fewer,
        cost,
        fewer,
        line("padim", "bottle", 0, 0.9, latency_ms=20.0, jobs=2),
        line("padim", "wood", 0, 0.8, jobs=2),
    ]
    lines += [line("spade", "bottle", 0, 0.7, latency_ms=9.0, jobs=2)]
    table = draw(8, lines)
    (padim,) = rows_of(table, what="padim")
    assert (padim["latency_ms"].mean, padim["timed_on"]) == (7.0, "wood")
    assert padim["categories"] == "2"
    assert padim["image_auroc"].mean == pytest.approx(85)
    assert not any("reduced (" in note for note in table.notes)
    assert any("backbone in bf16 or f32" in note for note in table.notes)


def test_table_9_subtracts_within_the_same_run(line):
    lines = []
    for seed, last, best in ((0, 0.90, 0.93), (1, 0.96, 0.97)):
        oracle = {"image_auroc": best, "pixel_auroc": 0.95, "aupro_30": 0.9}
        lines.append(line("cfa released", "bottle", seed, last, watched=True, oracle=oracle, history=[{}] * 10))
    lines.append(line("cfa released", "bottle", 2, 0.1))
    lines.append(line("padim", "bottle", 0, 0.9, watched=True, checkpoints=0))
    table = draw(9, lines)
    (row,) = rows_of(table, category="bottle", metric="I-AUROC")
    assert row["last"].mean == pytest.approx(93)
    assert row["best"].mean == pytest.approx(95)
    assert parts(row["adds"]) == (pytest.approx(2), pytest.approx(statistics.stdev([3, 1])), 2)
    assert row["checkpoints"] == "10"
    (padim,) = rows_of(table, what="padim")
    assert "no checkpoint" in padim["metric"]


def test_table_10_shows_what_was_promised(line, figures):
    rates = {"promised_false_alarm_rate": 0.01, "detection_rate": 0.8, "seg_f1": 0.5}
    lines = [
        line("cfa default", "bottle", seed, 1.0, last=figures(1.0, observed_false_alarm_rate=rate, **rates))
        for seed, rate in ((0, 0.0), (1, 0.05))
    ]
    (row,) = draw(10, lines).rows
    assert row["observed_false_alarm_rate"].mean == pytest.approx(2.5)
    assert row["promised_false_alarm_rate"].mean == pytest.approx(1)
    assert row["detection_rate"].mean == pytest.approx(80)
    assert row["good"] == "20"


def test_table_10_has_means_over_categories_and_the_results_at_other_rates(line, figures):
    rates = {"promised_false_alarm_rate": 0.01, "observed_false_alarm_rate": 0.0, "seg_f1": 0.5}
    lines = [
        line(
            "cfa default",
            category,
            0,
            1.0,
            last=figures(1.0, detection_rate=found, mask_area_ratio=area, at_rates={"detection_5": more}, **rates),
        )
        for category, found, more, area in (("bottle", 0.9, 1.0, 1.2), ("screw", 0.5, 0.7, 1.6))
    ]
    bottle, screw, mean = draw(10, lines).rows
    assert [row["category"] for row in (bottle, screw, mean)] == ["bottle", "screw (dev.)", "mean of 2"]
    assert [row["detection_rate"].mean for row in (bottle, screw, mean)] == pytest.approx([90, 50, 70])
    assert [row["detection_5"].mean for row in (bottle, screw, mean)] == pytest.approx([100, 70, 85])
    assert [row["mask_area_ratio"].mean for row in (bottle, screw, mean)] == pytest.approx([120, 160, 140])
    assert [row["good"] for row in (bottle, screw, mean)] == ["20", "20", "40"]


def test_table_11_shows_each_crop_of_the_same_run(line, figures):
    lines = [line("cfa released, fused", "bottle", 0, 0.99, center=figures(0.9), full=figures(0.8))]
    table = draw(11, lines)
    assert [row["image_auroc"].mean for row in table.rows] == [pytest.approx(90), pytest.approx(80), pytest.approx(99)]
    assert [row["crop"] for row in table.rows] == ["center", "full", "fused"]
    assert [row["published_pixel"].value for row in table.rows] == [98.6, 98.9, 98.9]


def test_table_12_has_one_row_per_method_and_one_column_per_category(line, figures):
    rates = {"promised_false_alarm_rate": 0.01, "observed_false_alarm_rate": 0.0}
    lines = [line("padim", name, 0, image, jobs=1, latency_ms=7.0) for name, image in (("wood", 0.9), ("screw", 0.8))]
    calibrated = figures(0.95, detection_rate=0.7, **rates)
    lines += [line("cfa default", name, 0, 0.95, last=calibrated) for name in ("wood", "screw")]
    table = draw(12, lines)
    titles = [column.title for column in table.visible]
    assert titles[2:6] == ["detection rate", "false alarms", "I-AUROC", "ms per image"]
    assert titles[7:9] == ["wood", "screw (dev.)"]
    (padim,) = rows_of(table, what="padim")
    assert (padim["image_auroc wood"].mean, padim["image_auroc screw"].mean) == (90, pytest.approx(80))
    assert (padim["image_auroc"].mean, padim["latency_ms"].mean) == (pytest.approx(85), 7.0)
    (cfa,) = rows_of(table, what="cfa default")
    assert cfa["detection_rate"].mean == pytest.approx(70)


def test_table_1_fits_the_growth_and_evaluates_the_formulas(line, tmp_path):
    cost = {"measure": "cost", "pyramid": [[64, 56, 56], [128, 28, 28], [256, 14, 14]]}
    lines = []
    for count in IMAGE_COUNTS:
        more = {**cost, "train_images": count, "training_seconds": 0.2 * count}
        lines.append(line("cfa released", "bottle", 0, 1.0, kept={}, **more))
        lines.append(line("patchcore", "bottle", 0, 1.0, kept={}, **more | {"training_seconds": 0.01 * count**2}))
        lines.append(line("padim", "bottle", 0, 1.0, kept={"mean": [3136, 100]}, **more))
        lines.append(line("spade", "bottle", 0, 1.0, kept={}, **more))
        lines.append(line("vae", "bottle", 0, 1.0, backbone="none", kept={}, **more | {"pyramid": []}))
    table = draw(1, lines)
    expected = {
        "cfa released": 3136 * 448 * 4e-6,
        "patchcore": 100 * 0.1 * 784 * 1024 * 4e-6,
        "padim": 3136 * 100**2 * 4e-6,
        "spade": 100 * 3136 * 448 * 4e-6,
    }
    for name, megabytes in expected.items():
        (row,) = rows_of(table, what=name, images=100)
        assert row["formula_mb"] == pytest.approx(megabytes)
    assert rows_of(table, what="cfa released", images=200)[0]["growth"] == pytest.approx(1)
    assert rows_of(table, what="patchcore", images=200)[0]["growth"] == pytest.approx(2)
    assert rows_of(table, what="patchcore", images=100)[0]["modeling"] == Given("O(|X| H W D′)")
    assert rows_of(table, what="vae", images=100)[0]["formula_mb"] is None
    plot(table, tmp_path / "complexity.png")
    with Image.open(tmp_path / "complexity.png") as picture:
        assert picture.width > 800


@pytest.mark.parametrize("number", BODIES)
def test_every_table_can_be_drawn_of_nothing(number, tmp_path):
    table = draw(number, [], [Absent("category", "zipper", "not in the data")])
    assert table.heading == f"Table {number}. {TITLES[number]}"
    assert any("category zipper (not in the data)" in note for note in table.notes)
    assert table.markdown().startswith(f"### Table {number}. ")
    for row in table.json_rows():
        json.dumps(row, allow_nan=False)
    if number in (1, 6, 8):
        with pytest.raises(SettingsError, match="no figures"):
            plot(table, tmp_path / "x.svg")


def test_other_settings_other_weights_and_a_reduced_budget_stand_apart(line):
    other = line("padim", "bottle", 0, 0.5)
    other["settings"]["method_settings"]["channels"] = 7
    quick = {"budget": "quick", "reduced": [["steps", 1500, 150]]}
    lines = [line("padim", "bottle", 0, 0.9), other, line("padim", "bottle", 0, 0.1, weights="random:0")]
    lines += [line("cfa released", "bottle", 0, 0.7, **quick), line("padim", "bottle", 1, 0.92, weights=None)]
    table = draw(4, lines)
    assert {row["what"]: row["image_auroc"].mean for row in rows_of(table, category="bottle")} == {
        "cfa released, quick": pytest.approx(70),
        "padim": pytest.approx(91),
        "padim (settings 2)": pytest.approx(50),
        "padim, random:0": pytest.approx(10),
    }
    (note,) = [note for note in table.notes if "reduced (" in note]
    assert "steps 150 instead of 1500" in note
    assert "--budget full" in note


def test_the_same_run_made_twice_counts_once(line):
    table = draw(4, [line("padim", "bottle", 0, 0.5), line("padim", "bottle", 0, 0.9)])
    (row,) = rows_of(table, what="padim", category="bottle")
    assert parts(row["image_auroc"]) == (pytest.approx(90), None, 1)


def test_failed_runs_and_other_data_are_listed(line):
    failed = line("padim", "bottle", 1, 0.0, error="the disk is full")
    moved = line("padim", "wood", 0, 0.2, fingerprint="older images")
    lines = [moved, line("padim", "bottle", 0, 0.9), failed, line("padim", "wood", 0, 0.9)]
    table = draw(4, lines)
    assert any("Failed: padim, bottle, seed 1: the disk is full" in note for note in table.notes)
    assert any("other images of wood" in note for note in table.notes)
    assert rows_of(table, category="wood")[0]["image_auroc"].mean == pytest.approx(90)
    mended = draw(4, [*lines, line("padim", "bottle", 1, 0.9)])
    assert not any("Failed" in note for note in mended.notes)


def test_looks(line):
    columns = (Column("what", "method"), Column("a", "A"), Column("b", "B | C", decimals=1))
    columns = (*columns, Column("c", "C", optional=True))
    rows = (
        {"what": "ours", "a": Spread(91.234, 1.5, 3), "b": -0.01},
        {"what": "theirs", "a": Given(98.76, ("wrong", "old")), "b": Given(97.0, ("old",))},
    )
    table = Table(99, "Looks", columns, rows, ("a note",))
    texts, footnotes = table.texts()
    assert texts == [["ours", "91.23 ± 1.50", "0.0"], ["theirs", "98.8 [1,2]", "97.0 [2]"]]
    assert footnotes == ["[1] wrong", "[2] old"]
    assert table.markdown().endswith("\n\n- [1] wrong\n- [2] old\n- a note\n")
    assert "| method | A | B \\| C |\n|---|---|---|\n| ours |" in table.markdown()
    first = next(table.json_rows())
    assert first["a"] == {"mean": 91.234, "deviation": 1.5, "count": 3}


@pytest.fixture
def everything(line, figures):
    """Return lines that fill every table, with long names."""
    oracle = {
        "watched": True,
        "oracle": {"image_auroc": 1.0, "pixel_auroc": 1.0, "aupro_30": 1.0},
        "history": [{}] * 10,
    }
    rates = {"promised_false_alarm_rate": 0.01, "detection_rate": 0.8, "observed_false_alarm_rate": 0.1, "seg_f1": 0.5}
    cost = {"measure": "cost", "pyramid": [[64, 56, 56], [128, 28, 28], [256, 14, 14]], "kept": {}}
    lines = []
    for recipe in (
        "cfa released",
        "patchcore",
        "cfa released, attraction only, fixed radius 0.7",
        "cfa default",
    ):
        for seed in (0, 1):
            more = oracle if recipe == "cfa released" else {}
            lines.append(line(recipe, "transistor", seed, 0.9, last=figures(0.9 + seed / 10, **rates), **more))
            lines.append(
                line(recipe, "magnetic_tile", seed, 0.9, changes={"patches_per_step": 0} if "cfa" in recipe else {})
            )
            lines.append(line(recipe, "bottle", seed, 0.9, version=seed))
    lines.append(line("cfa released", "bottle", 0, 0.9, train_images=25, **cost))
    lines.append(line("cfa released, fused", "bottle", 0, 0.99, center=figures(0.9), full=figures(0.8)))
    return lines


@pytest.mark.parametrize("width", [80, 100, 160])
@pytest.mark.parametrize("number", BODIES)
def test_no_word_is_split_in_the_terminal(everything, number, width):
    table = draw(number, everything)
    drawn, notes = table.terminal(width)
    page = Console(width=width)
    with page.capture() as shown:
        page.print(drawn)
    text = shown.get()
    assert max(map(len, text.splitlines())) <= width
    dropped = [note for note in notes if note.startswith("Columns that do not fit: ")]
    listed = dropped[0].removeprefix("Columns that do not fit: ").split(" (--")[0].split("; ") if dropped else []
    visible = table.visible[: len(table.visible) - len(listed)]
    assert [column.title for column in table.visible[len(visible) :]] == listed
    assert len(visible) >= 4
    rows, _ = table.texts(visible)
    known = {word for column in visible for word in f"{column.title} {column.short}".split()}
    known |= {word for row in rows for cell in row for word in cell.split()} | set(table.heading.split())
    assert set(text.split()) <= known
    for row in rows:
        for cell in row:
            assert all(word in text.split() for word in cell.split())
    assert len(dropped) == (len(visible) < len(table.visible))


def test_wide_terminals_show_every_column(everything):
    table = draw(2, everything)
    _, notes = table.terminal(400)
    assert not any("do not fit" in note for note in notes)
    _, notes = table.terminal(80)
    (dropped,) = [note for note in notes if "do not fit" in note]
    assert "AUPRO, original" in dropped


def test_a_plot_is_the_same_at_each_drawing_and_names_every_series(tmp_path):
    series = [Series(f"method {number}", ((10.0, 90.0), (100.0 + number, 91.0))) for number in range(12)]
    for suffix in ("svg", "png"):
        first, second = tmp_path / f"first.{suffix}", tmp_path / f"second.{suffix}"
        draw_plot("T & t", "x", "y", series, first)
        draw_plot("T & t", "x", "y", series, second, log_y=False)
        assert first.read_bytes() == second.read_bytes()
    svg = (tmp_path / "first.svg").read_text()
    assert all(f"<!-- method {number} -->" in svg for number in range(12))
    assert "<dc:date>" not in svg
    assert len({(COLORS[n % len(COLORS)], MARKERS[n % len(MARKERS)]) for n in range(77)}) == 77
    with Image.open(tmp_path / "first.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    found = {tuple(pixel) for pixel in pixels[::3].tolist()}
    assert all(tuple(bytes.fromhex(color[1:])) in found for color in COLORS)


def test_mistakes_about_plots_get_one_sentence(tmp_path):
    with pytest.raises(SettingsError, match="no picture"):
        plot(draw(4, []), tmp_path / "x.svg")
    with pytest.raises(SettingsError, match="suffixes"):
        draw_plot("t", "x", "y", [Series("a", ((1.0, 1.0),))], tmp_path / "x.jpg")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="--plot"):
        draw_plot("t", "x", "y", [Series("a", ((1.0, 1.0),))], tmp_path / "file" / "x.svg")
    with pytest.raises(SettingsError, match="no table 13"):
        draw(13, [])


def test_lines_recorded_before_a_setting_existed_are_of_the_same_run():
    settings = settings_of(DEFAULT, backbone="compact", seed=0).model_dump(mode="json")
    older = {name: value for name, value in settings.items() if name not in ADDED_SETTINGS}
    assert len(older) == len(settings) - len(ADDED_SETTINGS)
    line = {"settings": settings, "category": "bottle"}
    assert key({**line, "settings": older}) == key(line)
    tiled = settings_of(TILED, backbone="compact", seed=0).model_dump(mode="json")
    assert key({**line, "settings": tiled}) != key(line)
