"""What the tests of both fieldbuses share: a free port, and a source that a PLC triggers."""

import asyncio
import socket
from contextlib import asynccontextmanager

from hyperspot.service.inspecting import InspectionRequest
from hyperspot.service.outputs import Outputs
from tests.service.plant import plant_in, png, started


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class FakeSource:
    """Takes images of a part whose brightness is `value`; stands for `Sources.trigger`."""

    def __init__(self, plant):
        self.plant, self.value, self.asked, self.problem, self.delay = plant, 0, [], None, 0.0

    async def trigger(self, name, serial_number=None, product_id=None):
        self.asked.append((name, serial_number, product_id))
        await asyncio.sleep(self.delay)
        if self.problem is not None:
            raise self.problem
        request = InspectionRequest(product_id or "bolt", png(self.value), source=name, serial_number=serial_number)
        return await self.plant.inspector.inspect(request)


@asynccontextmanager
async def plc_line(folder, kind, **settings):
    """Run an output to a PLC with a source `camera`."""
    async with plant_in(folder) as plant:
        source = FakeSource(plant)
        outputs = Outputs(plant.database, plant.events, source.trigger, first_wait=0.05)
        port = free_port()
        values = {"port": port, "source": "camera", "recipes": "1=bolt, 2=nut", "poll_milliseconds": 2}
        plant.add_output(kind, values | settings, "plc")
        async with started(outputs):
            yield plant, source, outputs, port
