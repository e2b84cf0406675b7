"""Every table from lines made up, against values worked out by hand."""

import json
import math
import re
import statistics

import pytest

from hyperspot.benchmark.plans import PHOTO_COUNTS, TITLES, Absent
from hyperspot.benchmark.plots import LETTER, LINE, Series, chart, plot
from hyperspot.benchmark.table import Column, Given, Spread, Table, spread_of_means
from hyperspot.benchmark.tables import BODIES, draw
from hyperspot.errors import SettingsError


def rows_of(table, **wanted):
    return [row for row in table.rows if all(row.get(name) == value for name, value in wanted.items())]


def parts(spread):
    return spread.mean, spread.deviation, spread.count


def test_spreads_are_sample_deviations_over_seeds_of_means_over_categories():
    spread = Spread.of([0.1, None, 0.3], 100.0)
    assert (spread.mean, spread.count) == (pytest.approx(20), 2)
    assert spread.deviation == pytest.approx(math.sqrt(200))
    assert Spread.of([0.5]) == Spread(0.5, None, 1)
    assert Spread.of([None]) is None
    found = spread_of_means([{0: 0.9, 1: 0.7, 2: 0.1}, {0: 0.5, 1: 0.9}], 100.0)
    assert (found.mean, found.count) == (pytest.approx(75), 2)
    assert found.deviation == pytest.approx(statistics.stdev([70, 80]))
    apart = spread_of_means([{0: 0.2}, {1: 0.4}])
    assert (apart.mean, apart.deviation) == (pytest.approx(0.3), None)
    assert spread_of_means([{0: 0.2}, {}]) is None
    assert spread_of_means([]) is None


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
    assert everything["present"] == "2 of 15"
    assert everything["pixel_auroc"].mean == pytest.approx(90)
    assert everything["photo_pixel"].mean == pytest.approx(85)
    assert other["published_image"] is None
    (spade,) = rows_of(table, what="spade")
    assert spade["present"] == "no run"
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
    lines = [line("cfa released", "screw", seed, image) for seed, image in ((0, 0.9), (1, 0.92), (2, 0.94))]
    lines += [line("cfa released", "carpet", 0, 0.99, watched=True, oracle={"image_auroc": 1.0}, history=[])]
    table = draw(4, lines)
    (screw,) = rows_of(table, category="screw (dev.)")
    assert parts(screw["image_auroc"]) == (pytest.approx(92), pytest.approx(2), 3)
    assert screw["difference"] == pytest.approx(92 - 97.3)
    assert screw["oracle"] is None
    (carpet,) = rows_of(table, category="carpet")
    assert carpet["published"].value == 99.5
    assert any("misprint" in note or "prints 97.3" in note for note in carpet["published"].notes)
    assert carpet["oracle"].mean == pytest.approx(100)
    assert any(note.startswith("Development categories") and "screw" in note for note in table.notes)


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


def test_table_6_is_throughput_relative_to_no_compression(line):
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
    picture = plot(table)
    assert picture.count("<polyline") == 1
    assert 'xmlns="http://www.w3.org/2000/svg"' in picture


def test_table_7_tells_why_a_backbone_is_absent(line):
    lines = [line("cfa released", "bottle", 0, 0.9), line("cfa released", "bottle", 0, 0.95, backbone="vgg19_bn")]
    table = draw(7, lines, [Absent("backbone", "wide_resnet50_2", "no weights of it here")])
    (wide,) = rows_of(table, backbone="wide_resnet50_2")
    assert wide["categories"] == "no weights of it here"
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
    assert "<circle" in plot(table)
    crowded = draw(8, [one | {"jobs": 2} for one in lines])
    assert any("2 of the timed runs were made beside others" in note for note in crowded.notes)


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
    assert padim["categories"] == "bottle, wood"
    assert padim["image_auroc"].mean == pytest.approx(85)
    assert not any("reduced budget" in note for note in table.notes)
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
    told = {"promised_false_alarm_rate": 0.01, "detection_rate": 0.8, "seg_f1": 0.5}
    lines = [
        line("cfa default, calibrated", "bottle", seed, 1.0, last=figures(1.0, observed_false_alarm_rate=rate, **told))
        for seed, rate in ((0, 0.0), (1, 0.05))
    ]
    (row,) = draw(10, lines).rows
    assert row["observed"].mean == pytest.approx(2.5)
    assert row["promised"].mean == pytest.approx(1)
    assert row["good"] == "20"


def test_table_11_shows_each_view_of_the_same_run(line, figures):
    lines = [line("cfa released, fused", "bottle", 0, 0.99, crop=figures(0.9), whole=figures(0.8))]
    table = draw(11, lines)
    assert [row["image_auroc"].mean for row in table.rows] == [pytest.approx(90), pytest.approx(80), pytest.approx(99)]
    assert [row["published_pixel"].value for row in table.rows] == [98.6, 98.9, 98.9]


def test_table_1_fits_the_growth_and_evaluates_the_formulas(line):
    cost = {"measure": "cost", "pyramid": [[64, 56, 56], [128, 28, 28], [256, 14, 14]]}
    lines = []
    for count in PHOTO_COUNTS:
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
        (row,) = rows_of(table, what=name, photos=100)
        assert row["formula_mb"] == pytest.approx(megabytes)
    assert rows_of(table, what="cfa released", photos=200)[0]["growth"] == pytest.approx(1)
    assert rows_of(table, what="patchcore", photos=200)[0]["growth"] == pytest.approx(2)
    assert rows_of(table, what="patchcore", photos=100)[0]["modeling"] == Given("O(|X| H W D′)")
    assert rows_of(table, what="vae", photos=100)[0]["formula_mb"] is None
    assert plot(table).count("<polyline") == 5


def test_names_of_near_points_stand_apart():
    points = [(10.0, 90.0), (10.5, 90.1), (11.0, 89.9), (300.0, 70.0)]
    picture = chart("t", "x", "y", [Series(f"a rather long name {n}", (one,)) for n, one in enumerate(points)])
    places = [
        (float(x), float(y)) for x, y in re.findall(r'<text x="([\d.]+)" y="([\d.]+)">a rather long name', picture)
    ]
    assert len(places) == len(points)
    width = LETTER * len("a rather long name 0")
    for number, (x, y) in enumerate(places):
        for other, (u, v) in enumerate(places):
            assert number == other or abs(x - u) >= width or abs(y - v) >= LINE


@pytest.mark.parametrize("number", BODIES)
def test_every_table_can_be_drawn_of_nothing(number):
    table = draw(number, [], [Absent("category", "zipper", "not in the data")])
    assert table.heading == f"Table {number}. {TITLES[number]}"
    assert "No category zipper: not in the data." in table.notes
    assert table.markdown().startswith(f"### Table {number}. ")
    for row in table.json_rows():
        json.dumps(row, allow_nan=False)
    if number in (1, 6, 8):
        with pytest.raises(SettingsError, match="no figure"):
            plot(table)


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
    (note,) = [note for note in table.notes if "reduced budget" in note]
    assert "steps 150 instead of 1500" in note
    assert "--budget full" in note


def test_the_same_run_made_twice_counts_once(line):
    table = draw(4, [line("padim", "bottle", 0, 0.5), line("padim", "bottle", 0, 0.9)])
    (row,) = rows_of(table, what="padim", category="bottle")
    assert parts(row["image_auroc"]) == (pytest.approx(90), None, 1)


def test_failed_runs_and_other_photos_are_told(line):
    failed = line("padim", "bottle", 1, 0.0, error="the disk is full")
    moved = line("padim", "wood", 0, 0.2, fingerprint="older photos")
    lines = [moved, line("padim", "bottle", 0, 0.9), failed, line("padim", "wood", 0, 0.9)]
    table = draw(4, lines)
    assert any("Failed: padim, bottle, seed 1: the disk is full" in note for note in table.notes)
    assert any("other photos of wood" in note for note in table.notes)
    assert rows_of(table, category="wood")[0]["image_auroc"].mean == pytest.approx(90)
    mended = draw(4, [*lines, line("padim", "bottle", 1, 0.9)])
    assert not any("Failed" in note for note in mended.notes)


def test_looks(line):
    columns = (Column("what", "method"), Column("a", "A"), Column("b", "B | C", 1))
    rows = (
        {"what": "ours", "a": Spread(91.234, 1.5, 3), "b": -0.01},
        {"what": "theirs", "a": Given(98.76, ("wrong", "old")), "b": Given(97.0, ("old",))},
    )
    table = Table(99, "Looks", columns, rows, ("a note",))
    assert table.texts() == [["ours", "91.23 ± 1.50", "0.0"], ["theirs", "98.8 [1,2]", "97.0 [2]"]]
    assert table.footnotes() == ["[1] wrong", "[2] old", "a note"]
    assert "| method | A | B \\| C |\n|---|---|---|\n| ours |" in table.markdown()
    first = next(table.json_rows())
    assert first["a"] == {"mean": 91.234, "deviation": 1.5, "count": 3}


def test_a_chart_places_points_by_their_values():
    from hyperspot.benchmark.plots import Series

    picture = chart("T & t", "x", "y", [Series("one", ((1.0, 0.0), (10.0, 5.0), (100.0, 10.0)), line=True)], log_x=True)
    path = picture.split('<polyline points="')[1].split('"')[0]
    points = [tuple(map(float, point.split(","))) for point in path.split()]
    assert points[1][0] - points[0][0] == pytest.approx(points[2][0] - points[1][0], abs=0.11)
    assert points[0][1] - points[1][1] == pytest.approx(points[1][1] - points[2][1], abs=0.11)
    assert "T &amp; t" in picture
    with pytest.raises(SettingsError, match="no picture"):
        plot(draw(4, []))
    with pytest.raises(SettingsError, match="no table 12"):
        draw(12, [])
