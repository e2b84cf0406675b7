"""Verdicts for a PLC by Modbus TCP: the station is the server, the PLC reads and writes.

Signals are single bits: coils that the PLC writes, discrete inputs that it reads. All numbers are in registers of 16
bits; 32-bit values take two, the high one first.
"""

import math
import struct
from dataclasses import fields
from typing import Any

from pydantic import Field

from hyperspot.service.outputs.base import OutputContext, OutputError, Payload
from hyperspot.service.outputs.handshake import PlcSignals, StationSignals
from hyperspot.service.outputs.plc import PlcOutput, PlcSettings, verdict_number
from hyperspot.utils.optional_packages import require

MAP_VERSION = 1
COILS, DISCRETE_INPUTS, HOLDING, INPUTS = 1, 2, 3, 4
"""Function codes that read each block."""
BITS = ("ready", "busy", "result_ready", "ok", "ng", "error")
"""Discrete inputs from 0, and the bits of input register 1."""
SERIAL_REGISTERS = 16
"""Holding registers from 1: 32 characters, ASCII, the first in the high byte."""
RESULT, LAST = 10, 100
"""First input registers of the result of the last trigger, and of the last verdict whatever asked for it."""
BLOCK = 32
"""Input registers of a verdict."""
REGISTERS = LAST + BLOCK


class ModbusSettings(PlcSettings):
    """Settings of a Modbus TCP server."""

    port: int = Field(502, ge=1, le=65535, title="Port", description="502 by standard; below 1024 takes a permission")


class Modbus(PlcOutput):
    """A Modbus TCP server. Modbus knows no passwords: listen in the network of the machine alone."""

    form = ModbusSettings

    def __init__(self, settings: ModbusSettings, context: OutputContext) -> None:
        super().__init__(settings, context)
        self._server: Any = None
        self._verdicts = 0

    async def open(self) -> None:
        """Start to listen; raises OutputError, and MissingPackageError without pymodbus."""
        server = require("pymodbus.server", "modbus", "a Modbus output")
        simulator = require("pymodbus.simulator", "modbus", "a Modbus output")
        settings: ModbusSettings = self.settings

        def block(count: int, is_bits: bool) -> list[Any]:
            if is_bits:
                return [simulator.SimData(0, count=count, values=False, datatype=simulator.DataType.BITS)]
            return [simulator.SimData(0, count=count, values=0, datatype=simulator.DataType.REGISTERS)]

        blocks = (block(16, True), block(16, True), block(1 + SERIAL_REGISTERS, False), block(REGISTERS, False))
        # Device 0: whatever unit the PLC asks for.
        listening = server.ModbusTcpServer(
            simulator.SimDevice(0, simdata=blocks), address=(settings.host, settings.port)
        )
        try:
            await listening.serve_forever(background=True)
        except (RuntimeError, OSError) as error:
            await listening.shutdown()
            raise OutputError(
                f"port {settings.port} of {settings.host} cannot be used ({error}); check both, and who else uses them"
            ) from None
        self._server = listening
        await self._write(INPUTS, 0, [MAP_VERSION])

    async def close(self) -> None:
        """Stop listening."""
        if self._server is not None:
            await self._server.shutdown()

    async def send(self, payload: Payload) -> None:
        """Show a verdict as the last one."""
        self._verdicts = self._verdicts % 65535 + 1
        await self._write(INPUTS, LAST, registers_of(payload, self._verdicts))

    async def read_signals(self) -> PlcSignals:
        """Return what the PLC wrote."""
        trigger, acknowledge = (await self._read(COILS, 0, 2))[:2]
        recipe, *serial = await self._read(HOLDING, 0, 1 + SERIAL_REGISTERS)
        return PlcSignals(bool(trigger), bool(acknowledge), recipe, text_of(serial))

    async def write_signals(self, signals: StationSignals, heartbeat: int) -> None:
        """Set the discrete inputs and input registers 1 to 5."""
        bits = [bool(getattr(signals, name)) for name in BITS]
        word = sum(bit << place for place, bit in enumerate(bits))
        await self._write(INPUTS, 1, [word, signals.error_code, signals.counter, heartbeat, signals.ignored])
        await self._write(DISCRETE_INPUTS, 0, bits)

    async def write_result(self, payload: Payload | None) -> None:
        """Set the registers of the result."""
        await self._write(INPUTS, RESULT, [0] * BLOCK if payload is None else registers_of(payload, 0))

    async def _read(self, block: int, address: int, count: int) -> list[Any]:
        return list(await self._server.async_getValues(0, block, address, count))

    async def _write(self, block: int, address: int, values: list[Any]) -> None:
        await self._server.async_setValues(0, block, address, values)


def registers_of(payload: Payload, count: int) -> list[int]:
    """Return the input registers of a verdict.

    | register | what |
    |---|---|
    | 0 | verdicts since the output was opened, 1 to 65535, then again 1; 0 in the result of a trigger |
    | 1 | 0 none, 1 OK, 2 NG, 3 no threshold |
    | 2, 3 | number of the inspection, 32 bits |
    | 4, 5 | score, float |
    | 6, 7 | p-value, float; NaN if there is none |
    | 8 | version of the model |
    | 9 | regions |
    | 10 to 13 | left, top, width and height of the region with the highest score, in pixels |
    | 14 | milliseconds |
    | 15 | 0 |
    | 16 to 31 | id of the inspection, 32 ASCII characters |

    Args:
        payload: Of the verdict.
        count: For register 0.

    Examples:
        >>> from hyperspot.service.outputs.modbus import registers_of
        >>> verdict = {"id": "ab" * 16, "number": 70000, "version": 3, "score": 1.5, "p_value": None,
        ...     "is_anomalous": True, "regions": [], "milliseconds": 12.4}
        >>> registers_of(verdict, 7)[:6]
        [7, 2, 1, 4464, 16320, 0]

    """
    regions = payload["regions"]
    box = [_word(regions[0][side]) for side in ("left", "top", "width", "height")] if regions else [0] * 4
    p_value = math.nan if payload["p_value"] is None else payload["p_value"]
    return [
        count,
        verdict_number(payload),
        *_words(">I", payload["number"] % 2**32),
        *_words(">f", payload["score"]),
        *_words(">f", p_value),
        _word(payload["version"]),
        _word(len(regions)),
        *box,
        _word(payload["milliseconds"]),
        0,
        *_words(">32s", str(payload["id"]).encode("ascii", "replace")),
    ]


def text_of(registers: list[int]) -> str:
    """Return the text in registers, two ASCII characters each, up to the first zero.

    Examples:
        >>> from hyperspot.service.outputs.modbus import text_of
        >>> text_of([0x534E, 0x3700, 0x4141])
        'SN7'

    """
    content = struct.pack(f">{len(registers)}H", *registers).partition(b"\0")[0]
    return "".join(letter for letter in content.decode("ascii", "replace") if letter.isprintable()).strip()


def _word(value: int | float) -> int:
    return max(0, min(round(value), 65535))


def _words(layout: str, value: Any) -> tuple[int, ...]:
    content = struct.pack(layout, value)
    return struct.unpack(f">{len(content) // 2}H", content)


# One bit each, in the order of `BITS`; a signal that is renamed must not vanish from the map.
assert set(BITS) < {field.name for field in fields(StationSignals)}
