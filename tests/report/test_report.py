"""The report, read as text and opened in a browser."""

import re
import urllib.request
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from hyperspot import metrics
from hyperspot.data import open_dataset
from hyperspot.decision.calibration import Calibration
from hyperspot.errors import DataError
from hyperspot.evaluation import evaluate
from hyperspot.metrics.intervals import wilson_interval
from hyperspot.report import GALLERY, render, write_report
from hyperspot.report.charts import PLOT_HEIGHT, TOP, score_histogram
from hyperspot.utils.progress import SILENT
from tests.brightness import BrightnessPredictor, write_part


@pytest.fixture(scope="module")
def evaluation(detector, product):
    return detector.evaluate(product, command="hyperspot evaluate part.safetensors 'a <b>'")


@pytest.fixture(scope="module")
def page(evaluation, tmp_path_factory):
    return write_report(evaluation, tmp_path_factory.mktemp("report") / "report.html")


class Sources(HTMLParser):
    """Collects the sources, the alternative texts and the unfolded text of a page."""

    def __init__(self):
        super().__init__()
        self.found = []
        self.alternatives = []
        self.folded = 0
        self.text = ""
        self.tags = []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.folded += tag in {"details", "script", "style"}
        self.alternatives += [value for name, value in attributes if name == "alt"]
        self.found += [value for name, value in attributes if name in {"src", "href"}]

    def handle_endtag(self, tag):
        self.folded -= tag in {"details", "script", "style"}

    def handle_data(self, data):
        if not self.folded:
            self.text += data


def parsed(text):
    sources = Sources()
    sources.feed(text)
    return sources


def test_provenance_is_visible_without_unfolding(page, evaluation, product):
    shown = parsed(page.read_text("utf-8")).text.partition("How this was made")[2]
    for part in (
        "hyperspot evaluate part.safetensors 'a <b>'",
        str(product),
        "24 good images of product",
        "compact.safetensors",
    ):
        assert part in shown
    settings = evaluation.made_by["settings"]
    for name in [*settings, *settings["method_settings"]]:
        assert (name in shown) is (name != "method_settings")
    assert "fingerprint" not in shown


def test_every_picture_has_an_alternative_text(page, evaluation):
    seen = parsed(page.read_text("utf-8")).alternatives
    assert len(seen) == len(set(seen)) == 3 * len(evaluation.image_results)
    for result in evaluation.image_results:
        name = f"{result.path.parent.name}/{result.path.name}"
        assert {f"image {name}", f"heatmap of {name}"} < set(seen)


def test_report_needs_nothing_but_itself(page, evaluation):
    sources = parsed(page.read_text("utf-8"))
    assert len(sources.found) == 3 * len(evaluation.image_results)
    for source in sources.found:
        with urllib.request.urlopen(source) as picture:
            assert picture.headers.get_content_type() == "image/jpeg"
            assert picture.read(3) == b"\xff\xd8\xff"


def test_report_shows_all_metrics_and_images(page, evaluation):
    text = page.read_text("utf-8")
    for name, value in evaluation.metrics.items():
        metric = metrics.get(name)
        row = f"{metric.title}<small>{metric.description}.</small></th><td>{metric.format(value, 1)}</td>"
        assert row.replace("'", "&#39;") in text
    for result in evaluation.image_results:
        assert f"<h3>{result.path.parent.name}/{result.path.name}</h3>" in text


def test_report_is_escaped(page, tmp_path):
    text = page.read_text("utf-8")
    assert "a &lt;b&gt;" in text
    assert "a <b>" not in text
    root = write_part(tmp_path / "<i>part", {"<u>crack": [0.9]}, [0.1])
    hostile = render(evaluate(BrightnessPredictor(), open_dataset(root), progress=SILENT))
    assert not {"i", "u"} & {tag for tag, _ in parsed(hostile).tags}
    assert "&lt;i&gt;part" in hostile
    assert '<th scope="row">&lt;u&gt;crack</th>' in hostile


def test_the_first_figure_is_the_detection_rate_at_the_promised_rate(page, evaluation):
    shown = parsed(page.read_text("utf-8")).text
    rate = metrics.get("detection_rate").format(evaluation.detection_rate, 1)
    observed = metrics.get("observed_false_alarm_rate").format(evaluation.observed_false_alarm_rate, 1)
    first = re.search(r"[\d.]+ %", shown)
    assert first is not None
    assert first[0] == rate
    assert shown[: first.start()].endswith("Detection rate")
    assert "promised false-alarm rate of 20.0 %" in shown
    assert f"Observed false-alarm rate{observed}" in shown
    good = [result for result in evaluation.image_results if result.label == 0]
    point = evaluation.operating_point
    assert f"{point.false_alarms} of {len(good)} good images called anomalous; promised: at most 20.0 %" in shown
    low, high = wilson_interval(point.false_alarms, len(good))
    assert f"95 % interval {100 * low:.1f} to {100 * high:.1f} %" in shown


def test_defect_types_have_a_table(tmp_path):
    root = write_part(tmp_path / "part", {"crack": [0.9, 0.3], "stain": [0.8]}, [0.1])
    found = evaluate(BrightnessPredictor(), open_dataset(root), progress=SILENT)
    rows = re.findall(r'<tr><th scope="row">(\w+)</th><td>(.*?)</td></tr>', render(found))
    assert [(name, *cells.split("</td><td>")) for name, cells in rows[:2]] == [
        ("crack", "2", "1", "50.0 %", "0.6"),
        ("stain", "1", "1", "100.0 %", "0.8"),
    ]


def test_a_large_test_set_keeps_the_images_nearest_the_threshold(tmp_path):
    root = write_part(tmp_path / "part", {"crack": [0.9, 0.6]}, [0.2, 0.1])
    found = evaluate(BrightnessPredictor(), open_dataset(root), progress=SILENT)
    (near,) = [result for result in found.image_results if result.score == pytest.approx(0.6, abs=2e-3)]
    text = render(replace(found, image_results=(*found.image_results, *[near] * GALLERY)))
    assert text.count('<article class="image"') == GALLERY
    assert text.count("<h3>crack/001.png</h3>") == GALLERY
    assert "4 images far from the threshold are not shown" in text


def test_operating_points_have_a_table_and_the_chart_stands_without_script(page, evaluation):
    text = page.read_text("utf-8")
    rows = re.findall(r'<th scope="row">([\d.]+ %)( \(this model\))?</th>((?:<td>[^<]*</td>)+)</tr>', text)
    points = evaluation.operating_points
    assert [row[0] for row in rows] == [f"{100 * point.false_alarm_rate:.1f} %" for point in points]
    assert [bool(row[1]) for row in rows] == [point.false_alarm_rate == 0.2 for point in points]
    for (_, _, cells), point in zip(rows, points, strict=True):
        assert f"<td>{point.detected} of {point.defective}</td>" in cells
        assert f"<td>{point.false_alarms} of {point.good}</td>" in cells
    point = evaluation.operating_point
    dots = dict(re.findall(r'<circle class="(\w+)" cx="[\d.]+" cy="([\d.]+)"', text))
    for name, share in (("found", point.detection_rate), ("alarms", point.observed_false_alarm_rate)):
        assert float(dots[name]) == pytest.approx(TOP + PLOT_HEIGHT * (1 - share), abs=0.06)
    assert '<div id="controls" hidden>' in text


def test_the_rate_to_type_has_the_threshold_of_the_report(evaluation):
    calibration = Calibration.from_scores("split", 3 / 247, np.arange(246.0))
    changed = {"calibration": calibration, "promised_false_alarm_rate": 3 / 247, "threshold": calibration.threshold}
    (option,) = re.findall(r'data-show="option">([^<]+)<', render(replace(evaluation, **changed)))
    assert calibration.at_rate(float(option)).threshold == calibration.threshold


def test_the_slider_starts_at_the_step_of_the_threshold(evaluation):
    # 0.29 * 100 is below 29 in floating-point numbers.
    calibration = Calibration.from_scores("split", 0.29, np.arange(99.0))
    changed = {"calibration": calibration, "promised_false_alarm_rate": 0.29, "threshold": calibration.threshold}
    text = render(replace(evaluation, **changed))
    assert np.sum(calibration.scores >= calibration.threshold) == 29
    assert re.findall(r'id="rate" [^>]*value="(\d+)"', text) == ["29"]


def test_the_smallest_p_value_is_explained(page, evaluation):
    n = len(evaluation.calibration.scores)
    text = page.read_text("utf-8")
    assert f"= 1 / ({n} + 1) is the smallest possible p-value with {n} calibration images" in text
    smallest = sum(result.p_value == 1 / (n + 1) for result in evaluation.image_results)
    assert smallest > 0
    assert text.count(f"p {1 / (n + 1):.3g} (smallest)") == smallest


def test_the_next_step_is_shown_where_there_is_one(tmp_path):
    root = write_part(tmp_path / "part", {"crack": [0.45, 0.46, 0.47, 0.9]}, [0.1, 0.2])
    found = evaluate(BrightnessPredictor(), open_dataset(root), progress=SILENT)
    assert found.detection_rate == 0.25
    text = render(found)
    assert "Only 25 % of the defective images are found" in text
    assert "<code>hyperspot recalibrate</code>" in text
    assert "Next step" not in render(replace(found, metrics=found.metrics | {"image_auroc": 0.5}))


def test_a_report_without_calibration_has_no_trade_off(tmp_path):
    root = write_part(tmp_path / "part", {"crack": [0.9]}, [0.1])
    text = render(evaluate(BrightnessPredictor(calibrated=False), open_dataset(root), progress=SILENT))
    assert "Operating points" not in text
    assert "trade-off-data" not in text
    assert 'id="only-changed"' not in text


def luminance(color):
    """Return the relative luminance of #rrggbb, as WCAG 2 defines it."""
    channels = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [0, 1])
def test_text_has_the_contrast_of_wcag_aa_in_light_and_dark(page, theme):
    themes = re.findall(r":root \{([^}]*--ink[^}]*)\}", page.read_text("utf-8"))
    assert len(themes) == 2
    colors = dict(re.findall(r"--([\w-]+): (#\w{6})", themes[theme]))
    for text, ground in (
        *((text, ground) for text in ("ink", "soft") for ground in ("paper", "card")),
        ("good", "card"),
        ("on-bad", "bad"),
        ("mark", "card"),
        ("paper", "ink"),
    ):
        low, high = sorted((luminance(colors[text]), luminance(colors[ground])))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)


def test_metrics_agree_with_the_image_results(evaluation):
    good = [result for result in evaluation.image_results if result.label == 0]
    assert evaluation.observed_false_alarm_rate == sum(result.is_anomalous for result in good) / len(good)
    pairs = [
        (bad.score > fine.score) + 0.5 * (bad.score == fine.score)
        for bad in evaluation.image_results
        if bad.label
        for fine in good
    ]
    assert evaluation.image_auroc == pytest.approx(sum(pairs) / len(pairs))


def test_report_that_cannot_be_written_is_named(evaluation, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"report\.html"):
        write_report(evaluation, tmp_path / "file" / "report.html")


def test_no_bar_of_the_histogram_stands_on_both_sides_of_the_threshold():
    scores = np.random.default_rng(0).normal(size=200).tolist()
    for threshold in (-1.3, 0.0, 0.7321, 9.0, None):
        drawn = score_histogram([("good", "good", scores)], threshold)
        bars = [(float(x), float(w)) for x, w in re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', drawn)]
        assert sum(map(int, re.findall(r"<title>good: (\d+)</title>", drawn))) == len(scores)
        if threshold is not None:
            (line,) = {float(x) for x in re.findall(r'<line[^>]*class="threshold"[^>]*x1="([\d.]+)"', drawn)}
            assert all(x >= line or x + w <= line for x, w in bars)
