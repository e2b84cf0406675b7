"""Inspect images by REST; find, show and export inspections."""

import csv
import io
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from hyperspot import load_model
from hyperspot.service.database.tables import StoredImage, now
from hyperspot.service.records import export
from hyperspot.service.records.image_store import ImageKey
from tests.service.api_station import API, inspect, problem, serving
from tests.service.conftest import encoded

URL = f"{API}/inspections"


@pytest.fixture(scope="module")
def here(model_file, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("api"), model_file) as running:
        yield running


@pytest.fixture(scope="module")
def client(here):
    return here.operator


def test_an_image_is_answered_with_the_verdict_of_the_model(client, model_file, bad_image):
    answer = inspect(client, bad_image, serial_number="S 7", lot="L", station="press 3")
    verdict = load_model(model_file).predict(bad_image)
    assert answer["score"] == pytest.approx(verdict.score, rel=1e-4)
    assert answer["is_anomalous"] is True
    assert answer["p_value"] == pytest.approx(verdict.p_value)
    assert answer["threshold"] == pytest.approx(verdict.threshold)
    assert [region["area"] for region in answer["regions"]] == [region.area for region in verdict.regions]
    assert (answer["serial_number"], answer["lot"], answer["station"]) == ("S 7", "L", "press 3")
    assert (answer["product"], answer["version"], answer["source"]) == ("bolt", 1, "rest")
    shown = client.get(answer["links"]["self"]).json()
    assert {name: shown[name] for name in answer} == answer


def test_a_form_does_the_same(client, good_image):
    fields = {"product": "bolt", "serial_number": "8", "lot": "", "station": "Größe 3"}
    answer = client.post(URL, data=fields, files={"image": ("../../etc/passwd", good_image)})
    assert answer.status_code == 200, answer.text
    assert (answer.json()["serial_number"], answer.json()["lot"], answer.json()["station"]) == ("8", None, "Größe 3")


@pytest.mark.parametrize(
    ("content", "status", "word"),
    [
        (b"", 400, "empty"),
        (b"<html><script>", 415, "no image"),
        (b"\x89PNG\r\n\x1a\n and nothing else", 422, "damaged"),
        (encoded(np.zeros((64, 64, 3), np.uint8))[:-40], 422, ""),
    ],
)
def test_what_is_no_image_is_refused(client, content, status, word):
    assert word in problem(client.post(URL, params={"product": "bolt"}, content=content), status)


def test_a_request_that_is_too_large_is_refused(good_image, tmp_path, model_file):
    with serving(tmp_path, model_file, max_upload=20_000, max_pixels=5000) as small:
        pixels = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
        too_long = small.operator.post(URL, params={"product": "bolt"}, content=encoded(pixels))
        problem(too_long, 413)
        bomb = encoded(np.zeros((100, 100), np.uint8))
        assert "pixels" in problem(small.operator.post(URL, params={"product": "bolt"}, content=bomb), 413)
        assert "pixels" in problem(small.operator.post(URL, params={"product": "bolt"}, files={"image": bomb}), 413)
        assert inspect(small.operator, good_image)


def test_a_repeated_key_is_answered_with_the_first_inspection(client, good_image, bad_image):
    headers = {"Idempotency-Key": "order 1"}
    first, again = (
        client.post(URL, params={"product": "bolt"}, content=good_image, headers=headers).json() for _ in range(2)
    )
    assert first == again
    problem(client.post(URL, params={"product": "bolt"}, content=bad_image, headers=headers), 409)


def test_a_product_is_needed(client, good_image):
    assert "product" in problem(client.post(URL, content=good_image), 422)
    problem(client.post(URL, params={"product": "nut"}, content=good_image), 404)
    problem(client.post(URL, params={"product": "bolt", "colour": "red"}, content=good_image), 422)


def test_each_image_of_a_batch_has_its_own_result(client, good_image, bad_image):
    images = [("images", ("a.png", good_image)), ("images", ("b.txt", b"no image")), ("images", ("c.png", bad_image))]
    fields = {"product": "bolt", "serial_number": ["1", "2", "3"], "lot": "batch"}
    answer = client.post(f"{URL}/batch", data=fields, files=images, headers={"Idempotency-Key": "batch 1"})
    results = answer.json()["results"]
    assert [result["status"] for result in results] == [200, 415, 200]
    assert [result.get("inspection", {}).get("is_anomalous") for result in results] == [False, None, True]
    assert [results[0]["inspection"]["serial_number"], results[2]["inspection"]["serial_number"]] == ["1", "3"]
    assert results[1]["problem"]["title"] == "Unsupported media type"
    again = client.post(f"{URL}/batch", data=fields, files=images, headers={"Idempotency-Key": "batch 1"})
    assert again.json() == answer.json()


def test_a_batch_needs_images_and_a_serial_number_for_each_or_none(client, good_image):
    problem(client.post(f"{URL}/batch", data={"product": "bolt"}), 415)
    problem(client.post(f"{URL}/batch", data={"product": "bolt"}, files={"other": good_image}), 400)
    two = [("images", good_image), ("images", good_image)]
    problem(client.post(f"{URL}/batch", data={"product": "bolt", "serial_number": ["1"]}, files=two), 422)


def test_a_full_queue_is_answered_with_a_time(here, client, good_image, monkeypatch):
    monkeypatch.setattr(here.station.pool, "is_full", lambda: True)
    answer = client.post(URL, params={"product": "bolt"}, content=good_image)
    problem(answer, 429)
    assert int(answer.headers["retry-after"]) >= 1


@pytest.fixture(scope="module")
def many(client, good_pixels, bad_image):
    """Five inspections of lot `many`, oldest first: good, bad, good, bad, good."""
    found = []
    for place, pixels in enumerate(good_pixels[:5]):
        image = bad_image if place % 2 else encoded(pixels)
        found.append(inspect(client, image, lot="many", serial_number=f"many-{place}", station="=1+1"))
    label = {"label": "defect", "comment": "scratch"}
    assert client.post(f"{URL}/{found[1]['id']}/labels", json=label).status_code == 201
    return found


def listed(client, **query):
    answer = client.get(URL, params={"lot": "many", **query})
    assert answer.status_code == 200, answer.text
    return [one["serial_number"][-1] for one in answer.json()["inspections"]]


def test_filters(client, many):
    assert listed(client) == list("43210")
    assert listed(client, product="bolt", version=1, station="=1+1", source="rest") == list("43210")
    assert listed(client, decision="anomalous") == list("31")
    assert listed(client, decision="good") == list("420")
    assert listed(client, decision="none") == []
    assert listed(client, label="defect") == list("1")
    assert listed(client, label="any") == list("1")
    assert listed(client, label="none") == list("4320")
    assert listed(client, label="good") == listed(client, label="unsure") == listed(client, label="disagreement") == []
    assert listed(client, reason="alarm") == list("31")
    assert listed(client, serial_number="many-2") == list("2")
    assert listed(client, text="ANY-2") == list("2")
    assert listed(client, text="%") == listed(client, text="_2") == []
    assert listed(client, min_score=many[1]["score"]) == list("31")
    assert listed(client, max_score=many[1]["score"], decision="anomalous") == list("31")
    assert listed(client, since=many[2]["received_at"]) == list("432")
    assert listed(client, until=many[2]["received_at"]) == list("10")
    future = datetime.now(UTC) + timedelta(days=1)
    assert listed(client, since=future.isoformat()) == listed(client, version=2) == []


def test_reviewers_that_disagree(here, many):
    one = f"{URL}/{many[3]['id']}"
    for client, label in ((here.operator, "defect"), (here.engineer, "good")):
        assert client.post(f"{one}/labels", json={"label": label}).status_code == 201
    assert listed(here.operator, label="disagreement") == list("3")
    assert here.operator.get(one).json()["label"] == "disagreement"
    here.engineer.post(f"{one}/labels", json={"label": "unsure"})
    assert listed(here.operator, label="defect") == list("31")
    assert [label["label"] for label in here.operator.get(f"{one}/labels").json()] == ["defect", "unsure"]


def test_pages_follow_each_other(client, many, good_image):
    first = client.get(URL, params={"lot": "many", "limit": 2}).json()
    # What is recorded meanwhile moves nothing.
    inspect(client, good_image, lot="many", serial_number="late-9")
    second = client.get(first["next"]).json()
    third = client.get(second["next"]).json()
    shown = [[one["serial_number"] for one in page["inspections"]] for page in (first, second, third)]
    assert shown == [["many-4", "many-3"], ["many-2", "many-1"], ["many-0"]]
    assert third["next"] is None


def test_the_history_of_a_part(client, good_image, bad_image):
    first, second = (inspect(client, image, serial_number="part-5") for image in (bad_image, good_image))
    shown = client.get(second["links"]["self"]).json()
    assert [one["id"] for one in shown["history"]] == [first["id"]]
    assert set(shown["checks"]) == {"brightness", "focus", "position_x", "position_y"}
    assert shown["has_image"] is True


def test_pictures(client, many, bad_image):
    links = many[1]["links"]
    assert client.get(links["image"]).content == bad_image
    sizes = {name: Image.open(io.BytesIO(client.get(links[name]).content)) for name in ("overlay", "mask", "heatmap")}
    assert {name: image.size for name, image in sizes.items()} == dict.fromkeys(sizes, (64, 64))
    assert (sizes["mask"].mode, sizes["heatmap"].mode) == ("1", "I;16")
    mask = np.asarray(sizes["mask"])
    assert mask[28:36, 28:36].all()
    assert not mask[:8].any()
    for name in ("image", "overlay", "mask", "heatmap"):
        small = client.get(links[name], params={"width": 32})
        assert Image.open(io.BytesIO(small.content)).size == (32, 32)
        assert small.headers["cache-control"].startswith("private")


def test_a_picture_that_the_client_has_is_not_sent_again(client, many):
    for name in ("image", "overlay"):
        first = client.get(many[0]["links"][name])
        again = client.get(many[0]["links"][name], headers={"If-None-Match": f'"other", W/{first.headers["etag"]}'})
        assert (again.status_code, again.content) == (304, b"")
        other = client.get(
            many[0]["links"][name], params={"width": 16}, headers={"If-None-Match": first.headers["etag"]}
        )
        assert other.status_code == 200


def test_images_that_retention_removed_are_gone(here, client, good_pixels):
    one = inspect(client, encoded(good_pixels[20]))
    with here.station.database.session() as session:
        stored = session.query(StoredImage).order_by(StoredImage.stored_at.desc()).first()
        stored.removed_at = now()
    here.station.images.remove(ImageKey(stored.sha256, stored.suffix))
    for name in ("image", "overlay"):
        assert "retention" in problem(client.get(one["links"][name]), 410)
    assert client.get(one["links"]["self"]).json()["has_image"] is False


def test_csv_has_a_row_for_each_inspection(client, many):
    answer = client.get(f"{URL}/export", params={"lot": "many", "reason": "alarm"})
    assert answer.headers["content-type"].startswith("text/csv")
    assert "attachment" in answer.headers["content-disposition"]
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    assert [row["serial_number"] for row in rows] == ["many-3", "many-1"]
    assert list(rows[0]) == list(export.COLUMNS)
    assert float(rows[1]["score"]) == many[1]["score"]
    assert rows[1]["label"] == "defect"
    # A spreadsheet would compute it.
    assert rows[0]["station"] == "'=1+1"
    assert int(rows[0]["defect_area_px"]) == sum(region["area"] for region in many[3]["regions"])


def test_parquet_has_the_same_rows(client, many):
    answer = client.get(f"{URL}/export", params={"lot": "many", "reason": "alarm", "format": "parquet"})
    table = pyarrow.parquet.read_table(io.BytesIO(answer.content))
    assert table.column_names == list(export.COLUMNS)
    assert table.column("serial_number").to_pylist() == ["many-3", "many-1"]
    assert table.column("station").to_pylist() == ["=1+1", "=1+1"]
    assert table.column("received_at").to_pylist()[1] == datetime.fromisoformat(many[1]["received_at"])


def test_exports_are_read_in_pages(client, many, monkeypatch):
    whole = client.get(f"{URL}/export", params={"product": "bolt"}).text
    monkeypatch.setattr(export, "AT_ONCE", 2)
    assert client.get(f"{URL}/export", params={"product": "bolt"}).text == whole
    monkeypatch.setattr(export, "ROW_GROUP", 2)
    content = client.get(f"{URL}/export", params={"lot": "many", "reason": "any", "format": "parquet"}).content
    assert pyarrow.parquet.read_table(io.BytesIO(content)).num_rows == 2
