"""The pages as HTML: who sees what, what forms do, and that nothing from outside gets into a page as HTML."""

import asyncio
import re
import shutil

import pytest
from sqlalchemy import select

from hyperspot.service.access.sessions import csrf_token
from hyperspot.service.app import create_app
from hyperspot.service.database.tables import Alarm, AuditEntry, Inspection, Label, Output, Product, Source
from hyperspot.service.inspecting import InspectionRequest
from hyperspot.service.pages import events
from hyperspot.service.products import training_images
from hyperspot.service.review.labels import add_label, labels_of
from hyperspot.service.settings import StationSettings
from hyperspot.service.station import Station
from tests.service.clients import browser_of, client_of
from tests.service.conftest import encoded, running

EVIL = "<img src=x onerror=alert(1)>\"'&"


@pytest.fixture(scope="module")
def seeded(tmp_path_factory, model_file, good_pixels, bad_image):
    """A folder of a station that has inspected eight good parts and four bad ones."""
    folder = tmp_path_factory.mktemp("seeded") / "station"

    async def inspect():
        async with running(StationSettings(data=folder, port=0, threads=1), model_file) as station:
            for number in range(8):
                await station.inspector.inspect(
                    InspectionRequest("bolt", encoded(good_pixels[number]), serial_number=f"G{number}", station="left")
                )
            for _ in range(4):
                await station.inspector.inspect(
                    InspectionRequest(
                        "bolt", bad_image, serial_number=EVIL, lot=EVIL, station=f"right{EVIL}", source=EVIL
                    )
                )

    asyncio.run(inspect())
    return folder


@pytest.fixture
def station(seeded, tmp_path):
    shutil.copytree(seeded, tmp_path / "station")
    opened = Station(StationSettings(data=tmp_path / "station", port=0, threads=1))
    yield opened
    opened.database.close()


@pytest.fixture
def app(station):
    return create_app(station)


@pytest.fixture
def admin(app):
    return browser_of(app, "admin")


def inspections_of(station):
    with station.database.session() as session:
        return list(session.scalars(select(Inspection).order_by(Inspection.number)))


def get(browser, address):
    answer = browser.get(address)
    assert answer.status_code == 200, answer.text
    return answer.text


SECTIONS = ("/live", "/inspections", "/review", "/learn", "/monitor", "/setup", "/setup/sources", "/setup/outputs")
FOR_ADMINS = ("/setup/users", "/setup/tokens", "/setup/audit")


def test_nobody_sees_a_page_without_signing_in(app, station):
    anyone = client_of(app)
    pages = [*SECTIONS, *FOR_ADMINS, "/", "/setup/account", "/setup/products/bolt", "/setup/products/bolt/plan/"]
    for address in pages:
        answer = anyone.get(address)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/sign-in?next=")
    inspection = inspections_of(station)[0]
    for address in (f"/pictures/{inspection.id}/image", "/events", "/live/panel?product=bolt", "/alarms/badge"):
        assert anyone.get(address).status_code == 401
    assert anyone.get("/static/station.css").status_code == 200


def test_roles_see_their_sections(app):
    operator, engineer = browser_of(app, "operator"), browser_of(app, "engineer")
    for address in SECTIONS:
        expected = 200 if address in ("/live", "/inspections", "/review") else 403
        assert operator.get(address).status_code == expected
        assert engineer.get(address).status_code == 200
    for address in FOR_ADMINS:
        assert engineer.get(address).status_code == 403
    links = re.findall(r'<a href="/(\w+)"', get(operator, "/live").split("</nav>")[0])
    assert links == ["live", "inspections", "review"]


def test_live_shows_the_last_verdict_and_counts(admin):
    text = get(admin, "/live")
    assert '<div class="verdict anomalous">' in text
    assert "ANOMALOUS" in text
    assert text.count('loading="lazy"') == 12
    assert "<dd>12</dd>" in text
    left = get(admin, "/live?station=left")
    assert '<div class="verdict good">' in left
    assert "<dd>8</dd>" in left
    panel = get(admin, "/live/panel?product=bolt&station=left")
    assert 'hx-swap-oob="innerHTML">GOOD, ' in panel


def test_one_tap_says_that_the_last_verdict_was_wrong(admin, station):
    newest = inspections_of(station)[-1]
    answer = admin.post(f"/live/wrong/{newest.id}")
    assert "Labeled:" in answer.text
    with station.database.session() as session:
        label = session.scalars(select(Label)).one()
        assert (label.inspection_number, label.label, label.reviewer) == (newest.number, "good", "admin")


def test_inspections_are_filtered_by_their_address_and_paged(admin, monkeypatch):
    assert "12 inspections" in get(admin, "/inspections?product=bolt")
    assert "4 inspections" in get(admin, "/inspections?decision=anomalous")
    assert "1 inspections" in get(admin, "/inspections?serial_number=G3")
    assert "No inspection fits" in get(admin, "/inspections?lot=unknown")
    assert "12 inspections" in get(admin, "/inspections?since=2020-01-01T00:00&version=1")
    assert admin.get("/inspections?since=yesterday").status_code == 422
    monkeypatch.setattr("hyperspot.service.pages.inspections.MOST", 5)
    seen, address = [], "/inspections?decision=&product=bolt"
    while address:
        text = get(admin, address)
        seen += re.findall(r'class="row" href="/inspections/(\w+)"', text)
        older = re.search(r'rel="next" href="([^"]+)"', text)
        address = older.group(1).replace("&amp;", "&") if older else None
    assert len(seen) == len(set(seen)) == 12


def test_an_inspection_shows_its_regions_history_and_files(admin, station):
    newest = inspections_of(station)[-1]
    text = get(admin, f"/inspections/{newest.id}")
    assert 'data-box="' in text
    assert text.count("aria-current") >= 1
    assert f"/api/v1/inspections/{newest.id}/heatmap" in text
    assert text.count('class="row"') == 4, "the history of the part"
    assert admin.get("/inspections/nothing").status_code == 404


@pytest.mark.parametrize("kind", ["image", "overlay", "mask", "heat", "outline"])
def test_pictures_are_images_that_browsers_keep(admin, station, kind):
    newest = inspections_of(station)[-1]
    for width in ("", "?width=32"):
        answer = admin.get(f"/pictures/{newest.id}/{kind}{width}")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "image/png"
        assert answer.content.startswith(b"\x89PNG")
        assert "immutable" in answer.headers["cache-control"]
    assert admin.get(f"/pictures/{newest.id}/nothing").status_code == 422
    assert admin.get(f"/pictures/{'0' * 32}/{kind}").status_code == 404


def test_html_from_outside_is_text(admin, station):
    with station.database.session() as session:
        session.add(Product(id="evil", name=EVIL))
        inspection = session.scalars(select(Inspection).order_by(Inspection.number.desc())).first()
        add_label(session, inspection, "bob", "defect", comment=EVIL)
    pages = ["/live", "/live/panel?product=bolt", "/inspections", f"/inspections/{inspection.id}", "/setup/audit",
             f"/review?inspection={inspection.id}", "/setup", "/setup/products/evil", "/learn?product=evil",
             f"/inspections?lot={EVIL.replace('&', '%26')}", "/setup/products/evil/plan/"]  # fmt: skip
    for address in pages:
        text = get(admin, address)
        assert "<img src=x" not in text, address
        assert "&lt;img src=x" in text or address == "/setup/audit"


def test_review_labels_undoes_and_shows_disagreement(app, admin, station):
    queue = [one for one in inspections_of(station) if one.review_reason]
    first = re.search(r'data-address="/review/(\w+)"', get(admin, "/review?product=bolt")).group(1)
    after = admin.post(f"/review/{first}", data={"label": "defect", "comment": "dent"})
    second = re.search(r'data-address="/review/(\w+)"', after.text).group(1)
    assert second != first
    assert "1 labeled today" in after.text
    undone = admin.post("/review/undo", data={"product": "bolt"})
    assert f"/review/{first}" in undone.text
    assert "0 labeled today" in undone.text
    assert admin.post("/review/undo", data={"product": "bolt"}).status_code == 409
    admin.post(f"/review/{first}", data={"label": "defect"})
    other = browser_of(app, "operator", "bob")
    other.post(f"/review/{first}", data={"label": "good"})
    assert "The reviewers disagree" in get(other, f"/review?inspection={first}")
    assert admin.post(f"/review/{first}", data={"label": "maybe"}).status_code == 422
    assert len(queue) >= 4


def test_a_drawn_mask_is_kept_as_bits(admin, station, good_pixels):
    newest = inspections_of(station)[-1]
    mask = good_pixels[0] * 0
    mask[4:8, 4:8] = 255
    assert admin.get(f"/review/{newest.id}/mask").status_code == 404
    answer = admin.post(f"/review/{newest.id}", data={"label": "defect"}, files={"mask": ("m.png", encoded(mask))})
    assert answer.status_code == 200
    kept = admin.get(f"/review/{newest.id}/mask")
    assert kept.headers["content-type"] == "image/png"
    with station.database.session() as session:
        assert labels_of(session, [newest.number])[newest.number][0].mask == kept.content


def test_learn_adds_reviewed_images_and_starts_jobs(admin, station):
    good = inspections_of(station)[0]
    with station.database.session() as session:
        add_label(session, session.get_one(Inspection, good.number), "bob", "good")
    assert "Add reviewed good images (1)" in get(admin, "/learn")
    assert "Added images: 1" in admin.post("/learn/add-reviewed", data={"product": "bolt"}).text
    with station.database.session() as session:
        assert training_images.count(session, "bolt") == 1
    started = admin.post(
        "/learn/start", data={"product": "bolt", "kind": "train", "percent": "10", "short_side": "64"}
    ).text
    assert "Waiting" in started
    job = re.search(r"/learn/cancel/(\d+)", started).group(1)
    assert "Canceled" in admin.post(f"/learn/cancel/{job}?product=bolt").text
    assert admin.post("/learn/start", data={"product": "bolt", "kind": "nothing"}).status_code == 422
    assert admin.get(f"/learn/comparison/{job}").status_code == 404


def test_a_change_needs_the_csrf_token(admin, station):
    newest = inspections_of(station)[-1]
    del admin.headers["X-CSRF-Token"]
    for address, data in (
        (f"/live/wrong/{newest.id}", {}),
        (f"/review/{newest.id}", {"label": "good"}),
        ("/setup/products", {"id": "nut"}),
        ("/learn/promote", {"product": "bolt", "number": "1"}),
        ("/me/language", {"language": "de"}),
        ("/setup/tokens", {"name": "t", "role": "admin"}),
    ):
        assert admin.post(address, data=data).status_code == 403, address
    with station.database.session() as session:
        assert session.scalars(select(Label)).all() == []
    token = re.search(r'name="csrf-token" content="(\w+)"', get(admin, "/live")).group(1)
    assert token == csrf_token(admin.cookies["hyperspot_session"])
    answer = admin.post("/me/language", data={"language": "de", "csrf_token": token, "next": "//evil.example"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    assert 'lang="de"' in get(admin, "/live")
    assert "AUFFÄLLIG" in get(admin, "/live")


def test_the_language_follows_the_browser(app):
    answer = client_of(app).get("/sign-in", headers={"Accept-Language": "de-DE,de;q=0.9,en;q=0.5"})
    assert "Anmelden" in answer.text
    assert "Sign in" in client_of(app).get("/sign-in", headers={"Accept-Language": "fr"}).text


def test_products_are_created_and_changed(admin, station, good_image):
    created = admin.post("/setup/products", data={"id": "nut", "name": "Nut"})
    assert created.headers["hx-redirect"] == "/setup/products/nut?product=nut"
    assert admin.post("/setup/products", data={"id": "../nut"}).status_code == 422
    changed = {"name": "Nut M8", "review_percent": "5", "near_miss": "2"}
    assert admin.post("/setup/products/nut", data=changed).status_code == 204
    with station.database.session() as session:
        product = session.get(Product, "nut")
        assert (product.name, product.review_share, product.near_miss) == ("Nut M8", 0.05, 2.0)
        entry = session.scalars(select(AuditEntry).order_by(AuditEntry.id.desc())).first()
        assert (entry.action, entry.details) == (
            "product.change",
            {"name": "Nut M8", "near_miss": 2.0, "review_share": 0.05},
        )
    uploaded = admin.post("/setup/products/nut/images", files={"file": ("../../x.png", good_image)})
    assert uploaded.json() == {"is_new": True}
    assert admin.post("/setup/products/nut/images", files={"file": ("x.png", b"<html>")}).status_code == 422
    digest = re.search(r"/images/([0-9a-f]{64})", get(admin, "/setup/products/nut")).group(1)
    assert admin.get(f"/setup/products/nut/images/{digest}").headers["content-type"] == "image/png"
    assert admin.get(f"/setup/products/bolt/images/{digest}").status_code == 404
    assert "0 images" in admin.delete(f"/setup/products/nut/images/{digest}").text


def test_a_model_is_uploaded_as_the_next_version(admin, trained_file):
    content = trained_file.read_bytes()
    answer = admin.post("/setup/products/bolt/models", files={"file": ("../model.safetensors", content)})
    assert answer.json() == {"number": 2}
    assert admin.post("/setup/products/bolt/models", files={"file": ("model.exe", content)}).status_code == 415
    assert admin.post("/setup/products/bolt/models", files={"file": ("m.safetensors", b"x")}).status_code == 400
    assert "Uploaded" in get(admin, "/learn/versions?product=bolt")


def test_a_region_of_interest_is_kept_for_the_next_training(admin, station):
    address = "/setup/products/bolt/plan/"
    assert "plan.js" in get(admin, address)
    assert admin.get(f"{address}plan").json() == {"plan": {}, "size": [64, 64]}
    assert admin.get(f"{address}image").headers["content-type"] == "image/png"
    square = [[4, 4], [60, 4], [60, 60], [4, 60]]
    drawn = {"image_size": [64, 64], "include": [square], "mm_per_pixel": 0.1, "register": True}
    assert admin.post(f"{address}save", json=drawn).text.startswith("Saved")
    with station.database.session() as session:
        plan = session.get(Product, "bolt").inspection_plan
    assert plan["include"] == [square]
    assert "registration" in plan
    assert "0.1 mm per pixel" in get(admin, "/setup/products/bolt")
    for wrong in ({"include": [square]}, [], {"rules": {"min_length": "3mm"}}):
        assert admin.post(f"{address}save", json=wrong).status_code == 422


def test_sources_and_outputs_are_forms_of_their_settings(admin, station, tmp_path):
    # Sources and outputs run in one event loop.
    with admin:
        form = get(admin, "/setup/sources/new?kind=folder")
        assert 'name="steady_seconds"' in form
        assert 'type="checkbox" name="subfolders"' in form
        assert admin.get("/setup/sources/new?kind=webhook").status_code == 404
        sent = {"name": "Line 1", "product": "bolt", "folder": str(tmp_path), "after": "move"}
        assert admin.post("/setup/sources/new?kind=folder", data=sent).headers["hx-redirect"] == "/setup/sources"
        assert admin.post("/setup/sources/new?kind=folder", data={**sent, "folder": "x"}).status_code in (400, 409)
        hook = {"name": "MES", "product": "", "address": "https://mes.local/x", "secret": "s3cret"}
        assert admin.post("/setup/outputs/new?kind=webhook", data=hook).status_code == 204
        with station.database.session() as session:
            source, output = session.scalars(select(Source)).one(), session.scalars(select(Output)).one()
        assert (source.settings["after"], source.settings["subfolders"]) == ("move", False)
        shown = get(admin, f"/setup/outputs/{output.id}")
        assert "s3cret" not in shown
        assert "********" in shown
        kept = {**hook, "address": "https://mes.local/y", "secret": "********"}
        admin.post(f"/setup/outputs/{output.id}", data=kept)
        with station.database.session() as session:
            settings = session.get(Output, output.id).settings
        assert (settings["address"], settings["secret"]) == ("https://mes.local/y", "s3cret")
        assert "Disabled" in admin.post(f"/setup/sources/{source.id}/enabled", data={"enabled": "false"}).text
        assert admin.post(f"/setup/sources/{source.id}/remove").status_code == 204
        assert "There is no source" in get(admin, "/setup/sources/status")


def test_monitor_draws_charts_and_alarms_are_acknowledged(admin, station):
    with station.database.session() as session:
        session.add(Alarm(kind="source", message=EVIL, product_id="bolt"))
        session.flush()
    text = get(admin, "/monitor?product=bolt")
    assert text.count('<svg class="chart"') >= 3
    assert "<img src=x" not in text
    assert "Open alarms: 1" in get(admin, "/alarms/badge")
    number = re.search(r'hx-post="/monitor/alarms/(\d+)"', text).group(1)
    assert "Acknowledge<" not in admin.post(f"/monitor/alarms/{number}").text
    assert admin.post(f"/monitor/alarms/{number}").status_code == 409
    assert "Open alarms" not in get(admin, "/alarms/badge")
    assert "chart" in get(admin, "/monitor/panel?product=bolt&version=1")
    assert admin.get("/monitor?version=9").status_code == 404


def test_streams_end_with_the_station(station):
    async def read():
        stream = events.follow(None, "ann", station, "bolt")
        received = [await anext(stream)]
        waiting = asyncio.ensure_future(anext(stream, None))
        await asyncio.sleep(0.05)
        station.events.publish("stop", {})
        return [*received, await waiting]

    assert asyncio.run(asyncio.wait_for(read(), 10)) == [b"retry: 2000\n\n", None]


def test_users_and_tokens(admin, app):
    new = {"name": "eve", "password": "long enough", "role": "operator"}
    assert admin.post("/setup/users", data=new).status_code == 204
    assert admin.post("/setup/users", data=new).status_code == 409
    assert "eve" in get(admin, "/setup/users")
    changed = admin.post("/setup/users/eve", data={"role": "engineer"})
    assert re.search(r'value="engineer" selected', changed.text)
    assert "Disabled" in admin.post("/setup/users/eve", data={"disabled": "true"}).text
    created = admin.post("/setup/tokens", data={"name": "press 3", "role": "operator", "days": "30"})
    secret = re.search(r"hsp_[\w-]+", created.text).group(0)
    assert secret not in get(admin, "/setup/tokens")
    assert (
        client_of(app).get("/live/panel?product=bolt", headers={"Authorization": f"Bearer {secret}"}).status_code == 200
    )
    number = re.search(r"/setup/tokens/(\d+)/revoke", get(admin, "/setup/tokens")).group(1)
    assert "There is no token" in admin.post(f"/setup/tokens/{number}/revoke").text
    assert "token.revoke" in get(admin, "/setup/audit")
    wrong = admin.post("/setup/account", data={"current": "wrong", "new": "long enough"})
    assert wrong.status_code == 403


def test_the_product_is_remembered(admin, station):
    with station.database.session() as session:
        session.add(Product(id="nut", name="A nut"))
    assert "<h1>A nut</h1>" in get(admin, "/live")
    assert "<h1>Bolt</h1>" in get(admin, "/live?product=bolt")
    assert "<h1>Bolt</h1>" in get(admin, "/live")
    assert "<h1>Bolt</h1>" in get(admin, "/live?product=../../etc")


def test_events_reach_followers_of_their_product(station, app, monkeypatch):
    monkeypatch.setattr(events, "HEARTBEAT", 0.2)
    alive = [True]
    monkeypatch.setattr(events, "identify", lambda request: "ann" if alive[0] else None)

    async def read():
        received = []
        stream = events.follow(None, "ann", station, "bolt")
        received.append(await anext(stream))
        waiting = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0.05)
        station.events.publish("inspection", {"product": "nut", "id": "1"})
        station.events.publish("inspection", {"product": "bolt", "id": "2"})
        station.events.publish("alarm", {"id": 3})
        received += [await waiting, await anext(stream), await anext(stream)]
        alive[0] = False
        received += [one async for one in stream]
        return received

    received = asyncio.run(asyncio.wait_for(read(), 10))
    assert received == [
        b"retry: 2000\n\n",
        b'event: inspection\ndata: {"product": "bolt", "id": "2"}\n\n',
        b'event: alarm\ndata: {"id": 3}\n\n',
        b": heartbeat\n\n",
    ]


def test_a_session_that_ended_gets_no_events_even_on_a_busy_line(station, monkeypatch):
    monkeypatch.setattr(events, "HEARTBEAT", 0.1)
    monkeypatch.setattr(events, "identify", lambda request: None)

    async def read():
        async def publish():
            while True:
                station.events.publish("inspection", {"product": "bolt"})
                await asyncio.sleep(0.01)

        busy = asyncio.ensure_future(publish())
        received = [one async for one in events.follow(None, "ann", station, None)]
        busy.cancel()
        return received

    assert 2 <= len(asyncio.run(asyncio.wait_for(read(), 10))) < 40


def test_pages_without_a_product_say_what_to_do(settings):
    settings.data.mkdir()
    station = Station(settings)
    station.database.migrate()
    browser = browser_of(create_app(station), "admin")
    for address in ("/live", "/inspections", "/review", "/learn", "/monitor", "/setup"):
        assert "There is no product yet" in get(browser, address)
    station.database.close()


@pytest.mark.parametrize("path", ["/inspections?before={}", "/setup/audit?before={}", "/setup/sources/{}"])
def test_a_number_of_more_than_64_bits_is_refused(admin, path):
    assert admin.get(path.format(10**30)).status_code == 422


def test_training_images_have_the_limit_of_pixels_of_the_station(station, admin, good_image):
    station.settings = station.settings.model_copy(update={"max_pixels": 10})
    answer = admin.post("/setup/products/bolt/images", files={"file": ("x.png", good_image)})
    assert answer.status_code == 422
    assert "more than 10 pixels" in answer.json()["detail"]
