"""The report in headless Chromium: the script agrees with Python, and people reach everything by keyboard."""

import json
import shutil
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
def browser():
    """Return a browser driven by Selenium, or skip."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium and chromedriver here")
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,1600"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = Chrome(options=options, service=ChromeService(driver))
    yield opened
    opened.quit()


@pytest.fixture(scope="module")
def evaluation(detector, product):
    return detector.evaluate(product)


@pytest.fixture
def opened(browser, evaluation, tmp_path):
    """Return the browser with the report of the made-up product, and expect no error in its log."""
    browser.get(Path(write_report(evaluation, tmp_path / "report.html")).as_uri())
    yield browser
    assert not browser.get_log("browser")


def find(browser, selector):
    return browser.find_elements("css selector", selector)


def visible(browser, selector):
    return [one for one in find(browser, selector) if one.is_displayed()]


def test_filters_and_layout(opened, evaluation):
    assert len(visible(opened, ".image")) == len(evaluation.image_results)
    assert len(find(opened, "svg.chart")) == 5
    passed = [result for result in evaluation.image_results if result.is_anomalous is False and result.label == 0]
    find(opened, "label[for=only-pass]")[0].click()
    assert len(visible(opened, ".image")) == len(passed)
    for width in (1280, 500):
        opened.set_window_size(width, 1000)
        assert opened.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    opened.set_window_size(1280, 1600)


def test_a_card_enlarges_to_image_heatmap_and_outlines(opened):
    from selenium.webdriver.common.keys import Keys

    (viewer,) = find(opened, "#viewer")
    cards = find(opened, ".image")

    def alternatives():
        return [image.get_attribute("alt") for image in visible(opened, "#panels img")]

    def of_card(number):
        return [image.get_attribute("alt") for image in cards[number].find_elements("css selector", "img")]

    def press(key):
        opened.switch_to.active_element.send_keys(key)

    assert not viewer.is_displayed()
    cards[1].find_element("css selector", ".enlarge").click()
    assert viewer.is_displayed()
    assert alternatives() == of_card(1)
    assert len(alternatives()) == 3
    small = cards[1].find_element("css selector", "img").size["width"]
    panels = find(opened, "#panels button")
    assert panels[0].size["width"] > 2 * small
    panels[2].click()
    assert alternatives() == of_card(1)[2:]
    assert find(opened, "#panels img")[2].size["height"] > 700
    panels[2].click()
    press(Keys.ARROW_RIGHT)
    assert alternatives() == of_card(2)
    for _ in range(3):
        press(Keys.ARROW_LEFT)
    assert alternatives() == of_card(len(cards) - 1)
    press(Keys.ESCAPE)
    assert not viewer.is_displayed()
    # By keyboard alone, from the card that has the focus again.
    assert opened.switch_to.active_element == cards[-1].find_element("css selector", ".enlarge")
    press(Keys.ENTER)
    assert alternatives() == of_card(len(cards) - 1)
    next(button for button in find(opened, "#viewer button") if button.text == "Next").click()
    assert alternatives() == of_card(0)
    next(button for button in find(opened, "#viewer button") if button.text == "Close").click()
    assert not viewer.is_displayed()


def test_the_slider_relabels_the_cards_and_lists_the_changes(opened, evaluation):
    from selenium.webdriver.common.keys import Keys

    (slider,) = find(opened, "#rate")
    promised, steps = int(slider.get_attribute("value")), int(slider.get_attribute("max"))
    n = len(evaluation.calibration.scores)
    before = {result.path: result.is_anomalous for result in evaluation.image_results}
    steps_with_changes = []
    slider.send_keys(Keys.HOME)
    for step in range(1, steps + 1):
        assert int(slider.get_attribute("value")) == step
        rate = evaluation.promised_false_alarm_rate if step == promised else step / (n + 1)
        expected = Calibration.from_scores("split", rate, evaluation.calibration.scores)
        kinds = {card.get_attribute("data-index"): card.get_attribute("data-kind") for card in find(opened, ".image")}
        changed = []
        for index, result in enumerate(evaluation.image_results):
            now = expected.is_anomalous(result.score)
            assert kinds[str(index)] == (("pass", "alarm"), ("missed", "hit"))[result.label][now]
            if now != before[result.path]:
                changed.append(f"{result.path.parent.name}/{result.path.name}")
        assert [one.text.partition(":")[0] for one in find(opened, "#changed li")] == changed
        assert len(find(opened, ".image[data-changed]")) == len(changed)
        if changed:
            steps_with_changes.append(step)
        found = sum(bool(expected.is_anomalous(one.score)) for one in evaluation.image_results if one.label)
        assert f"({found} of 9)" in find(opened, "[data-show=found]")[0].text
        # The rate to type on the command line has the same threshold.
        typed = float(find(opened, "[data-show=option]")[0].text)
        assert Calibration.from_scores("split", typed, evaluation.calibration.scores).threshold == expected.threshold
        slider.send_keys(Keys.ARROW_RIGHT)
    assert steps_with_changes
    slider.send_keys(Keys.HOME, *[Keys.ARROW_RIGHT] * (steps_with_changes[0] - 1))
    find(opened, "#changed button")[0].click()
    assert find(opened, "#viewer")[0].is_displayed()
    opened.switch_to.active_element.send_keys(Keys.ESCAPE)
    find(opened, "#reset")[0].click()
    assert int(slider.get_attribute("value")) == promised
    assert not find(opened, "#changed li")


def test_dragging_in_the_chart_moves_the_rate(opened):
    from selenium.webdriver import ActionChains

    (chart,), (slider,) = find(opened, ".trade .chart"), find(opened, "#rate")
    right = chart.size["width"] // 2 - 5
    ActionChains(opened).move_to_element(chart).click_and_hold().move_by_offset(right, 0).release().perform()
    assert slider.get_attribute("value") == slider.get_attribute("max")
    ActionChains(opened).move_to_element_with_offset(chart, -right, 0).click().perform()
    assert slider.get_attribute("value") == "1"


def test_a_threshold_beyond_the_test_scores_stays_in_the_histogram(browser, evaluation, tmp_path):
    from selenium.webdriver.common.keys import Keys

    promised = evaluation.calibration
    highest = max(one.score for one in evaluation.image_results)
    far = np.append(promised.scores[:-1], highest + 9 * abs(highest))
    assert promised.above > 0
    changed = replace(evaluation, calibration=Calibration.from_scores(promised.kind, promised.false_alarm_rate, far))
    browser.get(write_report(changed, tmp_path / "report.html").as_uri())
    line, (slider,) = find(browser, "line.threshold")[0], find(browser, "#rate")

    def place():
        matrix = browser.execute_script("return arguments[0].transform.baseVal.consolidate()?.matrix.e ?? 0", line)
        return float(line.get_attribute("x1")) + matrix

    before = place()
    slider.send_keys(Keys.HOME)
    assert find(browser, "[data-show=threshold]")[0].text == f"{far[-1]:.5g}"
    assert place() == pytest.approx(LEFT + PLOT_WIDTH, abs=0.1)
    find(browser, "#reset")[0].click()
    assert place() == before
    assert not browser.get_log("browser")


@pytest.mark.parametrize(
    ("n", "rate"), [(4, 0.2), (30, 0.1), (30, 0.35), (99, 0.01), (99, 0.05), (246, 3 / 247), (250, 0.0121)]
)
def test_the_script_computes_what_the_calibration_computes(browser, n, rate, tmp_path):
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
    browser.get(write_report(evaluation, tmp_path / "report.html").as_uri())
    typed = find(browser, "[data-show=option]")[0].text
    assert typed == browser.execute_script("return decimal(trade.promised)")
    assert calibration.at_rate(float(typed)).threshold == calibration.threshold
    rates = sorted({*(k / (n + 1) for k in range(1, n + 1)), *random.uniform(1 / (n + 1), 1, 200), rate, 0.3, 0.7})
    computed = browser.execute_script("return JSON.stringify(arguments[0].map(resultsAt))", rates)
    for one, found in zip(rates, json.loads(computed), strict=True):
        expected = Calibration.from_scores("split", one, calibration_scores)
        assert found["threshold"] == expected.threshold
        assert found["decisions"] == [expected.is_anomalous(score) for score in scores]
        assert found["detected"] == sum(found["decisions"][40:])
        assert found["falseAlarms"] == sum(found["decisions"][:40])
