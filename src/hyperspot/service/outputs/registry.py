"""All kinds of outputs by name: built in, registered by a call, or from installed plugins."""

from typing import Any

from hyperspot.service.outputs.base import Output
from hyperspot.service.outputs.modbus import Modbus
from hyperspot.service.outputs.mqtt import Mqtt
from hyperspot.service.outputs.opcua import OpcUa
from hyperspot.service.outputs.webhook import Webhook
from hyperspot.utils.registry import Registry


def _check(name: str, part: Any) -> None:
    if not (isinstance(part, type) and issubclass(part, Output)):
        raise TypeError(f"'{name}' is {part!r}, not a subclass of Output")


OUTPUTS: Registry[type[Output]] = Registry(
    "kind of output",
    "hyperspot.outputs",
    {"webhook": Webhook, "mqtt": Mqtt, "opcua": OpcUa, "modbus": Modbus},
    check=_check,
)
"""Classes by kind, as the table `outputs` names it."""
