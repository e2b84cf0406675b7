"""MQTT, with a real broker (mosquitto) on loopback."""

import asyncio
import json
import os
import shutil
import socket
import ssl
import subprocess
import time

import aiomqtt
import pytest

from hyperspot.errors import SettingsError
from hyperspot.service.inspecting import InspectionRequest
from hyperspot.service.outputs import Outputs
from hyperspot.service.outputs.mqtt import Mqtt, MqttSettings, topic_of
from tests.service.plant import plant_in, png, started, until
from tests.service.plc_line import free_port
from tests.service.test_outputs import no_trigger
from tests.service.test_outputs_webhook import make_certificate


class Broker:
    """A mosquitto that can be killed and started again on the same port."""

    def __init__(self, program, folder):
        self.program, self.folder, self.port = program, folder, free_port()
        self.lines = ["allow_anonymous true"]
        self.process = None

    def start(self):
        configuration = self.folder / "mosquitto.conf"
        lines = [f"listener {self.port} 127.0.0.1", "persistence false", *self.lines]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            # Otherwise it becomes another user, who cannot read the files of the test.
            lines.append("user root")
        configuration.write_text("\n".join(lines))
        with (self.folder / "mosquitto.log").open("a") as log:
            self.process = subprocess.Popen([self.program, "-c", str(configuration)], stdout=log, stderr=log)
        self._await_port()

    def _await_port(self):
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.2).close()
            except OSError:
                time.sleep(0.02)
            else:
                return
        raise AssertionError("the broker does not start: " + (self.folder / "mosquitto.log").read_text())

    def kill(self):
        self.process.kill()
        self.process.wait()


@pytest.fixture
def broker(tmp_path):
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin")
    if program is None:
        pytest.skip("no MQTT broker here: install Debian's package mosquitto")
    broker = Broker(program, tmp_path)
    yield broker
    if broker.process is not None:
        broker.kill()


class Subscriber:
    """Collects all messages of the broker; connects again after it was away."""

    def __init__(self, port, **options):
        self.port, self.options, self.messages = port, options, []

    async def run(self, is_ready):
        while True:
            try:
                async with aiomqtt.Client("127.0.0.1", self.port, **self.options) as client:
                    await client.subscribe("#", qos=1)
                    is_ready.set()
                    async for message in client.messages:
                        self.messages.append(message)
            except aiomqtt.MqttError:
                await asyncio.sleep(0.02)

    def verdicts(self):
        return [json.loads(one.payload) for one in self.messages if str(one.topic).endswith("/verdict")]

    def states(self):
        return [one.payload.decode() for one in self.messages if str(one.topic) == "hyperspot/status"]


def play(tmp_path, broker, scenario, subscriber_options=None, **settings):
    async def main():
        subscriber = Subscriber(broker.port, **subscriber_options or {})
        is_ready = asyncio.Event()
        listening = asyncio.create_task(subscriber.run(is_ready))
        try:
            await asyncio.wait_for(is_ready.wait(), 10)
            async with plant_in(tmp_path) as plant:
                plant.add_output("mqtt", {"host": "127.0.0.1", "port": broker.port, **settings})
                outputs = Outputs(plant.database, plant.events, no_trigger, first_wait=0.05)
                await scenario(plant, outputs, subscriber)
        finally:
            listening.cancel()
            await asyncio.wait([listening])

    asyncio.run(main())


async def inspect(plant, *values, **fields):
    return [await plant.inspector.inspect(InspectionRequest("bolt", png(value), **fields)) for value in values]


def test_verdicts_and_the_status_are_published(tmp_path, broker):
    broker.start()

    async def scenario(plant, outputs, subscriber):
        async with started(outputs):
            sent = await inspect(plant, *range(10), station="line/3")
            await until(lambda: len(subscriber.verdicts()) == 10)
        await until(lambda: subscriber.states() == ["online", "offline"])
        assert [one["id"] for one in subscriber.verdicts()] == [one.id for one in sent]
        assert {str(one.topic) for one in subscriber.messages} == {
            "hyperspot/status",
            "hyperspot/bolt/line_3/verdict",
        }
        assert {one.qos for one in subscriber.messages} == {1}

    play(tmp_path, broker, scenario)


def test_a_broker_that_was_killed_gets_all_in_order(tmp_path, broker):
    broker.start()

    async def scenario(plant, outputs, subscriber):
        async with started(outputs):
            sent = await inspect(plant, 1, 2)
            await until(lambda: len(subscriber.verdicts()) == 2 and not plant.deliveries)
            await asyncio.to_thread(broker.kill)
            sent += await inspect(plant, 3, 4, 5)
            await until(lambda: outputs.status()["mes"]["state"] == "failing")
            await asyncio.sleep(0.5)
            sent += await inspect(plant, 6)
            assert outputs.status()["mes"]["waiting"] == 4
            await asyncio.to_thread(broker.start)
            await until(lambda: not plant.deliveries)
            assert outputs.status()["mes"]["state"] == "running"
        # The subscriber connects again by itself, perhaps after some were published: the broker has all of them.
        assert outputs._outputs == {}
        received = [one["id"] for one in subscriber.verdicts()]
        expected = [one.id for one in sent]
        assert received == [one for one in expected if one in received]
        assert received[:2] == expected[:2]

    play(tmp_path, broker, scenario)


def test_an_idle_output_connects_again_and_says_so(tmp_path, broker):
    broker.start()

    async def scenario(plant, outputs, subscriber):
        async with started(outputs):
            await until(lambda: subscriber.states() == ["online"])
            await asyncio.to_thread(broker.kill)
            await until(lambda: outputs.status()["mes"]["state"] == "failing")
            await asyncio.to_thread(broker.start)
            await until(lambda: outputs.status()["mes"]["state"] == "running")
            # Retained: whoever comes later sees it, too.
            await until(lambda: subscriber.states()[1:] == ["online"])

    play(tmp_path, broker, scenario)


def test_a_station_that_dies_is_offline(tmp_path, broker):
    broker.start()

    async def scenario(plant, outputs, subscriber):
        async with started(outputs):
            await until(lambda: subscriber.states() == ["online"])
            output = outputs._outputs["mes"].task
            with pytest.MonkeyPatch.context() as patch:
                # A kill: the connection ends without a word.
                async def drop(self):
                    self._client._client._sock_close()
                    self._client = None

                patch.setattr(Mqtt, "close", drop)
                output.cancel()
                await asyncio.wait([output])
            await until(lambda: subscriber.states() == ["online", "offline"])

    play(tmp_path, broker, scenario)


def test_tls_and_a_password(tmp_path, broker):
    certificate, key = make_certificate(tmp_path)
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", str(passwords), "ann", "s3cret"], check=True, capture_output=True)
    broker.lines = [
        "allow_anonymous false",
        f"password_file {passwords}",
        f"certfile {certificate}",
        f"keyfile {key}",
    ]
    broker.start()
    tls = {"tls": True, "ca_file": str(certificate), "host": "localhost"}

    async def scenario(plant, outputs, subscriber):
        plant.add_output("mqtt", {"port": broker.port, "user": "ann", "password": "wrong", **tls}, "wrong")
        clear = {"host": "127.0.0.1", "port": broker.port, "user": "ann", "password": "s3cret", "timeout": 1}
        plant.add_output("mqtt", clear, "clear")
        async with started(outputs):
            await inspect(plant, 1)
            await until(lambda: subscriber.verdicts())
            await until(lambda: all(outputs.status()[name]["last_error"] for name in ("wrong", "clear")), 20)
            await until(lambda: len(plant.deliveries) == 2)
        assert "s3cret" not in repr(outputs.status())

    context = ssl.create_default_context(cafile=certificate)
    options = {"username": "ann", "password": "s3cret", "tls_context": context}
    play(tmp_path, broker, scenario, options, user="ann", password="s3cret", **tls)


def test_values_do_not_change_the_levels_of_a_topic():
    assert topic_of("a/{product}/{lot}", {"product": "x/+#\0", "lot": ""}) == "a/x____/-"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"topic": "a/{secret}"}, "braces may hold lot, product"),
        ({"topic": "a/{product"}, "not closed"),
        ({"topic": "a/#"}, "no \\+ or #"),
        ({"topic": "a/{product.__class__}"}, "braces may hold"),
        ({"topic": "a/{}"}, "braces may hold"),
        ({"status_topic": "a/+"}, "no \\+ or #"),
    ],
)
def test_wrong_topics_are_refused(settings, message):
    with pytest.raises(SettingsError, match=message):
        MqttSettings.read({"host": "localhost", **settings})
