"""What every request passes before any route, and headers of every answer."""

import asyncio
import json
import socket

import pytest

from hyperspot.service.access.middleware import MOST_IN_MEMORY
from hyperspot.service.app import create_app
from hyperspot.service.settings import StationSettings
from hyperspot.service.station import Station
from tests.service.clients import ADDRESS, PASSWORD, browser_of, client_of, token_of


@pytest.fixture
def station(tmp_path):
    settings = StationSettings(
        data=tmp_path, port=0, host="192.0.2.7", allowed_hosts=("station.plant",), max_upload=100_000
    )
    made = Station(settings)
    made.database.migrate()
    yield made
    made.database.close()


@pytest.fixture
def app(station):
    return create_app(station)


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("localhost:8765", True),
        ("127.0.0.1", True),
        ("192.0.2.7:8765", True),
        ("[::1]:8765", True),
        ("Station.Plant:8765", True),
        ("station.plant.", True),
        (socket.gethostname(), True),
        ("evil.example", False),
        ("evil.example:8765", False),
        ("127.0.0.1.evil.example", False),
        ("station.plant.evil.example", False),
        ("localhost@evil.example", False),
        ("", False),
    ],
)
def test_only_own_names_are_answered(app, host, allowed):
    """DNS rebinding: a page of evil.example points its name at the station, and its requests carry that name."""
    answer = client_of(app).get("/sign-in", headers={"Host": host})
    assert answer.status_code == (200 if allowed else 400)
    assert allowed or "--allowed-host" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Origin": ADDRESS}, True),
        ({"Origin": "https://localhost"}, True),  # a proxy with TLS
        ({"Origin": "http://localhost:81"}, False),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://localhost.evil.example"}, False),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
    ],
)
def test_pages_of_other_origins_change_nothing(app, headers, allowed):
    browser = browser_of(app)
    answer = browser.post("/api/v1/tokens", json={"name": "press"}, headers=headers)
    assert answer.status_code == (201 if allowed else 403)
    # Nor do they sign anybody in.
    answer = client_of(app).post("/sign-in", data={"name": "admin", "password": PASSWORD}, headers=headers)
    assert answer.status_code == (303 if allowed else 403)
    # Programs with a token are no browsers.
    headers = headers | {"Authorization": f"Bearer {token_of(app.state.station)}"}
    assert client_of(app).post("/api/v1/tokens", json={"name": "two"}, headers=headers).status_code == 201


def test_reading_by_other_origins_is_left_to_the_browser(app):
    answer = client_of(app).get("/sign-in", headers={"Origin": "http://evil.example"})
    assert answer.status_code == 200
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    "path", ["/sign-in", "/api/v1/users", "/nothing", "/static/station.css", "/api/v1/openapi.json"]
)
def test_every_answer_has_the_headers(app, path):
    headers = client_of(app).get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["referrer-policy"] == "same-origin"
    assert len(headers["x-request-id"]) == 16
    assert path.startswith("/static") or headers["cache-control"] == "no-store"


def test_a_failing_route_answers_a_problem_with_the_headers(app, caplog):
    @app.get("/fails")
    def fails() -> None:
        raise RuntimeError("secret detail")

    answer = client_of(app).get("/fails")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret detail" not in answer.text
    assert "default-src" in answer.headers["content-security-policy"]
    assert "secret detail" in caplog.text


@pytest.mark.parametrize("size", [100_001, 10**12])
def test_a_declared_size_is_refused_before_it_is_read(app, size):
    client = client_of(app)
    answer = client.post("/sign-in", content=b"x", headers={"Content-Length": str(size)})
    assert answer.status_code == 413
    assert "more than 100,000 bytes" in answer.json()["detail"]


@pytest.mark.parametrize("size", ["-1", "x", "1e3"])
def test_a_size_that_is_no_number_is_refused(app, size):
    assert client_of(app).post("/sign-in", content=b"x", headers={"Content-Length": size}).status_code == 400


def chunks(count, first):
    yield first
    for _ in range(count):
        yield b"x" * 10_000


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/sign-in", "application/x-www-form-urlencoded"),
        ("/sign-in", "multipart/form-data; boundary=b"),
        ("/api/v1/tokens", "application/json"),
        ("/api/v1/inspections?product=bolt", "image/png"),
        ("/api/v1/inspections?product=bolt", "application/octet-stream"),
    ],
)
def test_chunked_bodies_are_cut_off(app, path, kind):
    """They declare no size."""
    headers = {"Content-Type": kind, "Authorization": f"Bearer {token_of(app.state.station)}"}
    body = chunks(11, b"--b\r\nContent-Disposition: form-data; name=a\r\n\r\n" if "boundary" in kind else b"")
    answer = client_of(app).post(path, content=body, headers=headers)
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"


def test_no_more_than_the_limit_is_read(app):
    """The body ends with an error at the limit: the application never sees the rest."""
    taken = 0

    async def receive():
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": b"x" * 10_000, "more_body": True}

    sent = []

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/api/v1/tokens", "raw_path": b"/api/v1/tokens", "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")], "http_version": "1.1",
        "scheme": "http", "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "root_path": "",
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 413
    assert taken == 11
    assert json.loads(sent[1]["body"])["title"] == "Too large"


def test_bodies_that_are_read_into_memory_are_smaller(tmp_path):
    station = Station(StationSettings(data=tmp_path, max_upload=10 * MOST_IN_MEMORY))
    client = client_of(create_app(station))
    headers = {"Content-Length": str(MOST_IN_MEMORY + 1)}
    for kind, status in (("application/json", 413), ("application/octet-stream", 401)):
        station.database.migrate()
        sent = headers | {"Content-Type": kind}
        assert client.post("/api/v1/inspections?product=x", content=b"x", headers=sent).status_code == status
    station.database.close()


def test_a_request_id_is_taken_over_if_it_is_harmless(app):
    client = client_of(app)
    assert client.get("/sign-in", headers={"X-Request-Id": "line-3.7"}).headers["x-request-id"] == "line-3.7"
    for evil in ("a b", "x" * 65, "<b>"):
        assert client.get("/sign-in", headers={"X-Request-Id": evil}).headers["x-request-id"] != evil
