"""Products, versions, training images, jobs, sources and outputs by REST."""

import base64
import hashlib
import io
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from hyperspot.service.database.tables import Alarm
from hyperspot.service.products.catalog import create_product
from tests.service.api_station import API, inspect, problem, serving
from tests.service.clients import audited
from tests.service.conftest import encoded

PRODUCTS = f"{API}/products"


@pytest.fixture(scope="module")
def here(model_file, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("api"), model_file) as running:
        yield running


@pytest.fixture
def product(here, request):
    """Return the address of a product of its own."""
    product_id = hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    with here.station.database.session() as session:
        create_product(session, product_id, product_id, "tests")
    return f"{PRODUCTS}/{product_id}"


def test_products_are_added_renamed_and_archived(here):
    added = here.engineer.post(PRODUCTS, json={"id": "nut", "name": "Nut <b>"})
    assert added.status_code == 201
    assert added.json() | {"created_at": ""} == {
        "id": "nut",
        "name": "Nut <b>",
        "active_version": None,
        "versions": 0,
        "training_images": 0,
        "review_share": 0.02,
        "near_miss": 3.0,
        "has_inspection_plan": False,
        "is_archived": False,
        "created_at": "",
    }
    problem(here.engineer.post(PRODUCTS, json={"id": "nut"}), 409)
    problem(here.engineer.post(PRODUCTS, json={"id": "../nut"}), 422)
    changed = here.engineer.patch(f"{PRODUCTS}/nut", json={"name": "Nut", "review_share": 0.5, "is_archived": True})
    assert (changed.json()["name"], changed.json()["review_share"]) == ("Nut", 0.5)
    shown = {one["id"] for one in here.operator.get(PRODUCTS).json()}
    every = {one["id"] for one in here.operator.get(PRODUCTS, params={"archived": True}).json()}
    assert ("bolt" in shown, "nut" in shown, "nut" in every) == (True, False, True)
    assert "restore" in problem(here.operator.post(f"{API}/inspections?product=nut", content=encoded_black()), 409)
    problem(here.engineer.patch(f"{PRODUCTS}/nut", json={"review_share": 2}), 422)
    assert ("product.create", "nut") in [(action, subject) for _, action, subject in audited(here.station)]


def encoded_black():
    return encoded(np.zeros((64, 64, 3), np.uint8))


def test_inspection_plans_are_checked(here, product):
    plan = {"image_size": [640, 480], "include": [[[40, 40], [600, 40], [600, 440]]], "mm_per_pixel": 0.05}
    problem(here.operator.get(f"{product}/inspection-plan"), 404)
    assert here.engineer.put(f"{product}/inspection-plan", json=plan).json()["mm_per_pixel"] == 0.05
    assert here.operator.get(f"{product}/inspection-plan").json()["image_size"] == [640, 480]
    for wrong in ({"mm_per_pixel": "wide"}, {"zoom": 1}, {"include": 3}, {"image_size": [1]}, {"zones": [5]}):
        problem(here.engineer.put(f"{product}/inspection-plan", json=wrong), 422)
    assert here.engineer.delete(f"{product}/inspection-plan").status_code == 204
    assert here.operator.get(product).json()["has_inspection_plan"] is False


def test_versions_are_uploaded_activated_and_rolled_back(here, product, model_file, good_image):
    content = model_file.read_bytes()
    files = [("files", ("../../a.onnx", content))]
    first = here.engineer.post(f"{product}/versions", files=files, data={"note": "one", "activate": "true"})
    assert first.status_code == 201, first.text
    assert (first.json()["number"], first.json()["is_active"], first.json()["note"]) == (1, True, "one")
    assert first.json()["sha256"] == hashlib.sha256(content).hexdigest()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("part.onnx", content)
    second = here.engineer.post(f"{product}/versions", files=[("files", ("part.zip", archive.getvalue()))])
    assert (second.json()["number"], second.json()["is_active"]) == (2, False)
    assert here.engineer.post(f"{product}/versions/2/activate").json()["is_active"] is True
    assert [one["is_active"] for one in here.operator.get(f"{product}/versions").json()] == [True, False]
    product_id = product.rpartition("/")[2]
    assert inspect(here.operator, good_image, product=product_id)["version"] == 2
    assert here.engineer.post(f"{product}/roll-back").json()["number"] == 1
    assert inspect(here.operator, good_image, product=product_id)["version"] == 1
    problem(here.engineer.post(f"{product}/roll-back"), 409)
    problem(here.engineer.post(f"{product}/versions/7/activate"), 404)
    download = here.engineer.get(f"{product}/versions/1/file")
    assert download.content == content
    assert f"{product_id}-1.onnx" in download.headers["content-disposition"]


@pytest.mark.parametrize(
    ("names", "content", "status"),
    [
        (["a.onnx"], b"no model", 422),
        (["a.safetensors"], b"no model", 422),
        (["a.zip"], b"no archive", 422),
        (["a.exe"], b"", 415),
        (["a.bin"], b"", 422),
        (["a.onnx", "b.onnx"], b"", 422),
        (["a.onnx", "b.bin"], b"", 422),
    ],
)
def test_what_is_no_model_is_refused(here, product, names, content, status):
    files = [("files", (name, content)) for name in names]
    detail = problem(here.engineer.post(f"{product}/versions", files=files), status)
    assert str(here.station.settings.data) not in detail
    assert here.operator.get(f"{product}/versions").json() == []
    assert not list(here.station.settings.data.glob(".upload-*"))


def test_figures_of_a_version(here):
    figures = here.operator.get(f"{PRODUCTS}/bolt/versions/1/figures").json()
    assert figures["detection_rate"]["value"] is None
    assert figures["detection_rate"]["missing"]
    assert figures["promised_false_alarm_rate"] == 0.1


def test_training_images(here, product, good_pixels):
    images = [("images", encoded(pixels)) for pixels in good_pixels[:3]]
    answer = here.engineer.post(f"{product}/training-images", files=[*images, images[0], ("images", b"<html>")])
    results = answer.json()["results"]
    assert [result["added"] for result in results] == [True, True, True, False, False]
    assert results[4]["problem"]["status"] == 422
    page = here.operator.get(f"{product}/training-images", params={"start": 1, "limit": 1}).json()
    assert page["total"] == 3
    assert here.operator.get(page["images"][0]["link"]).content == images[1][1]
    small = here.operator.get(page["images"][0]["link"], params={"width": 16})
    assert Image.open(io.BytesIO(small.content)).width == 16
    assert here.engineer.delete(page["images"][0]["link"]).status_code == 204
    problem(here.engineer.delete(page["images"][0]["link"]), 404)
    problem(here.operator.get(page["images"][0]["link"]), 404)
    assert here.operator.get(product).json()["training_images"] == 2


def test_jobs_are_started_followed_and_canceled(here, product):
    product_id = product.rpartition("/")[2]
    started = here.engineer.post(f"{API}/jobs", json={"kind": "train", "product": product_id})
    assert started.status_code == 201, started.text
    link = f"{API}/jobs/{started.json()['id']}"
    until = time.monotonic() + 60
    while (job := here.operator.get(link).json())["state"] in ("queued", "running") and time.monotonic() < until:
        time.sleep(0.2)
    # There is no training image.
    assert (job["state"], "training image" in job["error"]) == ("failed", True)
    problem(here.engineer.post(f"{link}/cancel"), 409)
    assert [one["id"] for one in here.operator.get(f"{API}/jobs", params={"product": product_id}).json()] == [job["id"]]
    problem(here.engineer.post(f"{API}/jobs", json={"kind": "mine", "product": product_id}), 422)
    problem(here.engineer.post(f"{API}/jobs", json={"kind": "train", "product": "none"}), 404)
    wrong = {"kind": "train", "product": product_id, "parameters": {"activate": "perhaps"}}
    problem(here.engineer.post(f"{API}/jobs", json=wrong), 422)
    problem(here.operator.get(f"{API}/jobs/999999"), 404)


def test_archives_are_uploaded(here):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("good/1.png", encoded_black())
    answer = here.engineer.post(f"{API}/uploads", files={"archive": ("data.zip", archive.getvalue())})
    assert answer.json() == {"upload": hashlib.sha256(archive.getvalue()).hexdigest()}
    problem(here.engineer.post(f"{API}/uploads", files={"archive": ("data.zip", b"no archive")}), 422)


def test_masks_of_labels(here, bad_image):
    one = f"{API}/inspections/{inspect(here.operator, bad_image)['id']}"
    drawn = np.zeros((64, 64), np.uint8)
    drawn[24:40, 24:40] = 255
    body = {"label": "defect", "comment": "<script>", "mask": base64.b64encode(encoded(drawn)).decode()}
    label = here.operator.post(f"{one}/labels", json=body).json()
    assert (label["has_mask"], label["comment"]) == (True, "<script>")
    mask = here.operator.get(f"{one}/labels/{label['id']}/mask")
    assert (np.asarray(Image.open(io.BytesIO(mask.content))) == (drawn > 0)).all()
    problem(here.operator.get(f"{one}/labels/{label['id'] + 1}/mask"), 404)
    for wrong in ("", "%%%", base64.b64encode(encoded(drawn[:32])).decode()):
        problem(here.operator.post(f"{one}/labels", json=body | {"mask": wrong}), 422)
    problem(here.operator.post(f"{one}/labels", json={"label": "maybe"}), 422)


def test_the_review_queue(here, bad_image):
    one = inspect(here.operator, bad_image, serial_number="to review")
    queue = here.engineer.get(f"{API}/review", params={"product": "bolt"}).json()
    assert one["id"] in [each["id"] for each in queue["inspections"]]
    assert queue["waiting"]["alarm"] >= 1
    here.engineer.post(f"{one['links']['self']}/labels", json={"label": "good"})
    after = here.engineer.get(f"{API}/review", params={"product": "bolt"}).json()
    assert one["id"] not in [each["id"] for each in after["inspections"]]


def test_sources_are_added_changed_and_removed(here, tmp_path, good_image):
    (tmp_path / "in").mkdir()
    body = {"name": "dock 1", "kind": "folder", "product": "bolt", "settings": {"folder": str(tmp_path / "in")}}
    added = here.engineer.post(f"{API}/sources", json=body)
    assert added.status_code == 201, added.text
    assert added.json()["status"]["kind"] == "folder"
    problem(here.engineer.post(f"{API}/sources", json=body), 409)
    problem(here.engineer.post(f"{API}/sources", json=body | {"name": "lookout"}), 422)
    problem(here.engineer.post(f"{API}/sources", json=body | {"name": "b", "settings": {"fold": 1}}), 422)
    problem(here.engineer.post(f"{API}/sources", json=body | {"name": "b", "product": None}), 422)
    problem(here.engineer.post(f"{API}/sources", json=body | {"name": "b", "kind": "fax"}), 422)
    # It inspects what it finds.
    problem(here.operator.post(f"{API}/sources/dock 1/trigger"), 409)
    problem(here.operator.post(f"{API}/sources/none/trigger", json={"serial_number": "7"}), 404)
    (tmp_path / "in" / "part.png").write_bytes(good_image)
    until = time.monotonic() + 30
    while here.operator.get(f"{API}/sources/dock 1").json()["status"]["images"] == 0 and time.monotonic() < until:
        time.sleep(0.2)
    assert here.operator.get(f"{API}/inspections", params={"source": "dock 1"}).json()["inspections"]
    stopped = here.engineer.patch(f"{API}/sources/dock 1", json={"is_enabled": False}).json()
    assert (stopped["is_enabled"], stopped["status"]) == (False, None)
    assert stopped["settings"]["folder"] == str(tmp_path / "in")
    assert here.engineer.delete(f"{API}/sources/dock 1").status_code == 204
    problem(here.operator.get(f"{API}/sources/dock 1"), 404)
    assert "folder" in here.operator.get(f"{API}/sources/kinds").json()


def test_secrets_of_outputs_are_not_shown_and_stay(here):
    settings = {"address": "http://127.0.0.1:9/verdicts", "secret": "hush-hush"}
    body = {"name": "MES", "kind": "webhook", "settings": settings, "is_enabled": False}
    added = here.engineer.post(f"{API}/outputs", json=body).json()
    assert added["settings"]["secret"] == "********"
    changed = here.engineer.patch(
        f"{API}/outputs/MES", json={"settings": {"address": "http://127.0.0.1:9/other", "secret": "********"}}
    )
    assert "hush" not in added["settings"].values()
    assert "hush-hush" not in changed.text
    from hyperspot.service.connection_rows import named_row
    from hyperspot.service.database.tables import Output

    with here.station.database.session() as session:
        kept = named_row(session, Output, "MES").settings
    assert (kept["secret"], kept["address"]) == ("hush-hush", "http://127.0.0.1:9/other")
    assert here.engineer.post(f"{API}/outputs/MES/retry").status_code == 204
    assert here.engineer.delete(f"{API}/outputs/MES").status_code == 204
    assert "hush-hush" not in str(audited(here.station))


def test_a_camera_is_triggered(here, tmp_path, good_image, monkeypatch):
    from hyperspot.service.inspecting import InspectionRequest

    async def trigger(name, serial_number, product_id):
        request = InspectionRequest(product_id or "bolt", good_image, source=name, serial_number=serial_number)
        return await here.station.inspector.inspect(request)

    monkeypatch.setattr(here.station.sources, "trigger", trigger)
    answer = here.operator.post(f"{API}/sources/cam/trigger", json={"serial_number": "T 1"}).json()
    assert (answer["source"], answer["serial_number"]) == ("cam", "T 1")


def test_alarms_are_acknowledged_once(here):
    with here.station.database.session() as session:
        alarm = Alarm(product_id="bolt", kind="focus", message="the images are blurred", details={"value": 1.5})
        session.add(alarm)
    listed = here.operator.get(f"{API}/alarms", params={"product": "bolt"}).json()
    assert (listed[0]["id"], listed[0]["message"]) == (alarm.id, "the images are blurred")
    problem(here.operator.post(f"{API}/alarms/{alarm.id}/acknowledge"), 403)
    seen = here.engineer.post(f"{API}/alarms/{alarm.id}/acknowledge").json()
    assert seen["acknowledged_by"].startswith("token engineer")
    problem(here.engineer.post(f"{API}/alarms/{alarm.id}/acknowledge"), 409)
    assert here.operator.get(f"{API}/alarms").json() == []
    assert here.operator.get(f"{API}/alarms", params={"acknowledged": True}).json() == [seen]


def test_scores_over_time(here, bad_image):
    one = inspect(here.operator, bad_image)
    series = here.operator.get(f"{PRODUCTS}/bolt/monitor", params={"bins": 3}).json()
    assert (series["version"], series["promised_false_alarm_rate"]) == (1, 0.1)
    assert series["bins"][-1]["last"] == one["number"]
    assert sum(part["count"] for part in series["bins"]) == series["inspections"]
    problem(here.operator.get(f"{PRODUCTS}/none/monitor"), 404)
    problem(here.operator.get(f"{PRODUCTS}/bolt/monitor", params={"version": 9}), 404)
