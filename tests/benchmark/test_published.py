"""The published figures agree with themselves, or a footnote says where they do not."""

import numpy as np
import pytest

from hyperspot.benchmark.published import published

ENTRIES = {entry.label: entry for entry in published().categories}
ROUNDED = 0.05 + 1e-9


def groups():
    return published().groups


@pytest.mark.parametrize("label", ENTRIES)
def test_every_category_is_there(label):
    for figures in ENTRIES[label].figures.values():
        assert set(figures) == set(groups()["all"])
        assert all(30 < value <= 100 for value in figures.values())


@pytest.mark.parametrize("label", [label for label, entry in ENTRIES.items() if entry.printed])
def test_printed_means_follow_from_the_categories(label):
    entry = ENTRIES[label]
    for metric, printed in entry.printed.items():
        for group, value in printed.items():
            mean = np.mean([entry.figures[metric][name] for name in groups()[group]], dtype=np.float64)
            note = entry.printed_differs.get(metric, {}).get(group)
            # CFLOW prints two decimals of values with two decimals.
            agrees = abs(mean - value) <= (0.0101 if label == "CFLOW" else ROUNDED)
            assert agrees != (note is not None), (metric, group, mean, value, note)
            assert note is None or note in published().footnotes


@pytest.mark.parametrize("number", ["2", "3"])
def test_printed_groups_add_up(number):
    for row in published().tables[number].rows:
        for metric, printed in row.figures.items():
            expected = (5 * printed["textures"] + 10 * printed["objects"]) / 15
            differs = metric in row.printed_differs
            assert (abs(expected - printed["all"]) > 0.1 + 1e-9) == differs, (row.label, metric, expected)


def test_cfa_plus_plus_is_the_better_of_two():
    crop, whole, both = ENTRIES["CFA"], ENTRIES["CFA, resize only"], ENTRIES["CFA++"]
    for metric, figures in both.figures.items():
        for name, value in figures.items():
            assert value == max(crop.figures[metric][name], whole.figures[metric][name])


def test_means_of_the_released_readme():
    for label, image, pixel in (("CFA", 99.31, 98.21), ("CFA, resize only", 99.04, 98.45), ("CFA++", 99.53, 98.47)):
        entry = ENTRIES[label]
        assert entry.mean("image_auroc", groups()["all"]) == pytest.approx(image, abs=0.005)
        assert entry.mean("pixel_auroc", groups()["all"]) == pytest.approx(pixel, abs=0.005)


def test_notes_and_sources_exist_and_are_used():
    data = published()
    rows = [*data.categories, *data.means, *(row for table in data.tables.values() for row in table.rows)]
    used = {note for row in rows for note in row.notes}
    used |= {note for row in rows for notes in row.category_notes.values() for note in notes}
    used |= {note for row in rows for metric in row.printed_differs.values() for note in metric.values()}
    assert used == set(data.footnotes)
    named = {row.source for row in (*data.categories, *data.means)} | {one.source for one in data.tables.values()}
    assert named == set(data.sources)


def test_a_mean_is_only_given_where_all_its_categories_were_published():
    entry = ENTRIES["CFA"]
    assert entry.mean("image_auroc", ["bottle", "screw"]) == pytest.approx((100 + 97.3) / 2)
    assert entry.mean("image_auroc", ["bottle", "kolektorsdd"]) is None
    assert entry.mean("aupro_30", ["bottle"]) is None
    assert entry.mean("image_auroc", []) is None


def test_compression_and_ablation_are_those_of_the_paper():
    assert [row.images_per_second for row in published().rows(6)] == [48, 93, 132, 172]
    both = [row for row in published().rows(5) if row.losses == "both"]
    assert {row.backbone: row.figures["image_auroc"]["all"] for row in both} == {
        "resnet18": 98.9,
        "wide_resnet50_2": 99.5,
    }
