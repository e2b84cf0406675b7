"""Verdicts to an MQTT broker."""

import asyncio
import contextlib
import json
import re
import ssl
from pathlib import Path
from string import Formatter
from typing import Any

from pydantic import Field, SecretStr, field_validator

from hyperspot.service.finishing import in_thread
from hyperspot.service.outputs.base import Output, OutputContext, OutputError, OutputSettings, Payload
from hyperspot.utils.optional_packages import require

FIELDS = frozenset({"product", "station", "source", "lot"})
"""Of a verdict, which a topic may name."""
UNSAFE = re.compile("[+#/\0-\x1f\x7f\ud800-\udfff]")
CLOSE_SECONDS = 2.0


class MqttSettings(OutputSettings):
    """Settings of an MQTT broker."""

    host: str = Field(title="Broker", description="Name or address of its machine")
    port: int = Field(1883, ge=1, le=65535, title="Port", description="Usually 1883, and 8883 with TLS")
    topic: str = Field(
        "hyperspot/{product}/{station}/verdict",
        max_length=500,
        title="Topic",
        description="{product}, {station}, {source} and {lot} stand for those of the verdict",
    )
    status_topic: str = Field(
        "hyperspot/status",
        max_length=500,
        title="Status topic",
        description="Says online, and offline when the station is gone",
    )
    user: str | None = Field(None, title="User", description="If the broker asks for one")
    password: SecretStr | None = Field(None, title="Password", description="Of the user")
    tls: bool = Field(False, title="TLS", description="Encrypt the connection and check the certificate of the broker")
    ca_file: Path | None = Field(
        None, title="CA file", description="PEM file of the authority that signed the broker's certificate"
    )
    timeout: float = Field(10.0, gt=0, le=50, title="Time-out", description="Seconds to wait for the broker")

    @field_validator("topic")
    @classmethod
    def _known(cls, topic: str) -> str:
        try:
            fields = {field for _, field, _, _ in Formatter().parse(topic) if field is not None}
        except ValueError:
            raise ValueError("a brace is not closed") from None
        if not fields <= FIELDS:
            raise ValueError(f"braces may hold {', '.join(sorted(FIELDS))}")
        return _plain(topic)

    @field_validator("status_topic")
    @classmethod
    def _plain_status(cls, topic: str) -> str:
        return _plain(topic)


def _plain(topic: str) -> str:
    if UNSAFE.search(topic.replace("/", "")):
        raise ValueError("a topic has no + or # and no control characters")
    return topic


class Mqtt(Output):
    """Publishes each verdict with QoS 1; the broker has it when it acknowledges.

    The status topic is retained. It says `online` while the output is connected, and the broker sets it to `offline`
    (last will) when the connection is lost.
    """

    form = MqttSettings

    def __init__(self, settings: MqttSettings, context: OutputContext) -> None:
        super().__init__(settings, context)
        self._client: Any = None

    async def open(self) -> None:
        """Connect; raises OutputError, and MissingPackageError without aiomqtt."""
        aiomqtt = require("aiomqtt", "mqtt", "an MQTT output")
        settings: MqttSettings = self.settings
        client = aiomqtt.Client(
            settings.host,
            settings.port,
            username=settings.user,
            password=None if settings.password is None else settings.password.get_secret_value(),
            will=aiomqtt.Will(settings.status_topic, "offline", qos=1, retain=True),
            timeout=settings.timeout,
            tls_context=await in_thread(self._tls) if settings.tls else None,
        )
        try:
            await client.__aenter__()
        except (aiomqtt.MqttError, OSError) as error:
            raise OutputError(
                f"the broker {settings.host}:{settings.port} cannot be reached ({error}); check address and user"
            ) from None
        self._client = client
        await self._publish(settings.status_topic, "online", retain=True)

    def _tls(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self.settings.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise OutputError(f"the CA file {self.settings.ca_file} cannot be read ({error}); check it") from None

    async def send(self, payload: Payload) -> None:
        """Publish a verdict; raises OutputError."""
        await self._publish(topic_of(self.settings.topic, payload), json.dumps(payload, separators=(",", ":")))

    async def _publish(self, topic: str, text: str, retain: bool = False) -> None:
        error_kind = require("aiomqtt", "mqtt", "an MQTT output").MqttError
        try:
            await self._client.publish(topic, text, qos=1, retain=retain)
        except error_kind as error:
            raise OutputError(f"the broker does not take messages ({error})") from None

    async def run(self) -> None:
        """Wait until the connection is lost; raises OutputError."""
        error_kind = require("aiomqtt", "mqtt", "an MQTT output").MqttError
        try:
            # Nothing is subscribed; the iteration ends with the connection.
            async for _ in self._client.messages:
                continue
        except error_kind as error:
            raise OutputError(f"the connection to the broker is lost ({error})") from None

    async def close(self) -> None:
        """Say that the station goes, and disconnect."""
        if self._client is None:
            return
        error_kind = require("aiomqtt", "mqtt", "an MQTT output").MqttError
        client, self._client = self._client, None
        with contextlib.suppress(error_kind, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await client.publish(self.settings.status_topic, "offline", qos=1, retain=True)
        with contextlib.suppress(error_kind):
            await client.__aexit__(None, None, None)


def topic_of(template: str, payload: Payload) -> str:
    """Return the topic of a verdict; what would change its levels is replaced.

    Examples:
        >>> from hyperspot.service.outputs.mqtt import topic_of
        >>> topic_of("hyperspot/{product}/{station}/verdict", {"product": "bolt", "station": "line/3 #2"})
        'hyperspot/bolt/line_3 _2/verdict'
        >>> topic_of("hyperspot/{product}/{station}/verdict", {"product": "bolt", "station": None})
        'hyperspot/bolt/-/verdict'

    """
    return template.format_map({name: UNSAFE.sub("_", str(payload.get(name) or "-")) for name in FIELDS})
