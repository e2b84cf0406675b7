"""Verdicts by HTTP POST, to a real server on loopback."""

import asyncio
import hashlib
import hmac
import json
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hyperspot.errors import SettingsError
from hyperspot.service.database.tables import Output
from hyperspot.service.inspecting import InspectionRequest
from hyperspot.service.outputs import Outputs
from hyperspot.service.outputs.webhook import SIGNATURE, WebhookSettings
from tests.service.plant import plant_in, png, started, until
from tests.service.test_outputs import no_trigger


class Receiver(ThreadingHTTPServer):
    """Keeps what it accepts; answers the statuses of `answers` first."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.answers, self.asked, self.accepted = [], [], []


class Answer(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.answers.pop(0) if self.server.answers else 204
        self.server.asked.append((self.path, dict(self.headers), body))
        if status == 204:
            self.server.accepted.append(json.loads(body))
        self.send_response(status)
        if 300 <= status < 400:
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def receiver():
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def play(tmp_path, scenario):
    async def main():
        async with plant_in(tmp_path) as plant:
            outputs = Outputs(plant.database, plant.events, no_trigger, first_wait=0.02)
            await scenario(plant, outputs)

    asyncio.run(main())


async def inspect(plant, *values):
    return [await plant.inspector.inspect(InspectionRequest("bolt", png(value))) for value in values]


def test_errors_are_tried_again_and_the_order_is_kept(tmp_path, receiver):
    receiver.answers = [204, 500, 503, 429, 408, 204]

    async def scenario(plant, outputs):
        plant.add_output("webhook", {"address": f"http://127.0.0.1:{receiver.server_port}/verdicts"})
        async with started(outputs):
            sent = await inspect(plant, *range(4))
            await until(lambda: not plant.deliveries)
            assert outputs.status()["mes"]["last_error"] == "the receiver answers 408"
        assert [one["id"] for one in receiver.accepted] == [one.id for one in sent]
        assert {json.loads(body)["id"] for _, _, body in receiver.asked[1:6]} == {sent[1].id}

    play(tmp_path, scenario)


def test_requests_are_signed_and_the_secret_is_nowhere_else(tmp_path, receiver, caplog):
    async def scenario(plant, outputs):
        address = f"http://127.0.0.1:{receiver.server_port}/verdicts"
        plant.add_output("webhook", {"address": address, "secret": "s3cret"})
        async with started(outputs):
            (inspection,) = await inspect(plant, 1)
            await until(lambda: not plant.deliveries)
        ((path, headers, body),) = receiver.asked
        at, digest = (part.split("=")[1] for part in headers[SIGNATURE].split(","))
        assert digest == hmac.new(b"s3cret", at.encode() + b"." + body, hashlib.sha256).hexdigest()
        assert abs(int(at) - time.time()) < 60
        assert (path, headers["Idempotency-Key"]) == ("/verdicts", inspection.id)
        assert "s3cret" not in caplog.text + str(headers) + body.decode()

    caplog.set_level("DEBUG")
    play(tmp_path, scenario)


def test_redirects_are_refused(tmp_path, receiver):
    receiver.answers = [302] * 100

    async def scenario(plant, outputs):
        plant.add_output("webhook", {"address": f"http://127.0.0.1:{receiver.server_port}/verdicts"})
        async with started(outputs):
            await inspect(plant, 1)
            await until(lambda: "answers 302" in (outputs.status()["mes"]["last_error"] or ""))
        assert {path for path, _, _ in receiver.asked} == {"/verdicts"}
        assert len(plant.deliveries) == 1

    play(tmp_path, scenario)


def test_a_receiver_that_is_away_is_waited_for(tmp_path, receiver):
    async def scenario(plant, outputs):
        output_id = plant.add_output("webhook", {"address": "http://127.0.0.1:1/verdicts"})
        async with started(outputs):
            await inspect(plant, 1)
            await until(lambda: "cannot be reached" in (outputs.status()["mes"]["last_error"] or ""))
            with plant.database.session() as session:
                address = f"http://127.0.0.1:{receiver.server_port}/verdicts"
                session.get(Output, output_id).settings = {"address": address}
            await outputs.reload("mes")
            await until(lambda: not plant.deliveries)

    play(tmp_path, scenario)


def test_certificates_are_checked(tmp_path, receiver):
    certificate, key = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    receiver.socket = context.wrap_socket(receiver.socket, server_side=True)
    address = f"https://localhost:{receiver.server_port}/verdicts"

    async def scenario(plant, outputs):
        plant.add_output("webhook", {"address": address}, "unknown")
        plant.add_output("webhook", {"address": address, "ca_file": str(certificate)}, "known")
        plant.add_output("webhook", {"address": address, "ca_file": str(tmp_path / "none.pem")}, "wrong")
        async with started(outputs):
            await inspect(plant, 1)
            await until(lambda: receiver.accepted)
            await until(lambda: outputs.status()["wrong"]["last_error"] and outputs.status()["unknown"]["last_error"])
            await until(lambda: len(plant.deliveries) == 2)
            status = outputs.status()
        assert "CERTIFICATE_VERIFY_FAILED" in status["unknown"]["last_error"]
        assert "none.pem cannot be read" in status["wrong"]["last_error"]
        assert status["known"]["delivered"] == 1

    play(tmp_path, scenario)


def make_certificate(folder):
    """Return the files of a certificate for localhost, signed by itself, and of its key."""
    import datetime as dt
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    start = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + dt.timedelta(days=2))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    files = folder / "certificate.pem", folder / "key.pem"
    files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


@pytest.mark.parametrize(
    "address", ["mes.local", "ftp://mes.local", "https://ann:pw@mes.local/", "https://", "http://[::1", "file:///etc"]
)
def test_wrong_addresses_are_refused(address):
    with pytest.raises(SettingsError, match="Address: "):
        WebhookSettings.read({"address": address})
