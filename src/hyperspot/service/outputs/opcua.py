"""Verdicts for a PLC or a supervisory system by OPC UA: the station is the server."""

import asyncio
import hmac
import json
import math
import socket
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import Field, SecretStr, model_validator

from hyperspot.service.database.tables import Product
from hyperspot.service.finishing import in_thread
from hyperspot.service.outputs.base import OutputContext, OutputError, Payload
from hyperspot.service.outputs.handshake import PlcSignals, StationSignals
from hyperspot.service.outputs.plc import PlcOutput, PlcSettings, verdict_number
from hyperspot.service.problems import Problem
from hyperspot.utils.optional_packages import require

NAMESPACE = "urn:hyperspot:station"
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
PLC_SIGNALS = {"Trigger": False, "Acknowledge": False, "Recipe": 0, "SerialNumber": ""}
STATION_SIGNALS = {
    "Ready": "ready",
    "Busy": "busy",
    "Ok": "ok",
    "Ng": "ng",
    "Error": "error",
    "ErrorCode": "error_code",
    "Counter": "counter",
    "Ignored": "ignored",
    # Last: all others are valid then.
    "ResultReady": "result_ready",
}


class OpcUaSettings(PlcSettings):
    """Settings of an OPC UA server."""

    port: int = Field(4840, ge=1, le=65535, title="Port", description="4840 by standard")
    user: str | None = Field(None, title="User", description="Name that clients sign in with")
    password: SecretStr | None = Field(None, title="Password", description="Of the user")
    anonymous: bool = Field(
        False, title="Without password", description="Let clients in without user and password or certificate"
    )
    certificate: Path | None = Field(
        None, title="Certificate", description="PEM or DER file; with it all connections are signed and encrypted"
    )
    key: Path | None = Field(None, title="Key", description="PEM file of the private key of the certificate")
    trusted: Path | None = Field(
        None, title="Trusted clients", description="Folder of the certificates of clients that may sign in by them"
    )

    @model_validator(mode="after")
    def _safe(self) -> "OpcUaSettings":
        if (self.certificate is None) != (self.key is None):
            raise ValueError("encryption takes two files; give the certificate and its key")
        if (self.user is None) != (self.password is None):
            raise ValueError("give user and password together")
        if self.user is None and self.trusted is None and not self.anonymous:
            raise ValueError(
                "nobody could sign in; give user and password, a folder of trusted certificates, or let clients in "
                "without password"
            )
        if self.trusted is not None and self.certificate is None:
            raise ValueError("certificates of clients take encryption; give the certificate of the server and its key")
        if self.certificate is None and not self.anonymous and self.host not in LOOPBACK:
            raise ValueError("a password would cross the network in the clear; give certificate and key")
        return self


class OpcUa(PlcOutput):
    """An OPC UA server with the last verdict of each product, the signals of the handshake, and a method `Inspect`.

    Node ids are strings, for example `ns=2;s=bolt.Score` and `ns=2;s=Handshake.Trigger`.
    """

    form = OpcUaSettings

    def __init__(self, settings: OpcUaSettings, context: OutputContext) -> None:
        super().__init__(settings, context)
        self._server: Any = None
        self._nodes: dict[str, Any] = {}
        self._products: Any = None
        self._namespace = 0

    async def open(self) -> None:
        """Start to listen; raises OutputError, and MissingPackageError without asyncua."""
        asyncua = require("asyncua", "opcua", "an OPC UA output")
        settings: OpcUaSettings = self.settings
        trusted = await in_thread(_trusted, settings.trusted)
        # Before the nodes of the standard are made, which takes long.
        await in_thread(_check_port, settings.host, settings.port)
        server = asyncua.Server(user_manager=_Users(settings, trusted))
        self._server = server
        server.name, server.product_uri, server.manufacturer_name = "hyperspot station", NAMESPACE, "hyperspot"
        await server.init()
        await server.set_application_uri(NAMESPACE)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        server.set_endpoint(f"opc.tcp://{host}:{settings.port}/hyperspot")
        await self._protect(server, asyncua.ua)
        self._namespace = await server.register_namespace(NAMESPACE)
        await self._add_nodes(server)
        await server.start()

    async def _protect(self, server: Any, ua: Any) -> None:
        """Set who may connect and how."""
        settings: OpcUaSettings = self.settings
        tokens = []
        if settings.anonymous:
            tokens.append(ua.AnonymousIdentityToken)
        if settings.user is not None:
            tokens.append(ua.UserNameIdentityToken)
        if settings.trusted is not None:
            tokens.append(ua.X509IdentityToken)
        server.set_identity_tokens(tokens)
        if settings.certificate is None:
            server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
            return
        server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
        try:
            await server.load_certificate(str(settings.certificate))
            await server.load_private_key(str(settings.key))
        except (OSError, ValueError) as error:
            raise OutputError(f"the certificate or its key cannot be read ({error}); check the files") from None

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            await self._server.stop()

    async def _add_nodes(self, server: Any) -> None:
        root = await server.nodes.objects.add_object(self._id("Hyperspot"), self._name("Hyperspot"))
        self._products = await root.add_object(self._id("Products"), self._name("Products"))
        handshake = await root.add_object(self._id("Handshake"), self._name("Handshake"))
        for name, value in PLC_SIGNALS.items():
            node = await self._add(handshake, "Handshake", name, value)
            await node.set_writable()
        for name in STATION_SIGNALS:
            await self._add(handshake, "Handshake", name, 0 if name in ("ErrorCode", "Counter", "Ignored") else False)
        await self._add(handshake, "Handshake", "Heartbeat", 0)
        result = await handshake.add_object(self._id("Result"), self._name("Result"))
        for name, value in values_of(None).items():
            await self._add(result, "Result", name, value)
        ua = require("asyncua", "opcua", "an OPC UA output").ua
        await root.add_method(
            self._id("Inspect"),
            self._name("Inspect"),
            self._inspect,
            [_argument(ua, "SerialNumber", "String"), _argument(ua, "Recipe", "UInt32")],
            [
                _argument(ua, "InspectionId", "String"),
                _argument(ua, "Verdict", "UInt32"),
                _argument(ua, "Score", "Double"),
                _argument(ua, "Error", "String"),
            ],
        )
        for product in await in_thread(self._product_ids):
            await self._add_product(product)

    def _product_ids(self) -> list[str]:
        if self.context.product_id is not None:
            return [self.context.product_id]
        with self.context.database.session() as session:
            return [product.id for product in session.query(Product).filter(Product.is_archived.is_(False))]

    async def _add_product(self, product: str) -> None:
        folder = await self._products.add_object(self._id(product), self._name(product))
        for name, value in {**values_of(None), "Inspected": 0, "Anomalous": 0}.items():
            await self._add(folder, product, name, value)

    async def _add(self, parent: Any, group: str, name: str, value: Any) -> Any:
        node = await parent.add_variable(self._id(f"{group}.{name}"), self._name(name), _variant(name, value))
        self._nodes[f"{group}.{name}"] = node
        return node

    def _id(self, name: str) -> Any:
        return require("asyncua", "opcua", "an OPC UA output").ua.NodeId(name, self._namespace)

    def _name(self, name: str) -> Any:
        return require("asyncua", "opcua", "an OPC UA output").ua.QualifiedName(name, self._namespace)

    async def _write(self, group: str, values: dict[str, Any]) -> None:
        for name, value in values.items():
            await self._nodes[f"{group}.{name}"].write_value(_variant(name, value))

    async def send(self, payload: Payload) -> None:
        """Show a verdict as the last one of its product."""
        product = str(payload["product"])
        if f"{product}.Score" not in self._nodes:
            await self._add_product(product)
        counters = {"Inspected": 1, "Anomalous": int(payload["is_anomalous"] is True)}
        for name, more in counters.items():
            counters[name] = more + await self._nodes[f"{product}.{name}"].read_value()
        await self._write(product, values_of(payload) | counters)

    async def read_signals(self) -> PlcSignals:
        """Return what the PLC wrote."""
        values = [await self._nodes[f"Handshake.{name}"].read_value() for name in PLC_SIGNALS]
        trigger, acknowledge, recipe, serial = values
        return PlcSignals(bool(trigger), bool(acknowledge), int(recipe or 0), str(serial or "")[:200])

    async def write_signals(self, signals: StationSignals, heartbeat: int) -> None:
        """Set the variables of the handshake."""
        values = {name: getattr(signals, field) for name, field in STATION_SIGNALS.items()}
        if not signals.result_ready:
            # First: the others are not valid any more.
            values = {"ResultReady": False} | values
        await self._write("Handshake", {"Heartbeat": heartbeat} | values)

    async def write_result(self, payload: Payload | None) -> None:
        """Set the variables of the result."""
        await self._write("Result", values_of(payload))

    async def _inspect(self, _: Any, serial_number: Any, recipe: Any) -> list[Any]:
        """Answer the method `Inspect`."""
        ua = require("asyncua", "opcua", "an OPC UA output").ua
        payload, error = None, ""
        try:
            async with asyncio.timeout(self.settings.inspection_seconds):
                payload = await self.take(int(recipe.Value or 0), str(serial_number.Value or "")[:200])
        except Problem as problem:
            error = problem.detail
        except TimeoutError:
            error = f"the inspection took more than {self.settings.inspection_seconds:g} seconds"
        values = values_of(payload)
        return [
            ua.Variant(values["InspectionId"], ua.VariantType.String),
            ua.Variant(values["Verdict"], ua.VariantType.UInt32),
            ua.Variant(values["Score"], ua.VariantType.Double),
            ua.Variant(error, ua.VariantType.String),
        ]


def values_of(payload: Payload | None) -> dict[str, Any]:
    """Return the values of the variables of a verdict; None: those before the first.

    Examples:
        >>> from hyperspot.service.outputs.opcua import values_of
        >>> values_of(None)["Verdict"]
        0

    """
    if payload is None:
        return {
            "InspectionId": "",
            "Number": 0,
            "SerialNumber": "",
            "Verdict": 0,
            "IsAnomalous": False,
            "Score": 0.0,
            "PValue": math.nan,
            "Regions": "[]",
            "ImageUrl": "",
            "Version": 0,
            "Time": "",
        }
    return {
        "InspectionId": payload["id"],
        "Number": payload["number"],
        "SerialNumber": payload["serial_number"] or "",
        "Verdict": verdict_number(payload),
        "IsAnomalous": payload["is_anomalous"] is True,
        "Score": payload["score"],
        "PValue": math.nan if payload["p_value"] is None else payload["p_value"],
        "Regions": json.dumps(payload["regions"]),
        "ImageUrl": payload["links"]["image"],
        "Version": payload["version"],
        "Time": payload["received_at"],
    }


def _variant(name: str, value: Any) -> Any:
    """Return a value with its OPC UA type, which must not change between two writes."""
    ua = require("asyncua", "opcua", "an OPC UA output").ua
    if name == "Time":
        return ua.Variant(datetime.fromisoformat(value) if value else None, ua.VariantType.DateTime)
    kinds = {bool: ua.VariantType.Boolean, int: ua.VariantType.UInt32, float: ua.VariantType.Double}
    return ua.Variant(value, kinds.get(type(value), ua.VariantType.String))


def _argument(ua: Any, name: str, kind: str) -> Any:
    return ua.Argument(Name=name, DataType=ua.NodeId(getattr(ua.ObjectIds, kind)), ValueRank=-1)


def _check_port(host: str, port: int) -> None:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise OutputError(
            f"port {port} of {host} cannot be used ({error}); check both, and who else uses them"
        ) from None


def _trusted(folder: Path | None) -> frozenset[bytes]:
    """Return the certificates of a folder as DER."""
    if folder is None:
        return frozenset()
    x509 = require("cryptography.x509", "opcua", "an OPC UA output")
    encoding = require("cryptography.hazmat.primitives.serialization", "opcua", "an OPC UA output").Encoding.DER
    found = set()
    try:
        for path in sorted(folder.iterdir()):
            content = path.read_bytes()
            load = x509.load_pem_x509_certificate if content.startswith(b"-----") else x509.load_der_x509_certificate
            found.add(load(content).public_bytes(encoding))
    except (OSError, ValueError) as error:
        raise OutputError(f"the trusted certificates in {folder} cannot be read ({error}); check the files") from None
    return frozenset(found)


class _Users:
    """Who may sign in, as asyncua asks for it."""

    def __init__(self, settings: OpcUaSettings, trusted: frozenset[bytes]) -> None:
        self._settings, self._trusted = settings, trusted

    def get_user(
        self, iserver: Any, username: str | None = None, password: str | None = None, certificate: Any = None
    ) -> Any:
        """Return a user, or None."""
        del iserver
        rules = require("asyncua.crypto.permission_rules", "opcua", "an OPC UA output")
        if not self._may(username, password, certificate):
            return None
        return rules.User(role=rules.UserRole.User, name=username)

    def _may(self, username: str | None, password: str | None, certificate: bytes | None) -> bool:
        settings = self._settings
        if username is not None:
            if settings.user is None or settings.password is None:
                return False
            wanted = f"{settings.user}\0{settings.password.get_secret_value()}"
            # In constant time.
            return hmac.compare_digest(f"{username}\0{password or ''}".encode(), wanted.encode())
        return settings.anonymous or (certificate is not None and certificate in self._trusted)
