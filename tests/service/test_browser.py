"""A real browser goes through the station: train, inspect, review, retrain, promote, roll back."""

import re
import shutil

import httpx
import pytest

from tests.service.browsers import demo_images, opened, served

pytestmark = pytest.mark.browser
__all__ = ["demo_images"]


def confirm(page):
    page.locator("#question[open] button[value=yes]").click()


def wait_for_job(page, kind):
    """Wait until the newest job is done; it is shown by server-sent events."""
    job = page.locator("#jobs .job").first
    job.get_by_text(kind).wait_for()
    job.locator(".mark", has_text=re.compile("Done|Failed")).wait_for()
    assert "Done" in job.inner_text(), job.inner_text()


def promote(page, number):
    row = page.locator("#versions tr", has=page.locator(f"strong:text-is('{number}')"))
    row.get_by_role("button", name="Promote").click()
    # An event loads the list again while the question is open.
    with page.expect_response("**/learn/versions?**"):
        page.evaluate("htmx.ajax('GET', document.querySelector('#versions').getAttribute('hx-get'), '#versions')")
    with page.expect_navigation():
        confirm(page)
    row.get_by_text("Active", exact=True).wait_for()


def test_from_the_one_time_link_to_a_rolled_back_version(chromium, demo_images, tmp_path):
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    with served(tmp_path / "station") as (address, link):
        page = opened(chromium)
        page.goto(link)
        assert page.url == f"{address}/live"

        # A product, and images of good parts.
        page.get_by_role("link", name="Create a product").click()
        page.get_by_label("Id").fill("flange")
        page.get_by_label("Name", exact=True).fill("Flange")
        page.get_by_role("button", name="Create a product").click()
        page.wait_for_url("**/setup/products/flange*")
        page.locator("#image-files").set_input_files(demo_images["train"])
        page.get_by_text("Uploaded: 24 / 24").wait_for()
        page.get_by_text("24 images of good parts").wait_for()

        # Train, and let the version inspect.
        page.get_by_role("link", name="Continue to training").click()
        page.get_by_label("Promised false-alarm rate, %").fill("10")
        page.get_by_label("Short side of the input, px").fill("64")
        page.get_by_role("button", name="Train", exact=True).click()
        wait_for_job(page, "Training")
        promote(page, 1)

        # A token; it is shown once.
        page.goto(f"{address}/setup/tokens")
        page.get_by_label("Name", exact=True).fill("press 3")
        page.get_by_role("button", name="Create a token").click()
        secret = page.locator("#secret").inner_text()
        page.reload()
        assert secret not in page.content()

        # Inspections by REST appear on the open page.
        page.goto(f"{address}/live?product=flange")
        headers = {"Authorization": f"Bearer {secret}", "Content-Type": "image/png"}
        bad = demo_images["defective"]
        for number, path in enumerate(bad + demo_images["good"][:5]):
            answer = httpx.post(
                f"{address}/api/v1/inspections",
                params={"product": "flange", "serial_number": f"SN{number}", "station": "press 3"},
                content=path.read_bytes(),
                headers=headers,
                timeout=60,
            )
            assert answer.status_code == 200, answer.text
        page.locator(".live .card", has_text="Last 11").wait_for()
        assert page.locator("#panel .thumbs li").count() == 11
        assert page.locator("#announcement").inner_text().split(",")[0] in ("GOOD", "ANOMALOUS")

        # A watched folder.
        page.goto(f"{address}/setup/sources/new?kind=folder")
        page.get_by_label("Name", exact=True).fill("inbox")
        page.get_by_label("Folder").first.fill(str(inbox))
        page.get_by_label("Steady for").fill("0.2")
        page.get_by_label("Look every").fill("1")
        page.get_by_role("button", name="Save").click()
        page.wait_for_url("**/setup/sources")
        page.get_by_text("Running").wait_for()
        shutil.copy(demo_images["good"][6], inbox / "<img src=x onerror=alert(1)>.png")
        page.goto(f"{address}/live?product=flange")
        page.locator(".live .card", has_text="Last 12").wait_for()

        # Review by keys.
        page.goto(f"{address}/review?product=flange")
        reviewed = 0
        while page.locator("[data-answers][data-address]").count():
            viewer = page.locator("[data-viewer]")
            shown = viewer.get_attribute("data-inspection")
            is_alarm = page.locator("form .mark.anomalous").count() > 0
            if reviewed == 0:
                draw_mask(page)
            page.keyboard.press("d" if is_alarm else "g")
            reviewed += 1
            page.locator(f"[data-inspection='{shown}']").wait_for(state="detached")
        assert reviewed >= 3
        page.get_by_text("Nothing waits for review").wait_for()
        page.goto(f"{address}/inspections?product=flange&label=defect")
        page.locator("a.row").last.wait_for()
        page.get_by_text("inspections", exact=False).first.wait_for()

        # Label the passed parts good, add them, and retrain.
        page.goto(f"{address}/inspections?product=flange&decision=good&label=none")
        for row in [one.get_attribute("href") for one in page.locator("a.row").all()]:
            page.goto(f"{address}{row}")
            page.locator("#labels").get_by_role("button", name="Good").click()
            page.locator("#labels .mark.good").first.wait_for()
        page.goto(f"{address}/learn?product=flange")
        page.get_by_role("button", name="Add reviewed good images").click()
        page.get_by_text("Added images:").wait_for()
        page.get_by_role("button", name="Update", exact=True).click()
        wait_for_job(page, "Update")
        versions = page.locator("#versions")
        versions.get_by_text("Updated").first.wait_for()

        # Compare on what neither version has learned, promote, roll back.
        versions.get_by_role("button", name="Compare with active").click()
        wait_for_job(page, "Comparison")
        page.get_by_role("link", name="Show", exact=True).first.click()
        page.get_by_text("Defects found").wait_for()
        page.go_back()
        promote(page, 2)
        page.get_by_role("button", name="Roll back").click()
        with page.expect_navigation():
            confirm(page)
        page.locator("#versions tr.active strong", has_text="1").wait_for()

        page.goto(f"{address}/monitor?product=flange")
        page.locator("svg.chart").first.wait_for()
        page.goto(f"{address}/setup/audit")
        assert page.get_by_text("version.activate").count() == 3
        assert page.problems == []
        page.context.close()


def draw_mask(page):
    """Draw with the brush, in the middle of the image."""
    page.keyboard.press("b")
    box = page.locator(".viewport").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 40, y + 30, steps=5)
    page.mouse.up()
    drawn = "(() => { const c = document.querySelector('canvas.mask'); return c.getContext('2d')" \
        ".getImageData(0, 0, c.width, c.height).data.some((value) => value > 0); })()"  # fmt: skip
    assert page.evaluate(drawn)


@pytest.fixture(scope="module")
def station(chromium, demo_images, tmp_path_factory, demo_model):
    """A station whose product has a model and inspections, and the state of a browser that is signed in."""
    folder = tmp_path_factory.mktemp("browser") / "station"
    with served(folder) as (address, link):
        context = chromium.new_context()
        page = context.new_page()
        page.goto(link)
        token = page.locator("meta[name=csrf-token]").get_attribute("content")
        headers = {"X-CSRF-Token": token, "Origin": address}
        created = context.request.post(f"{address}/setup/products", form={"id": "flange"}, headers=headers)
        assert created.ok
        evil = "<img src=x onerror=alert(1)><script>alert(2)</script>"
        context.request.post(
            f"{address}/setup/products/flange",
            form={"name": evil, "review_percent": "100", "near_miss": "3"},
            headers=headers,
        )
        sent = {"name": "m.onnx", "mimeType": "application/octet-stream", "buffer": demo_model.read_bytes()}
        added = context.request.post(
            f"{address}/setup/products/flange/models", multipart={"file": sent}, headers=headers
        )
        assert added.json() == {"number": 1}, added.text()
        chosen = {"product": "flange", "number": "1"}
        assert context.request.post(f"{address}/learn/promote", form=chosen, headers=headers).status == 204
        for path in demo_images["defective"] + demo_images["good"]:
            answer = context.request.post(
                f"{address}/api/v1/inspections?product=flange",
                params={"serial_number": evil, "lot": evil, "station": evil},
                data=path.read_bytes(),
                headers={**headers, "Content-Type": "image/png"},
            )
            assert answer.status == 200, answer.text()
        yield address, context.storage_state()
        context.close()


@pytest.fixture(scope="module")
def demo_model(demo_images, tmp_path_factory):
    from hyperspot import Detector
    from hyperspot.export import export

    detector = Detector.fit(demo_images["train"], short_side=64, false_alarm_rate=0.1)
    return export(detector, tmp_path_factory.mktemp("model") / "m.onnx")


PAGES = (
    "/live", "/inspections", "/review", "/learn", "/monitor", "/setup", "/setup/products/flange", "/setup/users",
    "/setup/sources/new?kind=folder", "/setup/tokens", "/setup/audit", "/setup/account",
)  # fmt: skip


@pytest.mark.parametrize(
    ("width", "height", "scheme"), [(360, 740, "dark"), (1440, 900, "light"), (3840, 2160, "dark")]
)
def test_pages_fit_all_screens_and_html_never_runs(chromium, station, width, height, scheme):
    address, state = station
    page = opened(chromium, storage_state=state, color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": height})
    first = page.request.get(f"{address}/inspections").text()
    one = re.search(r"/inspections/[0-9a-f]{32}", first).group(0)
    for path in (*PAGES, one):
        answer = page.goto(f"{address}{path}", wait_until="load")
        assert answer.status == 200, path
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, path
        small = page.evaluate(
            "[...document.querySelectorAll('main button, main .button, main select, main input:not([type=hidden])')]"
            ".filter((one) => one.checkVisibility() && !one.closest('.check, .skip'))"
            ".filter((one) => one.getBoundingClientRect().height < 34).map((one) => one.outerHTML)"
        )
        assert small == [], path
        background = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 200) == (scheme == "dark")
    assert page.problems == []
    page.context.close()


def test_review_takes_no_mouse(chromium, station):
    address, state = station
    page = opened(chromium, storage_state=state)
    page.goto(f"{address}/review?product=flange")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")

    def shown():
        return page.evaluate("document.querySelector('[data-viewer]').dataset.inspection")

    def press(key):
        before = shown()
        page.keyboard.press(key)
        page.locator(f"[data-inspection='{before}']").wait_for(state="detached")
        return shown()

    first = shown()
    second = press("ArrowRight")
    assert press("ArrowLeft") == first
    assert press("u") == second
    assert "Unsure" in page.locator("#said").inner_text()
    assert press("z") == first

    # A polygon by keys alone: three corners, closed by Enter, saved with the label.
    page.locator(".viewport").focus()
    page.keyboard.press("p")
    for keys in (("ArrowUp",), ("ArrowRight",) * 9, ("ArrowDown",) * 9):
        for key in keys:
            page.keyboard.press(f"Shift+{key}")
        page.keyboard.press("Space")
    page.keyboard.press("Enter")
    with page.expect_response(lambda answer: f"/review/{first}" in answer.url and answer.request.method == "POST"):
        press("d")
    mask = page.request.get(f"{address}/review/{first}/mask")
    assert mask.status == 200
    assert mask.body().startswith(b"\x89PNG")

    # Keys of a comment are text.
    page.get_by_label("Comment").focus()
    page.keyboard.type("good dug")
    assert page.get_by_label("Comment").input_value() == "good dug"
    assert shown() == second
    assert page.problems == []
    page.context.close()


def test_the_viewer_zooms_to_full_resolution_and_shows_regions(chromium, station):
    address, state = station
    page = opened(chromium, storage_state=state)
    page.goto(f"{address}/inspections?decision=anomalous")
    page.locator("a.row").first.click()
    page.wait_for_load_state("load")
    zoom = page.locator("[data-zoom]")
    page.locator(".viewport").focus()
    before = zoom.inner_text()
    page.keyboard.press("+")
    assert zoom.inner_text() != before
    page.keyboard.press("0")
    assert zoom.inner_text() == before
    page.get_by_role("button", name="100 %").click()
    assert zoom.inner_text() == "100 %"
    opacity = "getComputedStyle(document.querySelector('.heat')).opacity"
    page.locator("input[data-layer='.heat']").fill("100")
    assert page.evaluate(opacity) == "1"
    page.locator("tr[data-region='1']").hover()
    assert page.locator("g.region.active").count() == 1
    page.get_by_role("button", name="Show region 1").click()
    assert zoom.inner_text() != "100 %"
    assert page.problems == []
    page.context.close()


def test_theme_and_language_are_kept(chromium, station):
    address, state = station
    page = opened(chromium, storage_state=state, color_scheme="light")
    page.goto(f"{address}/live")
    page.locator("details.menu summary").click()
    page.locator("[data-theme-choice]").select_option("dark")
    page.reload()
    assert page.locator("html").get_attribute("data-theme") == "dark"
    page.locator("details.menu summary").click()
    with page.expect_navigation():
        page.locator("#language").select_option("de")
    assert page.get_by_role("link", name="Prüfungen").count() == 1
    page.locator("details.menu summary").click()
    with page.expect_navigation():
        page.locator("#language").select_option("en")
    assert page.problems == []
    page.context.close()
