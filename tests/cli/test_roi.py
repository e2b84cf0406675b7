"""`hyperspot roi`: the page is private to this machine, draws in a browser, and writes one valid file."""

import json
import shutil
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

from hyperspot.cli.roi_server import RoiServer
from hyperspot.decision.inspection_plan import InspectionPlan
from hyperspot.errors import DataError

SQUARE = [[10, 10], [50, 10], [50, 40], [10, 40]]


@pytest.fixture
def image():
    shown = np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(shown).resize((320, 240)))


@pytest.fixture
def server(image, tmp_path):
    with RoiServer(image, InspectionPlan(), tmp_path / "roi.json") as opened:
        yield opened


def post(url, values):
    request = urllib.request.Request(f"{url}save", json.dumps(values).encode(), method="POST")
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_saving_writes_a_plan_and_ends(server, tmp_path):
    status, text = post(server.url, {"image_size": [320, 240], "include": [SQUARE], "register": True})
    assert (status, text) == (200, "Saved. You can close this page.")
    assert server.wait(10.0)
    plan = InspectionPlan.read(tmp_path / "roi.json")
    assert plan.area.include == (tuple(map(tuple, SQUARE)),)
    assert plan.area.reference is not None
    assert list(tmp_path.iterdir()) == [tmp_path / "roi.json"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"include": [SQUARE]}, "polygons need the size"),
        ({"image_size": [320, 240], "include": [SQUARE[:2]]}, "fewer than three corners"),
        ({"image_size": [320, 240], "ignore": [[[0, 0], [320, 0], [320, 240], [0, 240]]]}, "has no pixel"),
        ({"rules": {"min_length": "3mm"}}, "needs the size of a pixel"),
        ({"polygon": []}, "no 'polygon'"),
    ],
)
def test_a_malformed_plan_is_refused_and_the_page_stays(server, tmp_path, values, message):
    status, text = post(server.url, values)
    assert status == 400
    assert message in text
    assert not server.wait(0.1)
    assert not (tmp_path / "roi.json").exists()


@pytest.mark.parametrize("changed", ["secret", "host"])
def test_nobody_else_is_answered(server, changed):
    url, headers = server.url, {}
    if changed == "secret":
        url = url.rsplit("/", 2)[0] + "/guess/"
    else:
        headers = {"Host": "example.com"}
    for name in ("", "image", "plan"):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(urllib.request.Request(url + name, headers=headers))
        caught.value.close()
        assert caught.value.code == 403


def test_polygons_drawn_at_another_size_are_shown_in_the_pixels_of_the_image(image, tmp_path):
    values = {"image_size": [640, 480], "include": [[[0, 0], [640, 0], [640, 480]]], "mm_per_pixel": 0.1}
    with (
        RoiServer(image, InspectionPlan.from_dict(values), tmp_path / "roi.json") as server,
        urllib.request.urlopen(f"{server.url}plan") as answer,
    ):
        shown = json.loads(answer.read())["plan"]
    assert shown["include"] == [[[0, 0], [320, 0], [320, 240]]]
    assert shown["mm_per_pixel"] == pytest.approx(0.2)


def test_a_port_in_use_is_named(server, image, tmp_path):
    port = int(server.url.split(":")[2].split("/")[0])
    with pytest.raises(DataError, match=f"port {port} cannot be used"):
        RoiServer(image, InspectionPlan(), tmp_path / "roi.json", port)


@pytest.fixture(scope="module")
def browser():
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no chromium and chromedriver here")
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1200,800"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = Chrome(options=options, service=ChromeService(driver))
    yield opened
    opened.quit()


@pytest.mark.browser
def test_drawing_with_mouse_and_keyboard(browser, server, tmp_path):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    browser.get(server.url)
    for _ in range(100):
        if browser.execute_script("return picture.complete && picture.naturalWidth > 0 && view.zoom !== 1"):
            break
        time.sleep(0.05)
    canvas = browser.find_element("id", "canvas")

    def click(x, y):
        left, top = browser.execute_script("return toScreen(arguments[0])", [x, y])
        right, down = canvas.size["width"] / 2, canvas.size["height"] / 2
        ActionChains(browser).move_to_element_with_offset(
            canvas, round(left - right), round(top - down)
        ).click().perform()

    for x, y in ((20, 20), (300, 20), (300, 220), (20, 220)):
        click(x, y)
    click(20, 20)
    assert browser.execute_script("return state.shapes.map((shape) => shape.kind)") == ["include"]
    # A corner too many, taken back, then a zone.
    browser.find_element("css selector", "[data-tool=zone]").click()
    for x, y in ((40, 40), (140, 40), (140, 140), (290, 210)):
        click(x, y)
    browser.find_element("id", "undo").click()
    canvas.send_keys(Keys.ENTER)
    for number, text in enumerate(("rim", "0.002")):
        entry = browser.find_elements("css selector", "#shapes fieldset:nth-of-type(2) input")[number]
        entry.send_keys(Keys.CONTROL + "a")
        entry.send_keys(text, Keys.TAB)
    # By keyboard: an area to ignore in the middle of the view.
    canvas.send_keys("g")
    for moves in ((Keys.ARROW_RIGHT, 4), (Keys.ARROW_DOWN, 6), (Keys.ARROW_LEFT, 5)):
        canvas.send_keys(moves[0] * moves[1], " ")
    canvas.send_keys(Keys.ENTER)
    browser.find_element("css selector", "[data-tool=line]").click()
    click(20, 120)
    click(220, 120)
    browser.find_element("id", "length").send_keys("10")
    browser.find_element("id", "min_length").send_keys("0.3mm")
    browser.save_screenshot(str(tmp_path / "page.png"))
    browser.find_element("id", "save").click()
    assert server.wait(10.0)
    plan = InspectionPlan.read(tmp_path / "roi.json")
    (include,) = plan.area.include
    np.testing.assert_allclose(include, [(20, 20), (300, 20), (300, 220), (20, 220)], atol=1)
    (ignore,) = plan.area.ignore
    np.testing.assert_allclose(np.diff(ignore, axis=0), [(0, 6), (-5, 0)], atol=1e-9)
    (zone,) = plan.zones
    assert (zone.name, zone.false_alarm_rate, len(zone.polygons[0])) == ("rim", 0.002, 3)
    assert plan.mm_per_pixel == pytest.approx(0.05, rel=0.01)
    assert str(plan.rules.min_length) == "0.3mm"
    assert not browser.get_log("browser")
