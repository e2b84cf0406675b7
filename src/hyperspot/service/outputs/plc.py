"""What outputs to a PLC share: their settings, and the loop that runs the handshake over a fieldbus."""

import asyncio
import logging
import time
from abc import abstractmethod

from pydantic import Field, field_validator

from hyperspot.service.outputs.base import Output, OutputContext, OutputSettings, Payload
from hyperspot.service.outputs.handshake import Code, Handshake, PlcSignals, StationSignals, code_of
from hyperspot.service.problems import Problem
from hyperspot.service.records.summary import summary_of

log = logging.getLogger(__name__)


class PlcSettings(OutputSettings):
    """Settings of each output to a PLC."""

    host: str = Field(
        "127.0.0.1",
        title="Listen on",
        description="Address of this machine in the network of the PLC; 127.0.0.1 is for programs on this machine",
    )
    source: str | None = Field(
        None, title="Source", description="Takes an image when the PLC triggers; empty: the PLC only reads verdicts"
    )
    recipes: str = Field(
        "",
        title="Recipes",
        description="Products by the numbers of the PLC, for example 1=bolt, 2=nut; 0 is the product of the source",
    )
    inspection_seconds: float = Field(
        10.0, gt=0, le=600, title="Inspection time-out", description="Seconds after which the PLC gets error 5"
    )
    acknowledge_seconds: float = Field(
        5.0, gt=0, le=600, title="Acknowledge time-out", description="Seconds after which a result is taken back"
    )
    release_seconds: float = Field(
        5.0, gt=0, le=600, title="Release time-out", description="Seconds after which signals that stay set are error 7"
    )
    poll_milliseconds: float = Field(
        10.0, ge=1, le=1000, title="Poll", description="Milliseconds between two looks at the signals of the PLC"
    )

    @field_validator("recipes")
    @classmethod
    def _read(cls, recipes: str) -> str:
        recipes_of(recipes)
        return recipes


def recipes_of(text: str) -> dict[int, str]:
    """Return products by recipe numbers; raises ValueError, which names the part that is wrong.

    Examples:
        >>> from hyperspot.service.outputs.plc import recipes_of
        >>> recipes_of("1=bolt, 2=nut")
        {1: 'bolt', 2: 'nut'}

    """
    recipes: dict[int, str] = {}
    for part in text.replace(";", ",").split(","):
        if not part.strip():
            continue
        number, equals, product = (piece.strip() for piece in part.partition("="))
        if not equals or not product or not number.isdecimal() or not 1 <= int(number) <= 65535:
            raise ValueError(f"'{part.strip()}' is no recipe; write a number from 1 to 65535, = and a product: 1=bolt")
        if int(number) in recipes:
            raise ValueError(f"recipe {int(number)} is given twice")
        recipes[int(number)] = product
    return recipes


class PlcOutput(Output):
    """An output that a PLC reads, and that a PLC can trigger."""

    def __init__(self, settings: PlcSettings, context: OutputContext) -> None:
        super().__init__(settings, context)
        self._recipes = recipes_of(settings.recipes)
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    async def read_signals(self) -> PlcSignals:
        """Return what the PLC sets."""

    @abstractmethod
    async def write_signals(self, signals: StationSignals, heartbeat: int) -> None:
        """Show the PLC what the station sets."""

    @abstractmethod
    async def write_result(self, payload: Payload | None) -> None:
        """Show the PLC the values of the result of its trigger, before `result_ready`; None clears them."""

    async def run(self) -> None:
        """Run the handshake while the output is open, if there is a source."""
        settings: PlcSettings = self.settings
        handshake = Handshake(settings.inspection_seconds, settings.acknowledge_seconds, settings.release_seconds)
        shown = None
        try:
            while True:
                if settings.source is not None:
                    plc = await self.read_signals()
                    before = handshake.signals
                    ticket = handshake.update(plc)
                    if ticket is not None:
                        task = asyncio.create_task(self._take(handshake, ticket, plc))
                        self._tasks.add(task)
                        task.add_done_callback(self._tasks.discard)
                    if handshake.signals.result_ready and not before.result_ready:
                        # The inspection took too long.
                        await self.write_result(None)
                now_shown = (handshake.signals, int(time.monotonic()) % 65536)
                if now_shown != shown:
                    shown = now_shown
                    await self.write_signals(*shown)
                await asyncio.sleep(settings.poll_milliseconds / 1000)
        finally:
            for task in list(self._tasks):
                task.cancel()

    async def take(self, recipe: int, serial_number: str) -> Payload:
        """Have the source take an image, and return the verdict; raises Problem."""
        if self.settings.source is None:
            raise Problem(409, f"output '{self.context.name}' has no source; choose one in its settings")
        if recipe and recipe not in self._recipes:
            raise Problem(404, f"there is no recipe {recipe}; add it to the settings of output '{self.context.name}'")
        product = self._recipes.get(recipe)
        inspection = await self.context.trigger(self.settings.source, serial_number.strip() or None, product)
        return summary_of(inspection)

    async def _take(self, handshake: Handshake, ticket: int, plc: PlcSignals) -> None:
        payload, code = None, Code.NONE
        try:
            payload = await self.take(plc.recipe, plc.serial_number)
        except Problem as problem:
            log.warning("output '%s': %s", self.context.name, problem.detail)
            code = code_of(problem)
        except Exception:
            log.exception("output '%s': a triggered inspection failed", self.context.name)
            code = Code.FAILED
        if handshake.is_waiting_for(ticket):
            # The values before the signal that they are valid.
            await self.write_result(payload)
            handshake.finish(ticket, None if payload is None else payload["is_anomalous"], code)


def verdict_number(payload: Payload) -> int:
    """Return 1 for OK, 2 for NG, 3 without a threshold.

    Examples:
        >>> from hyperspot.service.outputs.plc import verdict_number
        >>> verdict_number({"is_anomalous": True})
        2

    """
    return {False: 1, True: 2}.get(payload["is_anomalous"], 3)
