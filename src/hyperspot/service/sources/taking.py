"""Sources that take images: on request, at an interval, or each frame."""

import time
import uuid
from abc import ABC, abstractmethod
from typing import Literal

from pydantic import Field

from hyperspot.service.database.tables import Inspection
from hyperspot.service.explaining import explain
from hyperspot.service.form_settings import FormSettings
from hyperspot.service.problems import Problem
from hyperspot.service.sources.base import Capture, Inspect, Source, SourceContext, SourceError
from hyperspot.service.sources.patience import inspect_patiently
from hyperspot.service.sources.triggers import Trigger, Triggers, inspect_triggered, refuse

BUSY = frozenset({429, 504})
"""Statuses of a station with too much to do; a live camera goes on with its next image."""


class TakingSettings(FormSettings):
    """When images are taken."""

    take: Literal["trigger", "interval", "frames"] = Field(
        "trigger", title="Take images", description="On request only, at an interval, or from the stream of frames"
    )
    interval: float = Field(1.0, gt=0, le=86400, title="Interval", description="Seconds between two images")
    every: int = Field(1, ge=1, title="Every", description="Of the stream: 1 takes each frame, 10 each tenth")


class Frames(ABC):
    """Where frames come from."""

    is_live: bool = True
    """Whether frames that are not taken are lost."""

    @abstractmethod
    async def next(self, step: int) -> bytes | None:
        """Return the `step`th frame from now, encoded; None if there are no more.

        Raises:
            SourceError: The camera is gone.
        """

    @abstractmethod
    async def close(self) -> None:
        """Close the camera or file."""


class CameraSource(Source):
    """Inspects frames; `trigger` inspects one more at any time."""

    can_trigger = True

    def __init__(self, settings: TakingSettings, context: SourceContext) -> None:
        super().__init__(settings, context)
        self._triggers = Triggers()
        self._due = time.monotonic()

    @abstractmethod
    async def open(self) -> Frames:
        """Open the camera; raises SourceError."""

    async def trigger(self, serial_number: str | None = None, product_id: str | None = None) -> Inspection:
        """Inspect the next frame; raises Problem."""
        return await self._triggers.ask(serial_number, product_id)

    async def run(self, inspect: Inspect) -> None:
        """Inspect frames; returns at the end of a file, raises SourceError if the camera is gone."""
        reason = f"source '{self.context.name}' was stopped; try again when it runs"
        frames = None
        try:
            frames = await self.open()
            self.context.ready()
            while await self._take(frames, inspect):
                pass
            reason = f"source '{self.context.name}' has no more images"
        except SourceError as error:
            reason = str(error)
            raise
        finally:
            # Those who wait hear of it at once; closing a camera that is gone may take seconds.
            self._triggers.close(reason)
            if frames is not None:
                await frames.close()

    async def _next(self) -> Trigger | None:
        """Wait until an image has to be taken; None: by the settings."""
        if self.settings.take == "trigger":
            return await self._triggers.next()
        if self.settings.take == "frames":
            return await self._triggers.next(0)
        trigger = await self._triggers.next(max(self._due - time.monotonic(), 0))
        if trigger is None:
            self._due = max(self._due + self.settings.interval, time.monotonic())
        return trigger

    async def _take(self, frames: Frames, inspect: Inspect) -> bool:
        """Take and inspect one image; returns whether there may be more."""
        trigger = await self._next()
        try:
            image = await frames.next(self.settings.every if self.settings.take == "frames" else 1)
            if image is None:
                if trigger is not None:
                    refuse(trigger, Problem(503, f"source '{self.context.name}' has no more images"))
                return False
            if trigger is not None:
                await inspect_triggered(inspect, trigger, image)
            else:
                await self._inspect(frames, inspect, Capture(image, idempotency_key=uuid.uuid4().hex))
        except BaseException as error:
            if trigger is not None:
                reason = explain(error) if isinstance(error, Exception) else "it was stopped"
                refuse(trigger, Problem(503, f"source '{self.context.name}' took no image: {reason}"))
            raise
        return True

    async def _inspect(self, frames: Frames, inspect: Inspect, capture: Capture) -> None:
        if not frames.is_live:
            await inspect_patiently(inspect, capture)
            return
        try:
            await inspect(capture)
        except Problem as problem:
            if problem.status not in BUSY:
                raise
            self.context.status.failed += 1
            self.context.status.note_error(problem.detail)
