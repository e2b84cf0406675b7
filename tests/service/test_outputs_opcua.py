"""OPC UA: asyncua's client talks to our server on loopback."""

import asyncio
import json
import math
from contextlib import asynccontextmanager

import pytest
from asyncua import Client, ua
from asyncua.crypto.security_policies import SecurityPolicyBasic256Sha256

from hyperspot.errors import SettingsError
from hyperspot.service.inspecting import InspectionRequest
from hyperspot.service.outputs.handshake import Code
from hyperspot.service.outputs.opcua import NAMESPACE, OpcUaSettings
from hyperspot.service.problems import Problem
from tests.service.plant import png, until
from tests.service.plc_line import plc_line
from tests.service.test_outputs_webhook import make_certificate

USER = {"user": "plc", "password": "s3cret"}


class Plc:
    """Speaks by the node ids of the documentation alone."""

    def __init__(self, client, namespace):
        self.client, self.namespace = client, namespace

    def node(self, name):
        return self.client.get_node(f"ns={self.namespace};s={name}")

    async def read(self, name):
        return await self.node(name).read_value()

    async def set(self, name, value, kind=ua.VariantType.Boolean):
        await self.node(f"Handshake.{name}").write_value(ua.Variant(value, kind))

    async def wait(self, name, value=True):
        async with asyncio.timeout(10):
            while await self.read(f"Handshake.{name}") != value:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def connected(port, user="plc", password="s3cret", prepare=None):
    client = Client(f"opc.tcp://127.0.0.1:{port}/hyperspot")
    if user is not None:
        client.set_user(user)
        client.set_password(password)
    if prepare is not None:
        await prepare(client)
    async with client:
        yield Plc(client, await client.get_namespace_index(NAMESPACE))


def play(tmp_path, scenario, **settings):
    async def main():
        async with plc_line(tmp_path, "opcua", **USER, **settings) as (plant, source, outputs, port):
            await until(lambda: outputs.status()["plc"]["state"] == "running", 30)
            async with connected(port) as plc:
                await scenario(plant, source, outputs, plc)

    asyncio.run(main())


def test_the_last_verdict_of_each_product_can_be_read(tmp_path):
    async def scenario(plant, source, outputs, plc):
        assert math.isnan(await plc.read("bolt.PValue"))
        assert await plc.read("bolt.Verdict") == 0
        for value in (0, 255, 255):
            await plant.inspector.inspect(InspectionRequest("bolt", png(value), serial_number="SN7"))
        await until(lambda: not plant.deliveries)
        last = plant.inspections[-1]
        read = {
            name: await plc.read(f"bolt.{name}")
            for name in ("InspectionId", "SerialNumber", "Score", "PValue", "Verdict", "IsAnomalous", "Number")
        }
        assert read == {
            "InspectionId": last.id,
            "SerialNumber": "SN7",
            "Score": 1.0,
            "PValue": 0.25,
            "Verdict": 2,
            "IsAnomalous": True,
            "Number": 3,
        }
        assert json.loads(await plc.read("bolt.Regions")) == []
        assert await plc.read("bolt.ImageUrl") == f"https://line3/api/v1/inspections/{last.id}/image"
        assert (await plc.read("bolt.Inspected"), await plc.read("bolt.Anomalous")) == (3, 2)
        assert (await plc.read("bolt.Time")).year == last.received_at.year
        assert await plc.read("nut.Inspected") == 0
        with pytest.raises(ua.UaStatusCodeError):
            await plc.node("bolt.Score").write_value(1.0)

    play(tmp_path, scenario, station_address="https://line3")


def test_a_plc_triggers_and_reads_results(tmp_path):
    async def scenario(plant, source, outputs, plc):
        await plc.wait("Ready")
        await plc.set("SerialNumber", "SN8", ua.VariantType.String)
        await plc.set("Recipe", 2, ua.VariantType.UInt32)
        source.value = 255
        await plc.set("Trigger", True)
        await plc.wait("ResultReady")
        assert (await plc.read("Handshake.Ng"), await plc.read("Handshake.Ok")) == (True, False)
        assert await plc.read("Result.InspectionId") == plant.inspections[0].id
        assert await plc.read("Handshake.Counter") == 1
        await plc.set("Trigger", False)
        await plc.set("Acknowledge", True)
        await plc.wait("ResultReady", False)
        await plc.set("Acknowledge", False)
        await plc.wait("Ready")
        assert source.asked == [("camera", "SN8", "nut")]
        source.problem = Problem(503, "the camera is gone")
        await plc.set("Trigger", True)
        await plc.wait("ResultReady")
        assert (await plc.read("Handshake.Error"), await plc.read("Handshake.ErrorCode")) == (True, Code.NO_IMAGE)
        assert await plc.read("Result.InspectionId") == ""

    play(tmp_path, scenario)


def test_the_method_inspects(tmp_path):
    async def scenario(plant, source, outputs, plc):
        source.value = 255
        call = plc.node("Hyperspot").call_method
        serial, recipe = ua.Variant("SN9", ua.VariantType.String), ua.Variant(0, ua.VariantType.UInt32)
        answer = await call(f"{plc.namespace}:Inspect", serial, recipe)
        assert answer == [plant.inspections[0].id, 2, 1.0, ""]
        assert source.asked == [("camera", "SN9", None)]
        answer = await call(f"{plc.namespace}:Inspect", serial, ua.Variant(9, ua.VariantType.UInt32))
        assert answer[:2] == ["", 0]
        assert answer[3].startswith("there is no recipe 9")
        source.delay = 1.0
        answer = await call(f"{plc.namespace}:Inspect", serial, recipe)
        assert answer[3] == "the inspection took more than 0.3 seconds"

    play(tmp_path, scenario, inspection_seconds=0.3)


def test_others_do_not_get_in(tmp_path):
    async def main():
        async with plc_line(tmp_path, "opcua", **USER) as (plant, _, outputs, port):
            await until(lambda: outputs.status()["plc"]["state"] == "running", 30)
            for user, password in [(None, None), ("plc", "wrong"), ("other", "s3cret"), ("plc", "")]:
                with pytest.raises(ua.UaStatusCodeError):
                    async with connected(port, user, password):
                        pass
            # Another server on the same port says so.
            plant.add_output("opcua", {"port": port, **USER}, "second")
            await outputs.reload("second")
            await until(lambda: outputs.status()["second"]["state"] == "failing")
            assert f"port {port} of 127.0.0.1 cannot be used" in outputs.status()["second"]["last_error"]

    asyncio.run(main())


def test_an_anonymous_client_where_it_is_allowed(tmp_path):
    async def main():
        async with plc_line(tmp_path, "opcua", anonymous=True) as (_, _, outputs, port):
            await until(lambda: outputs.status()["plc"]["state"] == "running", 30)
            async with connected(port, None) as plc:
                assert await plc.read("bolt.Verdict") == 0

    asyncio.run(main())


def test_with_a_certificate_all_is_encrypted(tmp_path):
    for name in ("server", "client", "stranger", "trusted"):
        (tmp_path / name).mkdir()
    certificate, key = make_certificate(tmp_path / "server")
    known, unknown = make_certificate(tmp_path / "client"), make_certificate(tmp_path / "stranger")
    (tmp_path / "trusted" / "client.pem").write_bytes(known[0].read_bytes())
    settings = {"certificate": str(certificate), "key": str(key), "trusted": str(tmp_path / "trusted"), **USER}

    def encrypted(files, as_user):
        async def prepare(client):
            await client.set_security(SecurityPolicyBasic256Sha256, *map(str, files))
            if not as_user:
                await client.load_client_certificate(str(files[0]))
                await client.load_private_key(str(files[1]))

        return prepare

    async def main():
        async with plc_line(tmp_path, "opcua", **settings) as (_, _, outputs, port):
            await until(lambda: outputs.status()["plc"]["state"] == "running", 30)
            async with connected(port, prepare=encrypted(unknown, True)) as plc:
                assert await plc.read("bolt.Verdict") == 0
            async with connected(port, None, prepare=encrypted(known, False)) as plc:
                assert await plc.read("bolt.Verdict") == 0
            with pytest.raises(ua.UaStatusCodeError):
                async with connected(port, None, prepare=encrypted(unknown, False)):
                    pass
            # In the clear.
            with pytest.raises((ua.UaError, OSError)):
                async with connected(port):
                    pass

    asyncio.run(main())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "nobody could sign in"),
        ({"user": "plc"}, "user and password together"),
        ({**USER, "host": "192.168.0.5"}, "in the clear"),
        ({**USER, "certificate": "a.pem"}, "two files"),
        ({"trusted": "folder"}, "take encryption"),
        ({**USER, "recipes": "bolt"}, "'bolt' is no recipe"),
        ({**USER, "recipes": "1=bolt,1=nut"}, "recipe 1 is given twice"),
    ],
)
def test_unsafe_settings_are_refused(settings, message):
    with pytest.raises(SettingsError, match=message):
        OpcUaSettings.read(settings)
