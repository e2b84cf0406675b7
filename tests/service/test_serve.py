"""`hyperspot serve` as a process: what it prints, how it stops, and what it refuses in one sentence."""

import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

from hyperspot.service.access import accounts, links
from hyperspot.service.database import Database
from hyperspot.service.products import catalog
from hyperspot.service.settings import StationSettings
from hyperspot.service.station import Station
from tests.service.clients import PASSWORD, audited
from tests.service.conftest import add_active_version, encoded

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals")


class Served:
    """A running `hyperspot serve`."""

    def __init__(self, process, log):
        self.process, self._log = process, log
        line = process.stdout.readline()
        assert line, log.read_text()
        self.announced = json.loads(line)
        self.address = urlsplit(self.announced["address"])

    def request(self, method, path, headers=None, body=None, context=None):
        kind = http.client.HTTPSConnection if self.address.scheme == "https" else http.client.HTTPConnection
        more = {} if context is None else {"context": context}
        connection = kind("127.0.0.1", self.address.port, timeout=60, **more)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            return answer.status, dict(answer.headers), answer.read()
        finally:
            connection.close()

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return self.process.wait(60)

    @property
    def log(self):
        return self._log.read_text()


@contextmanager
def serving(data, *options, environment=None):
    log = data.with_suffix(".log")
    command = [sys.executable, "-m", "hyperspot", "serve", "--data", str(data), "--port", "0", "--json", *options]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=os.environ | (environment or {})
        )
    try:
        yield Served(process, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(autouse=True)
def logs_of_the_tests(monkeypatch):
    """Commands that run in this process leave its logs alone."""
    monkeypatch.setattr("hyperspot.service.logs.configure", lambda level: None)


def cookie_of(headers):
    return headers["set-cookie"].partition(";")[0]


def test_a_new_station_from_the_first_start_to_the_second(tmp_path):
    data = tmp_path / "station"
    with serving(data) as served:
        assert served.announced["data"] == str(data)
        link = urlsplit(served.announced["sign_in_link"]).path
        assert re.fullmatch(r"/sign-in/link/[\w-]{32}", link)
        status, headers, _ = served.request("GET", link)
        assert (status, headers["location"]) == (303, "/")
        session = {"Cookie": cookie_of(headers)}
        status, _, content = served.request("GET", "/api/v1/account", session)
        assert (status, json.loads(content)["role"]) == (200, "admin")
        assert served.request("GET", link)[0] == 401
        assert served.request("GET", "/health/live")[0] == 200
        # The command line helps out while the station runs.
        done = cli("serve", "user", "add", "ann", "--role", "admin", "--data", data, "--password-stdin", given=PASSWORD)
        assert (done.returncode, done.stdout) == (0, "user ann has the role admin\n")
        token = cli("serve", "token", "add", "press", "--data", data).stdout.strip()
        assert served.request("GET", "/api/v1/account", {"Authorization": f"Bearer {token}"})[0] == 200
        again = cli("serve", "--data", data, "--port", "0")
        assert again.returncode == 1
        assert again.stderr == f"error: {data} is served by another station; stop it, or choose another --data\n"
        assert served.stop() == 0
        for hidden in (link.rpartition("/")[2], token, PASSWORD, session["Cookie"].partition("=")[2]):
            assert hidden not in served.log
        lines = [json.loads(line) for line in served.log.splitlines()]
        (used,) = [one for one in lines if one.get("route") == "/sign-in/link/{secret}" and one["status"] == 303]
        assert {"time", "level", "message", "request_id", "method", "milliseconds", "who"} <= set(used)
        assert {one["who"] for one in lines if one.get("route") == "/api/v1/account"} == {"admin", "token press"}
        assert not any(one["level"] == "error" for one in lines), served.log
    with serving(data, "--log-level", "warning") as served:
        assert served.announced["sign_in_link"] is None, "an admin has a password"
        assert served.request("GET", "/api/v1/account", session)[0] == 200, "sessions survive a restart"
        assert served.stop(signal.SIGINT) == 0
        assert served.log == ""
    with serving(data, "--sign-in-link") as served:
        assert served.announced["sign_in_link"] is not None


def cli(*arguments, given=None, environment=None):
    return subprocess.run(
        [sys.executable, "-m", "hyperspot", *map(str, arguments)],
        input=given,
        capture_output=True,
        text=True,
        env=os.environ | (environment or {}),
        check=False,
    )


def test_running_inspections_are_finished(tmp_path, model_file, good_image):
    """SIGTERM while images wait: each is answered, and recorded once."""
    data = tmp_path / "station"
    station = Station(StationSettings(data=data))
    data.mkdir()
    station.database.migrate()
    add_active_version(station, model_file)
    with station.database.session() as session:
        from hyperspot.service.access.tokens import create_token

        secret = create_token(session, "press", "operator", "tests")[1]
    headers = {"Authorization": f"Bearer {secret}", "Content-Type": "image/png"}
    answers = []
    with serving(data, "--threads", "1") as served:

        def inspect():
            answers.append(served.request("POST", "/api/v1/inspections?product=bolt", headers, good_image))

        inspect()
        # A page that follows the station never ends by itself.
        follower = http.client.HTTPConnection("127.0.0.1", served.address.port, timeout=60)
        follower.request("GET", "/events", headers=headers)
        stream = follower.getresponse()
        assert stream.status == 200
        stream.readline()
        threads = [threading.Thread(target=inspect) for _ in range(8)]
        for thread in threads:
            thread.start()
        time.sleep(0.05)
        began = time.monotonic()
        assert served.stop() == 0
        assert time.monotonic() - began < 25, "long before the deadline of connections that do not end"
        for thread in threads:
            thread.join()
        stream.read()
        follower.close()
    answered = [json.loads(content) for status, _, content in answers if status < 300]
    assert len(answered) >= 1
    assert all(status in (200, 201, 429) for status, _, _ in answers)
    with station.database.session() as session:
        from sqlalchemy import select

        from hyperspot.service.database.tables import Inspection

        recorded = sorted(session.scalars(select(Inspection.id)))
    station.database.close()
    assert recorded == sorted(one["id"] for one in answered)


def test_tls_and_secure_cookies(tmp_path):
    certificate = tmp_path / "certificate.pem"
    key = tmp_path / "key.pem"
    made = subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", key, "-out", certificate, "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"],
        capture_output=True, check=False,
    )  # fmt: skip
    if made.returncode:
        pytest.skip("openssl makes no certificate here")
    with serving(tmp_path / "station", "--tls-certificate", certificate, "--tls-key", key) as served:
        assert served.address.scheme == "https"
        context = ssl.create_default_context(cafile=str(certificate))
        link = urlsplit(served.announced["sign_in_link"]).path
        status, headers, _ = served.request("GET", link, context=context)
        assert status == 303
        assert "; Secure" in headers["set-cookie"]
        assert served.stop() == 0
    swapped = cli("serve", "--data", tmp_path / "other", "--tls-certificate", key, "--tls-key", certificate)
    assert swapped.returncode == 1
    assert "are no certificate and its key" in swapped.stderr
    subprocess.run(
        ["openssl", "ec", "-aes256", "-in", key, "-out", tmp_path / "locked.pem", "-passout", "pass:x"], check=True,
        capture_output=True,
    )  # fmt: skip
    locked = cli(
        "serve", "--data", tmp_path / "other", "--tls-certificate", certificate, "--tls-key", tmp_path / "locked.pem"
    )
    assert "without a password" in locked.stderr


def test_what_cannot_be_used_is_one_sentence(tmp_path, run):
    data = tmp_path / "station"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert run("serve", "--data", data, "--port", port) == (
            1, "", f"error: port {port} is in use; stop the program that uses it, or choose another --port\n",
        )  # fmt: skip
    (tmp_path / "file").write_text("")
    for arguments, why in (
        (("--data", tmp_path / "file"), "cannot be used"),
        (("--data", tmp_path / "file" / "inner"), "cannot be used"),
        (("--host", "no.such.host.invalid"), "is no address of this machine"),
        (("--host", "203.0.113.7", "--port", 0), "is no address of this machine"),
        (("--tls-certificate", "missing.pem", "--tls-key", "missing.pem"), "missing.pem cannot be read"),
        (("--tls-key", "missing.pem"), "TLS takes two files"),
        (("--tls-key", "missing.pem"), "error: TLS"),
        (("--engine", "tensorflow"), "engine: Input should be 'torch', 'openvino' or 'onnxruntime'"),
        (("--database", "nonsense"), "database address cannot be used"),
    ):
        data_option = () if "--data" in arguments else ("--data", data)
        code, out, err = run("serve", *data_option, *arguments)
        assert (code, out, err.count("\n")) == (1, "", 1), err
        assert why in err
    assert run("serve", "--port", "70000")[0] == 2


def test_a_database_that_is_away_is_one_sentence_without_its_password(tmp_path):
    address = "postgresql+psycopg://ann:topsecret@127.0.0.1:1/none"
    done = cli("serve", "--data", tmp_path / "x", "--port", 0, environment={"HYPERSPOT_DATABASE": address})
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: postgresql+psycopg://ann:***@127.0.0.1:1/none cannot be opened")
    assert "topsecret" not in done.stderr


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "station"
    folder.mkdir()
    database = Database(f"sqlite:///{folder / 'station.sqlite'}")
    database.migrate()
    with database.session() as session:
        accounts.create_user(session, "ann", PASSWORD, "admin", "tests")
    database.close()
    return folder


def test_users_by_the_command_line(run, monkeypatch, data):
    typed = iter(["battery staple", "battery staple", "battery staple", "other staple"])
    monkeypatch.setattr("getpass.getpass", lambda prompt: next(typed))
    assert run("serve", "user", "password", "ann", "--data", data) == (0, "user ann has a new password\n", "")
    code, _, err = run("serve", "user", "password", "ann", "--data", data)
    assert (code, err) == (1, "error: the two passwords differ; try again\n")
    code, _, err = run("serve", "user", "disable", "ann", "--data", data)
    assert (code, err) == (1, "error: this is the last admin; make another user an admin first\n")
    code, _, err = run("serve", "user", "disable", "bob", "--data", data)
    assert (code, err) == (1, "error: there is no such user; list the users\n")
    assert run("serve", "user", "disable", "ann", "--data", data / "missing")[2].endswith("check --data\n")
    code, out, _ = run("serve", "token", "add", "press", "--role", "engineer", "--data", data, "--json")
    assert json.loads(out)["role"] == "engineer"
    station = Station(StationSettings(data=data))
    assert [entry for entry in audited(station) if entry[0] == "station"] == [
        ("station", "user.password", "ann"), ("station", "token.create", "press"),
    ]  # fmt: skip
    with station.database.session() as session:
        assert not links.needs_link(session)
        assert accounts.is_password(accounts.get_user(session, "ann").password_hash, "battery staple")
    station.database.close()


def test_backup_and_restore_by_the_command_line(run, data, tmp_path):
    out = tmp_path / "out.tar"
    code, printed, _ = run("serve", "backup", data, out, "--json")
    assert code == 0
    assert json.loads(printed)["rows"] == 2
    code, _, err = run("serve", "backup", data, out)
    assert (code, err) == (1, f"error: {out} exists; choose another name or give --overwrite\n")
    assert run("serve", "backup", data, out, "--overwrite", "--without-images")[0] == 0
    code, printed, _ = run("serve", "restore", out, tmp_path / "restored", "--json")
    assert json.loads(printed)["rows"] == 2
    assert "is not empty" in run("serve", "restore", out, data)[2]


def test_the_help_teaches_without_heavy_libraries():
    script = (
        "import sys; sys.argv = ['hyperspot', 'serve', '--help']\nfrom hyperspot.cli import main\n"
        "try: main()\nexcept SystemExit: pass\nprint(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    for word in ("backup", "restore", "user", "token", "--demo", "--allowed-host", "hyperspot serve --data DIR"):
        assert word in done.stdout
    assert not {"fastapi", "sqlalchemy", "numpy", "torch"} & set(done.stderr.split())


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "sqlalchemy", "argon2"])
def test_without_the_extra_it_names_the_command_that_installs_it(run, monkeypatch, tmp_path, package):
    class Blocked:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == package:
                raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    monkeypatch.setattr(sys, "meta_path", [Blocked(), *sys.meta_path])
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    code, _, err = run("serve", "--data", tmp_path)
    assert code == 1
    assert f"the station needs {package}, which is not installed" in err
    assert "serve]" in err


def test_the_demo_lives(tmp_path, model_file):
    """It trains in a job, then inspects and labels; a second start goes on."""
    import asyncio

    from sqlalchemy import func, select

    from hyperspot.service import demo
    from hyperspot.service.database.tables import Inspection, Label
    from tests.service.conftest import running

    settings = StationSettings(data=tmp_path / "station", threads=1)
    folder = settings.data / "demo"

    async def scenario():
        async with running(settings) as station:
            # The training has tests of its own, and takes a minute on a busy machine.
            await asyncio.to_thread(small_product_set, folder)
            await asyncio.to_thread(demo._train, station, folder)
            add_active_version(station, model_file, demo.PRODUCT)
            running_demo = asyncio.create_task(demo.run(station, seconds=0))
            count = 0
            while count < 7:
                await asyncio.sleep(0.05)
                assert not running_demo.done()
                with station.database.session() as session:
                    count = session.scalar(select(func.count()).select_from(Inspection))
            running_demo.cancel()
            await asyncio.gather(running_demo, return_exceptions=True)
            with station.database.session() as session:
                assert session.scalar(select(func.count()).select_from(Label)) >= 2
                assert len(session.scalars(select(Inspection.station).distinct()).all()) == 2
                assert catalog.get_product(session, demo.PRODUCT).name == demo.NAME

    asyncio.run(scenario())


def small_product_set(folder):
    import numpy as np

    random = np.random.default_rng(3)
    for part, count in (("train/good", 4), ("test/good", 4), ("test/scratch", 2)):
        (folder / part).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(100, 140, (64, 64, 3), dtype=np.uint8)
            (folder / part / f"{number}.png").write_bytes(encoded(pixels))


def test_the_demo_says_what_it_lacks(run, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    code, out, err = run("serve", "--demo", "--data", tmp_path / "station")
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert "the demo, which trains a model, needs torch" in err
    assert not (tmp_path / "station").exists()
