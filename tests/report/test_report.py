"""The report, read as text and opened in a browser."""

import re
import shutil
import urllib.request
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from hyperspot.errors import DataError
from hyperspot.report import write_report
from hyperspot.report.charts import score_histogram


@pytest.fixture(scope="module")
def evaluation(detector, product):
    return detector.evaluate(product, command="hyperspot evaluate part.safetensors 'a <b>'")


@pytest.fixture(scope="module")
def page(evaluation, tmp_path_factory):
    return write_report(evaluation, tmp_path_factory.mktemp("report") / "report.html")


class Sources(HTMLParser):
    """Collects what a page would fetch, says of its pictures, and shows unfolded."""

    def __init__(self):
        super().__init__()
        self.found = []
        self.said = []
        self.folded = 0
        self.text = ""

    def handle_starttag(self, tag, attributes):
        self.folded += tag == "details"
        self.said += [value for name, value in attributes if name == "alt"]
        self.found += [value for name, value in attributes if name in {"src", "href"}]

    def handle_endtag(self, tag):
        self.folded -= tag == "details"

    def handle_data(self, data):
        if not self.folded:
            self.text += data


def test_what_made_the_report_is_seen_without_unfolding_anything(page, evaluation, product):
    seen = Sources()
    seen.feed(page.read_text("utf-8"))
    shown = seen.text.partition("How this was made")[2]
    for told in (
        "hyperspot evaluate part.safetensors 'a <b>'",
        str(product),
        "24 good photos of product",
        "compact.safetensors",
    ):
        assert told in shown
    settings = evaluation.made_by["settings"]
    for name in [*settings, *settings["method_settings"]]:
        assert (name in shown) is (name != "method_settings")
    assert "fingerprint" not in shown


def test_every_picture_is_described(page, evaluation):
    seen = Sources()
    seen.feed(page.read_text("utf-8"))
    assert len(seen.said) == len(set(seen.said)) == 3 * len(evaluation.judged)
    for judged in evaluation.judged:
        name = f"{judged.path.parent.name}/{judged.path.name}"
        assert {f"photo {name}", f"heatmap of {name}"} < set(seen.said)


def test_report_needs_nothing_but_itself(page, evaluation):
    sources = Sources()
    sources.feed(page.read_text("utf-8"))
    assert len(sources.found) == 3 * len(evaluation.judged)
    for source in sources.found:
        with urllib.request.urlopen(source) as picture:
            assert picture.headers.get_content_type() == "image/jpeg"
            assert picture.read(3) == b"\xff\xd8\xff"


def test_report_shows_figures_and_their_making(page, evaluation):
    text = page.read_text("utf-8")
    assert f"{100 * evaluation.image_auroc:.1f} %" in text
    assert "a &lt;b&gt;" in text
    assert "a <b>" not in text
    for judged in evaluation.judged:
        assert f"{judged.path.parent.name}/{judged.path.name}" in text


def test_figures_agree_with_the_photos_judged(evaluation):
    good = [judged for judged in evaluation.judged if judged.label == 0]
    assert evaluation.observed_false_alarm_rate == sum(judged.is_anomalous for judged in good) / len(good)
    pairs = [
        (bad.score > fine.score) + 0.5 * (bad.score == fine.score)
        for bad in evaluation.judged
        if bad.label
        for fine in good
    ]
    assert evaluation.image_auroc == pytest.approx(sum(pairs) / len(pairs))


def test_report_that_cannot_be_written_is_named(evaluation, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"report\.html"):
        write_report(evaluation, tmp_path / "file" / "report.html")


@pytest.mark.browser
def test_report_in_a_browser(page, evaluation, tmp_path):
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no chromium and chromedriver here")
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService
    from selenium.webdriver.common.by import By

    options = ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1280,1600"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = Chrome(options=options, service=ChromeService(driver))
    try:
        opened.get(Path(page).as_uri())
        assert not opened.get_log("browser")
        cards = opened.find_elements(By.CLASS_NAME, "photo")
        assert len([card for card in cards if card.is_displayed()]) == len(evaluation.judged)
        assert len(opened.find_elements(By.CSS_SELECTOR, "svg.chart")) == 4
        passed = [judged for judged in evaluation.judged if judged.is_anomalous is False and judged.label == 0]
        opened.find_element(By.CSS_SELECTOR, "label[for=only-pass]").click()
        assert len([card for card in cards if card.is_displayed()]) == len(passed)
        width = opened.execute_script("return document.documentElement.scrollWidth")
        assert width <= opened.execute_script("return window.innerWidth")
        assert opened.save_screenshot(str(tmp_path / "report.png"))
    finally:
        opened.quit()


def test_no_bar_of_the_histogram_stands_on_both_sides_of_the_threshold():
    scores = np.random.default_rng(0).normal(size=200).tolist()
    for threshold in (-1.3, 0.0, 0.7321, 9.0, None):
        drawn = score_histogram([("good", "good", scores)], threshold)
        bars = [(float(x), float(w)) for x, w in re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', drawn)]
        assert sum(map(int, re.findall(r"<title>good: (\d+)</title>", drawn))) == len(scores)
        if threshold is not None:
            (line,) = {float(x) for x in re.findall(r'<line[^>]*class="threshold"[^>]*x1="([\d.]+)"', drawn)}
            assert all(x >= line or x + w <= line for x, w in bars)
