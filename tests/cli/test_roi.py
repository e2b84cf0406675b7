"""`hyperspot roi`: the page is private to this machine, draws in a browser, and writes one valid file."""

import json
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


@pytest.mark.browser
def test_drawing_with_mouse_and_keyboard(page, server, tmp_path):
    page.goto(server.url)
    page.wait_for_function("picture.complete && picture.naturalWidth > 0 && view.zoom !== 1")
    canvas = page.locator("#canvas")

    def click(x, y):
        left, top = page.evaluate("point => toScreen(point)", [x, y])
        canvas.click(position={"x": round(left), "y": round(top)})

    for x, y in ((20, 20), (300, 20), (300, 220), (20, 220)):
        click(x, y)
    click(20, 20)
    assert page.evaluate("state.shapes.map((shape) => shape.kind)") == ["include"]
    # A corner too many, taken back, then a zone.
    page.locator("[data-tool=zone]").click()
    for x, y in ((40, 40), (140, 40), (140, 140), (290, 210)):
        click(x, y)
    page.locator("#undo").click()
    canvas.press("Enter")
    for number, text in enumerate(("rim", "0.002")):
        entry = page.locator("#shapes fieldset:nth-of-type(2) input").nth(number)
        entry.fill(text)
        entry.press("Tab")
    # By keyboard: an area to ignore in the middle of the view.
    canvas.press("g")
    for key, times in (("ArrowRight", 4), ("ArrowDown", 6), ("ArrowLeft", 5)):
        for _ in range(times):
            canvas.press(key)
        canvas.press(" ")
    canvas.press("Enter")
    page.locator("[data-tool=line]").click()
    click(20, 120)
    click(220, 120)
    page.locator("#length").fill("10")
    page.locator("#min_length").fill("0.3mm")
    page.locator("#save").click()
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
