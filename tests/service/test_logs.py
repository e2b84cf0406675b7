"""Logs: one object a line, never a secret, harmless on a terminal."""

import asyncio
import io
import json
import logging
import warnings

import pytest

from hyperspot.service import logs
from hyperspot.service.app import create_app
from hyperspot.service.settings import StationSettings
from hyperspot.service.station import Station
from tests.service.clients import PASSWORD, browser_of, client_of, token_of


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def configured(monkeypatch):
    """Return what configures the logs for a stream; all is as before afterwards."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    names = ("alembic", "sqlalchemy", "watchfiles", "asyncio", "httpx", "httpcore", "multipart", "PIL")
    levels = {name: logging.getLogger(name).level for name in names}

    def configure(stream, level="debug"):
        monkeypatch.setattr("sys.stderr", stream)
        logs.configure(level)
        return stream

    yield configure
    root.handlers[:] = before
    root.setLevel(level)
    for name, one in levels.items():
        logging.getLogger(name).setLevel(one)
    logging.captureWarnings(False)


def lines_of(stream):
    return [json.loads(line) for line in stream.getvalue().splitlines()]


@pytest.mark.parametrize(
    "text",
    [
        "Authorization: Bearer hsp_SECRET",
        "{'authorization': 'Basic SECRET'}",
        "[(b'cookie', b'hyperspot_session=SECRET')]",
        "Cookie: hyperspot_session=SECRET; theme=dark",
        "GET /sign-in/link/SECRET HTTP/1.1",
        "http://127.0.0.1:8765/sign-in/link/SECRET",
        "postgresql+psycopg://ann:SECRET@host/name",
        "mqtt://line:SECRET@broker:1883",
        'password="SECRET", name="ann"',
        "{'password': 'SECRET'}",
        "csrf_token=SECRET&name=x",
        "X-CSRF-Token: SECRET",
        "$argon2id$v=19$m=65536,t=3,p=4$SECRET$SECRET",
    ],
)
def test_secrets_are_taken_out(configured, text):
    stream = configured(io.StringIO())
    log = logging.getLogger("hyperspot.service.test")
    log.info("before %s after", text)
    try:
        raise ValueError(text)
    except ValueError:
        log.exception("failed")
    assert "SECRET" not in stream.getvalue()
    assert "before" in stream.getvalue()
    assert lines_of(stream)[1]["error"].startswith("Traceback")


def test_a_visit_leaves_no_secret_in_the_log(configured, settings):
    stream = configured(io.StringIO())
    settings.data.mkdir()
    station = Station(settings)
    station.database.migrate()
    app = create_app(station)
    browser = browser_of(app)
    cookie = browser.cookies["hyperspot_session"]
    token = token_of(station)
    client_of(app).get("/api/v1/users", headers={"Authorization": f"Bearer {token}"})
    client_of(app).post("/sign-in", data={"name": "typed-password", "password": "typed-password"})
    client_of(app).get("/sign-in/link/guessed-link")
    browser.post("/api/v1/users", json={"name": "bob", "password": PASSWORD, "role": "king"})
    browser.get(f"/api/v1/audit?by={PASSWORD}")
    station.database.close()
    for hidden in (cookie, token, PASSWORD, "typed-password", "guessed-link", browser.headers["X-CSRF-Token"]):
        assert hidden not in stream.getvalue()
    requests = [line for line in lines_of(stream) if line["message"] == "request"]
    assert ("POST", "/api/v1/users", 422, "admin") in {
        (one["method"], one["route"], one["status"], one["who"]) for one in requests
    }
    assert all(len(one["request_id"]) == 16 and one["milliseconds"] >= 0 for one in requests)
    failed = [line for line in lines_of(stream) if "sign-in failed" in line["message"]]
    assert len(failed) == 1
    assert failed[0]["request_id"], "its request can be found"


def test_lines_of_a_terminal_cannot_be_forged(configured):
    stream = configured(Terminal())
    logging.getLogger("hyperspot").warning("an image %s", "a.png\n12:00:00 info forged \x1b[31m")
    (line,) = stream.getvalue().splitlines()
    assert "\x1b" not in line
    assert "warning" in line


def test_fields_and_levels(configured):
    stream = configured(io.StringIO(), "warning")
    log = logging.getLogger("hyperspot.service.test")
    log.info("hidden")
    log.warning("shown", extra={"fields": {"port": 1}})
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("odd", stacklevel=1)
    shown, warned = lines_of(stream)
    assert (shown["message"], shown["port"], shown["level"], shown["logger"]) == (
        "shown", 1, "warning", "hyperspot.service.test",
    )  # fmt: skip
    assert shown["time"].endswith("+00:00")
    assert "odd" in warned["message"]


def test_a_client_that_leaves_is_no_error(tmp_path, caplog):
    app = create_app(Station(StationSettings(data=tmp_path / "station", port=0)))
    app.state.station.settings.data.mkdir()
    app.state.station.database.migrate()
    headers = [(b"host", b"localhost"), (b"content-type", b"application/x-www-form-urlencoded")]
    scope = {
        "type": "http", "method": "POST", "path": "/sign-in", "raw_path": b"/sign-in", "query_string": b"",
        "headers": headers, "client": ("127.0.0.1", 1), "server": ("localhost", 80), "scheme": "http", "root_path": "",
    }  # fmt: skip
    sent = []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    with caplog.at_level(logging.INFO):
        asyncio.run(app(scope, receive, send))
    app.state.station.database.close()
    assert not [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert sent[0]["status"] == 400
