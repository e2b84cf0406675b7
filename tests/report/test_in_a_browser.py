"""The report in headless Chromium: the script agrees with Python, and people reach everything by keyboard."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hyperspot.decision.calibration import Calibration
from hyperspot.evaluation import Evaluation, ImageResult
from hyperspot.report import write_report
from hyperspot.report.charts import LEFT, PLOT_WIDTH

pytestmark = pytest.mark.browser

JPEG = bytes.fromhex("ffd8ffd9")


@pytest.fixture(scope="module")
def evaluation(detector, product):
    return detector.evaluate(product)


@pytest.fixture
def opened(page, evaluation, tmp_path):
    """Return a page with the report of the made-up product."""
    page.goto(Path(write_report(evaluation, tmp_path / "report.html")).as_uri())
    return page


def visible(page, selector):
    return [one for one in page.locator(selector).all() if one.is_visible()]


def test_filters_and_layout(opened, evaluation):
    assert len(visible(opened, ".image")) == len(evaluation.image_results)
    assert opened.locator("svg.chart").count() == 5
    passed = [result for result in evaluation.image_results if result.is_anomalous is False and result.label == 0]
    opened.locator("label[for=only-pass]").click()
    assert len(visible(opened, ".image")) == len(passed)
    for width in (1280, 500):
        opened.set_viewport_size({"width": width, "height": 1000})
        assert opened.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_a_card_enlarges_to_image_heatmap_and_outlines(opened):
    viewer, cards = opened.locator("#viewer"), opened.locator(".image")
    panels = opened.locator("#panels button")
    last = cards.count() - 1

    def alternatives():
        return [image.get_attribute("alt") for image in visible(opened, "#panels img")]

    def of_card(number):
        return [image.get_attribute("alt") for image in cards.nth(number).locator("img").all()]

    assert not viewer.is_visible()
    # Cards are laid out when they come into view.
    cards.nth(1).evaluate("card => card.scrollIntoView()")
    cards.nth(1).locator(".enlarge").click()
    assert viewer.is_visible()
    assert alternatives() == of_card(1)
    assert len(alternatives()) == 3
    assert panels.first.bounding_box()["width"] > 2 * cards.nth(1).locator("img").first.bounding_box()["width"]
    panels.nth(2).click()
    assert alternatives() == of_card(1)[2:]
    assert opened.locator("#panels img").nth(2).bounding_box()["height"] > 700
    panels.nth(2).click()
    opened.keyboard.press("ArrowRight")
    assert alternatives() == of_card(2)
    for _ in range(3):
        opened.keyboard.press("ArrowLeft")
    assert alternatives() == of_card(last)
    opened.keyboard.press("Escape")
    assert not viewer.is_visible()
    # By keyboard alone, from the card that has the focus again.
    assert cards.nth(last).locator(".enlarge").evaluate("one => one === document.activeElement")
    opened.keyboard.press("Enter")
    assert alternatives() == of_card(last)
    viewer.get_by_role("button", name="Next", exact=True).click()
    assert alternatives() == of_card(0)
    viewer.get_by_role("button", name="Close", exact=True).click()
    assert not viewer.is_visible()


def test_the_slider_relabels_the_cards_and_lists_the_changes(opened, evaluation):
    slider = opened.locator("#rate")
    promised, steps = int(slider.input_value()), int(slider.get_attribute("max"))
    n = len(evaluation.calibration.scores)
    before = {result.path: result.is_anomalous for result in evaluation.image_results}
    steps_with_changes = []
    slider.press("Home")
    for step in range(1, steps + 1):
        assert int(slider.input_value()) == step
        rate = evaluation.promised_false_alarm_rate if step == promised else step / (n + 1)
        expected = Calibration.from_scores("split", rate, evaluation.calibration.scores)
        cards = opened.locator(".image").all()
        kinds = {card.get_attribute("data-index"): card.get_attribute("data-kind") for card in cards}
        changed = []
        for index, result in enumerate(evaluation.image_results):
            now = expected.is_anomalous(result.score)
            assert kinds[str(index)] == (("pass", "alarm"), ("missed", "hit"))[result.label][now]
            if now != before[result.path]:
                changed.append(f"{result.path.parent.name}/{result.path.name}")
        assert [text.strip().partition(":")[0] for text in opened.locator("#changed li").all_inner_texts()] == changed
        assert opened.locator(".image[data-changed]").count() == len(changed)
        if changed:
            steps_with_changes.append(step)
        found = sum(bool(expected.is_anomalous(one.score)) for one in evaluation.image_results if one.label)
        assert f"({found} of 9)" in opened.locator("[data-show=found]").first.inner_text()
        # The rate to type on the command line has the same threshold.
        typed = float(opened.locator("[data-show=option]").first.inner_text())
        assert Calibration.from_scores("split", typed, evaluation.calibration.scores).threshold == expected.threshold
        slider.press("ArrowRight")
    assert steps_with_changes
    slider.press("Home")
    for _ in range(steps_with_changes[0] - 1):
        slider.press("ArrowRight")
    opened.locator("#changed button").first.click()
    assert opened.locator("#viewer").is_visible()
    opened.keyboard.press("Escape")
    opened.locator("#reset").click()
    assert int(slider.input_value()) == promised
    assert opened.locator("#changed li").count() == 0


def test_dragging_in_the_chart_moves_the_rate(opened):
    slider, chart = opened.locator("#rate"), opened.locator(".trade .chart")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    middle = box["y"] + box["height"] / 2
    opened.mouse.move(box["x"] + box["width"] / 2, middle)
    opened.mouse.down()
    opened.mouse.move(box["x"] + box["width"] - 5, middle)
    opened.mouse.up()
    assert slider.input_value() == slider.get_attribute("max")
    opened.mouse.click(box["x"] + 5, middle)
    assert slider.input_value() == "1"


def test_a_threshold_beyond_the_test_scores_stays_in_the_histogram(page, evaluation, tmp_path):
    promised = evaluation.calibration
    highest = max(one.score for one in evaluation.image_results)
    far = np.append(promised.scores[:-1], highest + 9 * abs(highest))
    assert promised.above > 0
    changed = replace(evaluation, calibration=Calibration.from_scores(promised.kind, promised.false_alarm_rate, far))
    page.goto(write_report(changed, tmp_path / "report.html").as_uri())
    line = page.locator("line.threshold").first

    def place():
        matrix = line.evaluate("one => one.transform.baseVal.consolidate()?.matrix.e ?? 0")
        return float(line.get_attribute("x1")) + matrix

    before = place()
    page.locator("#rate").press("Home")
    assert page.locator("[data-show=threshold]").first.inner_text() == f"{far[-1]:.5g}"
    assert place() == pytest.approx(LEFT + PLOT_WIDTH, abs=0.1)
    page.locator("#reset").click()
    assert place() == before


@pytest.mark.parametrize(
    ("n", "rate"), [(4, 0.2), (30, 0.1), (30, 0.35), (99, 0.01), (99, 0.05), (246, 3 / 247), (250, 0.0121)]
)
def test_the_script_computes_what_the_calibration_computes(page, n, rate, tmp_path):
    random = np.random.default_rng(n)
    # Every second set is rounded, so that scores tie with the threshold.
    calibration_scores = random.normal(size=n)
    scores = np.concatenate([random.normal(size=40), random.normal(1.5, size=40)])
    if n % 2:
        calibration_scores, scores = calibration_scores.round(1), scores.round(1)
    calibration = Calibration.from_scores("split", rate, calibration_scores)
    results = tuple(
        ImageResult(Path(f"{place}.png"), "d", place // 40, float(score), calibration.p_value(score),
                    calibration.is_anomalous(score), 1.0, (JPEG,) * 3)
        for place, score in enumerate(scores)
    )  # fmt: skip
    evaluation = Evaluation(
        name="</script><b>",
        metrics=dict.fromkeys(("detection_rate", "observed_false_alarm_rate", "image_auroc", "aupro_30"), 0.5),
        metrics_at_input={},
        promised_false_alarm_rate=rate,
        threshold=calibration.threshold,
        image_results=results,
        calibration=calibration,
    )
    page.goto(write_report(evaluation, tmp_path / "report.html").as_uri())
    typed = page.locator("[data-show=option]").first.inner_text()
    assert typed == page.evaluate("decimal(trade.promised)")
    assert calibration.at_rate(float(typed)).threshold == calibration.threshold
    rates = sorted({*(k / (n + 1) for k in range(1, n + 1)), *random.uniform(1 / (n + 1), 1, 200), rate, 0.3, 0.7})
    computed = page.evaluate("rates => JSON.stringify(rates.map(resultsAt))", rates)
    for one, found in zip(rates, json.loads(computed), strict=True):
        expected = Calibration.from_scores("split", one, calibration_scores)
        assert found["threshold"] == expected.threshold
        assert found["decisions"] == [expected.is_anomalous(score) for score in scores]
        assert found["detected"] == sum(found["decisions"][40:])
        assert found["falseAlarms"] == sum(found["decisions"][:40])
