"""What an output of verdicts is."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field

from hyperspot.errors import HyperspotError
from hyperspot.service.database import Database
from hyperspot.service.database.tables import Inspection
from hyperspot.service.form_settings import FormSettings

Payload = dict[str, Any]
"""A verdict, as `records.summary.summary_of` returns it. `id` is the same if it is sent again."""
Trigger = Callable[[str, str | None, str | None], Awaitable[Inspection]]
"""`Sources.trigger`: has a source take one image; gets its name, a serial number and a product or None."""


class OutputError(HyperspotError):
    """A receiver cannot be reached now; the verdict is sent again after a while."""


class RefusedError(HyperspotError):
    """A receiver refuses a verdict, and would refuse it again."""


class OutputSettings(FormSettings):
    """Settings of each output."""

    skip_refused: bool = Field(
        False,
        title="Skip refused verdicts",
        description="Set a verdict that the receiver refuses aside and go on; otherwise the later ones wait for it",
    )
    station_address: str | None = Field(
        None,
        pattern="^https?://[^ /]+$",
        title="Address of the station",
        description="As receivers reach it, for example https://line3:8765; links in verdicts begin with it",
    )


@dataclass(frozen=True)
class OutputContext:
    """Where an output runs.

    Attributes:
        name: Of the output.
        product_id: Of the verdicts; None: of all products.
        database: Of the station.
        trigger: Has a source take one image.
    """

    name: str
    product_id: str | None
    database: Database
    trigger: Trigger


class Output(ABC):
    """Sends verdicts, one after the other.

    An exception from `open`, `send` or `run` closes the output; it is opened again after a while and the same verdict
    is sent again. Add one by `OUTPUTS.register(kind, class)` or by an entry point in the group `hyperspot.outputs`.

    Attributes:
        form: Model of its settings.
    """

    form: ClassVar[type[OutputSettings]]

    def __init__(self, settings: Any, context: OutputContext) -> None:
        self.settings, self.context = settings, context

    async def open(self) -> None:  # noqa: B027 - some have nothing to open
        """Connect, or start a server; raises OutputError."""

    @abstractmethod
    async def send(self, payload: Payload) -> None:
        """Return when the receiver has the verdict.

        Raises:
            OutputError: It cannot be reached.
            RefusedError: It refuses the verdict.
        """

    async def run(self) -> None:
        """Do what is to be done while it is open; raises OutputError when the connection is lost."""
        await asyncio.Event().wait()

    async def close(self) -> None:  # noqa: B027
        """Disconnect; called after `open`, whether or not that worked."""
