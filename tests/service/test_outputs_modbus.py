"""A PLC by Modbus TCP: pymodbus' client talks to our server on loopback."""

import asyncio
import math
import struct

import pytest
from pymodbus.client import AsyncModbusTcpClient

from hyperspot.service.inspecting import InspectionRequest
from hyperspot.service.outputs.handshake import Code
from hyperspot.service.outputs.modbus import BITS, LAST, MAP_VERSION, RESULT, registers_of
from hyperspot.service.problems import Problem
from tests.service.plant import png, until
from tests.service.plc_line import plc_line


class Plc:
    """Speaks by the register map of the documentation alone."""

    def __init__(self, client):
        self.client = client

    async def bits(self):
        answer = await self.client.read_discrete_inputs(0, count=6)
        return {name for name, bit in zip(BITS, answer.bits, strict=False) if bit}

    async def inputs(self, address, count):
        return (await self.client.read_input_registers(address, count=count)).registers

    async def wait(self, *names):
        async with asyncio.timeout(10):
            while not set(names) <= await self.bits():
                await asyncio.sleep(0.005)
        return await self.bits()

    async def set(self, trigger=None, acknowledge=None):
        for address, value in enumerate((trigger, acknowledge)):
            if value is not None:
                await self.client.write_coil(address, value)

    async def cycle(self):
        """Trigger, read, acknowledge; return the bits and the result."""
        await self.wait("ready")
        await self.set(trigger=True)
        bits = await self.wait("result_ready")
        result = await self.inputs(RESULT, 32)
        await self.set(trigger=False, acknowledge=True)
        async with asyncio.timeout(10):
            while "result_ready" in await self.bits():
                await asyncio.sleep(0.005)
        await self.set(acknowledge=False)
        return bits, result


def play(tmp_path, scenario, **settings):
    async def main():
        async with plc_line(tmp_path, "modbus", **settings) as (plant, source, outputs, port):
            await until(lambda: outputs.status()["plc"]["state"] == "running")
            client = AsyncModbusTcpClient("127.0.0.1", port=port)
            await client.connect()
            try:
                await scenario(plant, source, outputs, Plc(client))
            finally:
                client.close()
                await asyncio.sleep(0.05)

    asyncio.run(main())


def test_a_plc_triggers_and_reads_results(tmp_path):
    async def scenario(plant, source, outputs, plc):
        assert await plc.inputs(0, 1) == [MAP_VERSION]
        await plc.client.write_registers(0, [2, 0x534E, 0x3700])
        bits, result = await plc.cycle()
        assert bits == {"result_ready", "ok"}
        source.value = 255
        await plc.client.write_registers(0, [0])
        bits, second = await plc.cycle()
        assert bits == {"result_ready", "ng"}
        assert source.asked == [("camera", "SN7", "nut"), ("camera", "SN7", None)]
        nut, bolt = plant.inspections
        assert (result[1], result[2] * 65536 + result[3]) == (1, nut.number)
        assert struct.unpack(">f", struct.pack(">2H", *second[4:6]))[0] == 1.0
        assert struct.pack(">16H", *second[16:32]).decode() == bolt.id
        status, code, counter, _, ignored = await plc.inputs(1, 5)
        assert (status & 0b1110, code, counter, ignored) == (0, 0, 2, 0)

    play(tmp_path, scenario)


@pytest.mark.parametrize(
    ("status", "code"), [(503, Code.NO_IMAGE), (429, Code.OVERLOADED), (404, Code.SET_UP), (422, Code.FAILED)]
)
def test_errors_reach_the_plc(tmp_path, status, code):
    async def scenario(plant, source, outputs, plc):
        source.problem = Problem(status, "no")
        await plc.set(trigger=True)
        assert await plc.wait("result_ready") == {"result_ready", "error"}
        assert (await plc.inputs(2, 2)) == [code, 1]
        assert await plc.inputs(RESULT, 32) == [0] * 32
        source.problem = None
        await plc.set(trigger=False, acknowledge=True)
        await asyncio.sleep(0.1)
        await plc.set(acknowledge=False)
        assert (await plc.cycle())[0] == {"result_ready", "ok"}

    play(tmp_path, scenario)


def test_an_unknown_recipe_and_a_bug_are_errors(tmp_path):
    async def scenario(plant, source, outputs, plc):
        await plc.client.write_registers(0, [9])
        assert (await plc.cycle())[0] == {"result_ready", "error"}
        assert source.asked == []
        await plc.client.write_registers(0, [0])
        source.problem = ValueError("a bug")
        await plc.wait("ready")
        await plc.set(trigger=True)
        await plc.wait("error")
        assert (await plc.inputs(2, 1)) == [Code.FAILED]

    play(tmp_path, scenario)


def test_a_slow_inspection_times_out_and_its_result_shows_nowhere(tmp_path):
    async def scenario(plant, source, outputs, plc):
        source.delay = 0.5
        await plc.set(trigger=True)
        assert await plc.wait("result_ready") == {"result_ready", "error"}
        assert (await plc.inputs(2, 1)) == [Code.TIME_OUT]
        await until(lambda: plant.inspections)
        await asyncio.sleep(0.1)
        assert await plc.inputs(RESULT, 32) == [0] * 32
        # It is recorded, and shown as the last verdict.
        async with asyncio.timeout(5):
            while (await plc.inputs(LAST, 2)) != [1, 1]:
                await asyncio.sleep(0.01)

    play(tmp_path, scenario, inspection_seconds=0.2)


def test_a_result_that_is_not_acknowledged_is_taken_back(tmp_path):
    async def scenario(plant, source, outputs, plc):
        await plc.set(trigger=True)
        await plc.wait("result_ready", "ok")
        await plc.set(trigger=False)
        assert await plc.wait("ready") == {"ready", "error"}
        assert (await plc.inputs(2, 2)) == [Code.NOT_ACKNOWLEDGED, 1]

    play(tmp_path, scenario, acknowledge_seconds=0.2)


def test_every_verdict_is_shown_as_the_last_one_without_a_source(tmp_path):
    async def scenario(plant, source, outputs, plc):
        await plant.inspector.inspect(InspectionRequest("bolt", png(0)))
        await plant.inspector.inspect(InspectionRequest("bolt", png(255)))
        await until(lambda: not plant.deliveries)
        block = await plc.inputs(LAST, 32)
        assert block[:4] == [2, 2, 0, 2]
        assert struct.pack(">16H", *block[16:]).decode() == plant.inspections[-1].id
        heartbeat = await plc.inputs(4, 1)
        async with asyncio.timeout(5):
            while await plc.inputs(4, 1) == heartbeat:
                await asyncio.sleep(0.05)
        # A trigger is no request without a source.
        await plc.set(trigger=True)
        await asyncio.sleep(0.1)
        assert await plc.bits() == set()
        assert (await plc.client.read_input_registers(132, count=1)).isError()

    play(tmp_path, scenario, source=None)


def test_a_port_that_is_taken_is_named(tmp_path):
    async def main():
        async with plc_line(tmp_path, "modbus") as (plant, _, outputs, port):
            await until(lambda: outputs.status()["plc"]["state"] == "running")
            plant.add_output("modbus", {"port": port}, "second")
            await outputs.reload("second")
            await until(lambda: outputs.status()["second"]["state"] == "failing")
            assert f"port {port} of 127.0.0.1 cannot be used" in outputs.status()["second"]["last_error"]

    asyncio.run(main())


def test_registers_of_a_verdict():
    region = {"left": 1, "top": 2, "width": 300, "height": 70000, "area": 5, "score": 1.0}
    verdict = {
        "id": "0123456789abcdef" * 2,
        "number": 2**32 + 5,
        "version": 3,
        "score": 0.5,
        "p_value": None,
        "is_anomalous": None,
        "regions": [region, region],
        "milliseconds": 12.6,
    }
    registers = registers_of(verdict, 9)
    assert registers[:4] == [9, 3, 0, 5]
    assert math.isnan(struct.unpack(">f", struct.pack(">2H", *registers[6:8]))[0])
    assert registers[8:16] == [3, 2, 1, 2, 300, 65535, 13, 0]
    assert struct.pack(">16H", *registers[16:]) == verdict["id"].encode()
