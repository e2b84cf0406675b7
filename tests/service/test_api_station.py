"""Health, metrics, OpenAPI, DetectAnomalies, and requests that mean harm."""

import base64
import io
import json
import re
import urllib.parse

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from hyperspot.service.access.guard import SAFE
from hyperspot.service.api import health
from hyperspot.service.database.tables import Alarm
from tests.service.api_station import API, inspect, problem, serving
from tests.service.clients import bearer

DETECT = "/2020-11-20/projects/bolt/models/active/detect"
METHODS = ("get", "post", "put", "patch", "delete")
OPEN = {"/health/live", "/health/ready"}


@pytest.fixture(scope="module")
def here(model_file, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("api"), model_file) as running:
        yield running


@pytest.fixture(scope="module")
def schema(here):
    return here.anybody.get(f"{API}/openapi.json").json()


def operations(schema):
    """Yield method, path and description of what this package answers; sign-in and users have tests of their own."""
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            if operation.get("tags", ["access"]) != ["access"]:
                yield method, path, operation


# Health and metrics


def test_the_station_is_live_and_ready(here):
    assert here.anybody.get("/health/live").json() == {"status": "live"}
    assert here.anybody.get("/health/ready").json() == {"status": "ready"}


def test_a_station_that_cannot_inspect_says_why(here, monkeypatch):
    monkeypatch.setattr(here.station.database, "is_ready", lambda: False)
    monkeypatch.setattr(type(here.station.pool), "processes", [])
    answer = here.anybody.get("/health/ready")
    detail = problem(answer, 503)
    assert answer.json()["reasons"] == ["the database does not answer", "no worker runs"]
    assert "database" in detail
    free = 10**30
    assert "MB left" in health.reasons_against(here.station, free)[-1]


def test_metrics_count_what_happened(here, good_image, bad_image):
    def values():
        text = here.operator.get("/metrics").text
        found = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                found[(sample.name, *sorted(sample.labels.values()))] = sample.value
        return found

    before = values()
    for image in (good_image, bad_image, bad_image):
        inspect(here.operator, image)
    with here.station.database.session() as session:
        session.add(Alarm(product_id="bolt", kind="focus", message="m"))
    after = values()

    def grown(*key):
        return after.get(key, 0) - before.get(key, 0)

    assert grown("hyperspot_inspections_total", "anomalous", "bolt") == 2
    assert grown("hyperspot_inspections_total", "bolt", "good") == 1
    assert grown("hyperspot_inspection_seconds_count") == 3
    assert grown("hyperspot_queue_seconds_count") == 3
    assert grown("hyperspot_prediction_seconds_count") == 3
    assert 0 < grown("hyperspot_prediction_seconds_sum") < grown("hyperspot_inspection_seconds_sum")
    assert grown("hyperspot_alarms") == 1
    assert after[("hyperspot_workers",)] == 1
    assert after[("hyperspot_queue_length",)] == 0
    assert after[("hyperspot_jobs", "queued")] == 0
    assert 0 < after[("hyperspot_disk_bytes", "free")] <= after[("hyperspot_disk_bytes", "total")]


def test_strangers_make_no_series(here, good_image):
    before = here.operator.get("/metrics").text.count("hyperspot_inspections_total")
    for number in range(5):
        here.operator.post(f"{API}/inspections?product=made-up-{number}", content=good_image)
    assert here.operator.get("/metrics").text.count("hyperspot_inspections_total") == before


# OpenAPI


def test_every_operation_is_described(schema):
    found = list(operations(schema))
    assert len(found) > 50
    names = {tag["name"] for tag in schema["tags"]}
    for method, path, operation in found:
        where = f"{method} {path}"
        assert operation["summary"], where
        assert operation["description"], where
        assert set(operation["tags"]) <= names, where
        good = [status for status in operation["responses"] if status.startswith("2")]
        assert good, where
        for status in good:
            assert status == "204" or operation["responses"][status]["content"], where
            for content in operation["responses"][status].get("content", {}).values():
                assert content["schema"], where
        if path not in OPEN:
            assert operation["security"], where
            assert {"401", "403"} <= set(operation["responses"]) or "lookout" in operation["tags"], where
        if method in ("post", "put", "patch") and "requestBody" in operation:
            assert {"422", "400"} & set(operation["responses"]), where


def test_errors_are_documented_as_problem_details(schema):
    for method, path, operation in operations(schema):
        for status, response in operation["responses"].items():
            if status.startswith(("4", "5")):
                where = f"{method} {path} {status}"
                shape = "LookoutError" if "lookout" in operation["tags"] else "ProblemDetails"
                contents = list(response["content"].values())
                assert contents[0]["schema"]["$ref"].endswith(shape), where
                if shape == "ProblemDetails":
                    assert list(response["content"]) == ["application/problem+json"], where
    assert "HTTPValidationError" not in json.dumps(schema)
    references = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(schema)))
    assert references <= set(schema["components"]["schemas"])


# Who may do what


def filled(path):
    """Return a path whose parameters lead to nothing."""
    values = {"product_id": "none", "inspection_id": "0" * 32, "sha256": "0" * 64, "name": "none", "project": "none"}
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], "999999"), path)


def test_nobody_gets_in_without_a_token(here, schema):
    for method, path, operation in operations(schema):
        if path in OPEN:
            continue
        for headers in ({}, {"Authorization": "Bearer hsp_wrong"}, {"Authorization": "Basic YTpi"}):
            answer = here.anybody.request(method, filled(path), headers=headers)
            assert answer.status_code == (403 if "lookout" in operation["tags"] else 401), f"{method} {path}"


def test_operators_change_nothing_that_belongs_to_engineers(here, schema):
    for_operators = {
        ("post", f"{API}/inspections"),
        ("post", f"{API}/inspections/batch"),
        ("post", f"{API}/inspections/{{inspection_id}}/labels"),
        ("post", f"{API}/sources/{{name}}/trigger"),
        ("post", "/2020-11-20/projects/{project}/models/{version}/detect"),
    }
    for method, path, _ in operations(schema):
        answer = here.operator.request(method, filled(path), json={})
        if method.upper() in SAFE or (method, path) in for_operators:
            assert answer.status_code != 403 or path.startswith("/2020") or path.endswith("/file"), f"{method} {path}"
        else:
            problem(answer, 403)


# DetectAnomalies


def test_detect_anomalies_answers_as_the_service_does(here, bad_image):
    answer = here.operator.post(DETECT, content=bad_image, headers={"Content-Type": "image/png"})
    assert answer.status_code == 200, answer.text
    result = answer.json()["DetectAnomalyResult"]
    assert set(result) == {"Source", "IsAnomalous", "Confidence", "Anomalies", "AnomalyMask"}
    assert (result["Source"], result["IsAnomalous"]) == ({"Type": "direct"}, True)
    recorded = here.operator.get(f"{API}/inspections", params={"source": "lookout"}).json()["inspections"][0]
    assert result["Confidence"] == pytest.approx(1 - recorded["p_value"])
    mask = np.asarray(Image.open(io.BytesIO(base64.b64decode(result["AnomalyMask"]))))
    assert mask.shape == (64, 64, 3)
    background, anomaly = result["Anomalies"]
    assert (background["Name"], background["PixelAnomaly"]["Color"]) == ("background", "#FFFFFF")
    assert anomaly["Name"] == "anomaly"
    share = anomaly["PixelAnomaly"]["TotalPercentageArea"]
    color = [int(anomaly["PixelAnomaly"]["Color"][start : start + 2], 16) for start in (1, 3, 5)]
    assert (mask == color).all(axis=2).mean() == pytest.approx(share)
    assert share * 64 * 64 == pytest.approx(sum(region["area"] for region in recorded["regions"]))
    assert background["PixelAnomaly"]["TotalPercentageArea"] == pytest.approx(1 - share)


def test_a_normal_image_has_its_p_value_as_confidence(here, good_image):
    result = here.operator.post(DETECT.replace("active", "1"), content=good_image).json()["DetectAnomalyResult"]
    recorded = here.operator.get(f"{API}/inspections", params={"source": "lookout"}).json()["inspections"][0]
    assert (result["IsAnomalous"], result["Confidence"]) == (False, recorded["p_value"])


@pytest.mark.parametrize(
    ("path", "content", "status", "code"),
    [
        ("/2020-11-20/projects/none/models/1/detect", b"", 404, "ResourceNotFoundException"),
        ("/2020-11-20/projects/bolt/models/7/detect", b"", 409, "ConflictException"),
        (DETECT, b"no image", 400, "ValidationException"),
        (DETECT, b"", 400, "ValidationException"),
    ],
)
def test_detect_anomalies_fails_as_the_service_does(here, path, content, status, code):
    answer = here.operator.post(path, content=content)
    assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (status, code)
    assert answer.json()["Code"] == code
    assert answer.json()["Message"]


def test_detect_anomalies_is_throttled_and_closed_to_strangers(here, good_image, monkeypatch):
    denied = here.anybody.post(DETECT, content=good_image)
    assert (denied.status_code, denied.headers["x-amzn-errortype"]) == (403, "AccessDeniedException")
    monkeypatch.setattr(here.station.pool, "is_full", lambda: True)
    answer = here.operator.post(DETECT, content=good_image)
    assert (answer.status_code, answer.headers["x-amzn-errortype"]) == (429, "ThrottlingException")
    assert int(answer.headers["retry-after"]) >= 1


# Requests that mean harm

NASTY = [
    "' OR 1=1 --",
    '"; DROP TABLE inspections; --',
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "\0",
    "a\0b",
    "%00",
    "\ud83d\ude00",
    "🙂" * 80,
    "x" * 5000,
    "-1",
    "9" * 40,
    "1e400",
    "nan",
    "%",
    "_",
    "",
    " ",
    "{{7*7}}",
    "\r\nSet-Cookie: a=b",
]


def parameters_of(operation):
    return [one for one in operation.get("parameters", []) if one["in"] in ("query", "path")]


def test_no_value_of_a_parameter_is_a_500(here, schema):
    """Every parameter of every operation that reads, with each value."""
    for method, path, operation in operations(schema):
        if method != "get":
            continue
        for parameter in parameters_of(operation):
            for value in NASTY:
                value = value.encode("utf-8", "replace").decode()
                target = filled(path)
                query = {}
                if parameter["in"] == "path":
                    quoted = urllib.parse.quote(value, safe="")
                    target = filled(path.replace("{" + parameter["name"] + "}", quoted))
                else:
                    query = {parameter["name"]: value}
                answer = here.engineer.get(target, params=query)
                assert answer.status_code < 500, f"{path} {parameter['name']}={value!r}: {answer.text}"
                assert "set-cookie" not in answer.headers
                if answer.status_code >= 400:
                    assert answer.headers["content-type"] in ("application/problem+json",), (path, value)


def test_invalid_utf_8_in_a_query(here):
    answer = here.operator.get(f"{API}/inspections?lot=%ff%fe&text=%c3")
    assert answer.status_code == 200
    assert answer.json()["inspections"] == []


def test_unknown_filters_are_refused(here):
    for path in ("inspections", "inspections/export", "review", "jobs", "products"):
        problem(here.operator.get(f"{API}/{path}?serial=7"), 422)


@pytest.mark.parametrize("value", NASTY)
def test_no_text_about_a_part_is_a_500(here, good_image, value):
    value = value.encode("utf-8", "replace").decode()
    for name in ("product", "serial_number", "lot", "station"):
        fields = {"product": "bolt", name: value}
        for answer in (
            here.operator.post(f"{API}/inspections", params=fields, content=good_image),
            here.operator.post(f"{API}/inspections", data=fields, files={"image": good_image}),
        ):
            assert answer.status_code in (200, 404, 422), answer.text
            if answer.status_code == 200 and value:
                # Stored as it is, not interpreted.
                assert answer.json()[name] == value
                assert here.operator.get(answer.json()["links"]["self"]).json()[name] == value


BODIES = {
    "post /api/v1/products": {"id": "hostile", "name": "n"},
    "patch /api/v1/products/bolt": {"name": "n", "review_share": 0.1, "near_miss": 1},
    "put /api/v1/products/bolt/inspection-plan": {"mm_per_pixel": 0.1, "zones": []},
    "post /api/v1/jobs": {"kind": "train", "product": "bolt", "parameters": {"settings": {}, "note": "n"}},
    "post /api/v1/sources": {"name": "n", "kind": "folder", "product": "bolt", "settings": {"folder": "f"}},
    "post /api/v1/outputs": {"name": "n", "kind": "webhook", "settings": {"address": "http://a"}},
    "post /api/v1/sources/none/trigger": {"serial_number": "7"},
}
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from([*NASTY, "\ud800"]),
    st.recursive(st.text(max_size=5), lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner)),
)


# Threads of the station use it meanwhile.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module")
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_body_is_a_500(here, data):
    where = data.draw(st.sampled_from(sorted(BODIES)))
    body = dict(BODIES[where])
    name = data.draw(st.sampled_from([*body, "other"]))
    body[name] = data.draw(VALUES)
    # A name that exists would change the station.
    body |= {"is_enabled": False} if "/sources" in where or "/outputs" in where else {}
    if where.endswith("trigger"):
        body.pop("is_enabled")
    method, path = where.split()
    content = json.dumps(body).encode()
    answer = here.engineer.request(method, path, content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code < 500, (where, body, answer.text)


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"null", b'{"id": "\xff"}', b"[" * 100_000, b'{"id": 1e999}', b'{"id": NaN}']
)
def test_no_json_is_a_500(here, content):
    headers = {"Content-Type": "application/json"}
    answer = here.engineer.post(f"{API}/products", content=content, headers=headers)
    assert answer.status_code in (400, 422), answer.text


@pytest.mark.parametrize(
    "content",
    [b"", b"--x", b"--x\r\n", b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\nabc', b"\0" * 1000],
)
@pytest.mark.parametrize("boundary", ["; boundary=x", "", "; boundary="])
def test_no_form_is_a_500(here, content, boundary):
    headers = {"Content-Type": f"multipart/form-data{boundary}"}
    for path in ("inspections?product=bolt", "inspections/batch?product=bolt", "uploads", "products/bolt/versions"):
        answer = here.engineer.post(f"{API}/{path}", content=content, headers=headers)
        assert 400 <= answer.status_code < 500, answer.text


@pytest.mark.parametrize("key", ["", "a\tb", "x" * 500, "ключ".encode().decode("latin-1")])
def test_idempotency_keys_are_checked(here, good_image, key):
    headers = {"Idempotency-Key": key.encode("latin-1")}
    answer = here.operator.post(f"{API}/inspections?product=bolt", content=good_image, headers=headers)
    problem(answer, 422)


def test_a_token_that_is_revoked_stops_to_work(here):
    headers = bearer(here.station, "operator")
    assert here.anybody.get(f"{API}/inspections", headers=headers).status_code == 200
    newest = here.admin.get(f"{API}/tokens").json()
    name = max(newest, key=lambda token: token["id"])
    assert here.admin.delete(f"{API}/tokens/{name['id']}").status_code == 204
    problem(here.anybody.get(f"{API}/inspections", headers=headers), 401)


def test_postgresql_refuses_nothing_that_was_let_in(tmp_path, model_file, good_image, postgresql):
    """PostgreSQL stores no NUL and no half surrogate pair, and its numbers are shorter."""
    with serving(tmp_path, model_file, database=postgresql) as here:
        one = inspect(here.operator, good_image, serial_number="7")["links"]["self"]
        names = ("serial_number", "lot", "text", "source", "product", "version", "before", "min_score", "since")
        for value in [*(text.encode("utf-8", "replace").decode() for text in NASTY), str(2**40), str(2**63 - 1)]:
            answers = [
                *(here.operator.get(f"{API}/inspections", params={name: value}) for name in names),
                here.operator.post(f"{API}/inspections", params={"product": "bolt", "lot": value}, content=good_image),
                here.operator.post(f"{one}/labels", json={"label": "good", "comment": value}),
                here.engineer.patch(f"{API}/products/bolt", json={"name": value}),
                here.engineer.get(f"{API}/products/bolt/versions/{urllib.parse.quote(value, safe='')}"),
                here.engineer.get(f"{API}/jobs/{urllib.parse.quote(value, safe='')}"),
            ]
            for answer in answers:
                assert answer.status_code < 500, (value, answer.request.url, answer.text)
        for value in ("a\0b", "\ud800", [{"\0": 1}]):
            body = {"kind": "train", "product": "bolt", "parameters": {"note": value, "settings": {"a": value}}}
            problem(here.engineer.post(f"{API}/jobs", content=json.dumps(body)), 422)
        assert here.operator.get("/health/ready").json() == {"status": "ready"}
        assert "hyperspot_workers 1.0" in here.operator.get("/metrics").text
        for path in ("inspections/export", "inspections/export?format=parquet", "review", "products/bolt/monitor"):
            assert here.operator.get(f"{API}/{path}").status_code == 200, path
        labels = ("defect", "good", "unsure", "disagreement", "any", "none")
        found = [
            len(here.operator.get(f"{API}/inspections", params={"label": label}).json()["inspections"])
            for label in labels
        ]
        assert (found[1], found[4]) == (1, 1)
        assert here.operator.get(f"{API}/inspections?text=7").json()["inspections"]
