"""A station: its parts, and how they start and stop."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from sqlalchemy.orm import Session

from hyperspot.service.database import Database
from hyperspot.service.database.tables import ModelVersion
from hyperspot.service.events import Events
from hyperspot.service.finishing import in_thread
from hyperspot.service.inference.pool import InferencePool
from hyperspot.service.inspecting import Inspector
from hyperspot.service.jobs.runner import JobRunner
from hyperspot.service.measurements import Measurements
from hyperspot.service.monitoring.monitor import Monitor
from hyperspot.service.outputs import Outputs
from hyperspot.service.products.models import ModelStore
from hyperspot.service.records.image_store import ImageStore
from hyperspot.service.records.recorder import Recorder
from hyperspot.service.records.retention import Limits, Retention
from hyperspot.service.settings import StationSettings
from hyperspot.service.sources import Sources


class Part(Protocol):
    """What runs while the station runs."""

    async def start(self) -> None:
        """Start; raises HyperspotError if that is impossible."""

    async def stop(self) -> None:
        """Finish what is running, then stop."""


class Station:
    """All parts of an inspection station.

    Attributes:
        settings: Of the station.
        database: Products, inspections, users.
        events: Tell pages and outputs what happens.
        images: Files of images and anomaly maps.
        measurements: Counts and latencies, for `/metrics`.
        models: Files of models.
        pool: Worker processes that predict.
        recorder: Writes inspections.
        inspector: Inspects an image: check, prediction, record, event.
        retention: Removes old images.
        jobs: Runs what takes long, in processes of its own.
        monitor: Raises alarms about the process.
        sources: Cameras and folders that images come from.
        outputs: Where verdicts go.
        parts: Started in this order and stopped in reverse.
    """

    def __init__(self, settings: StationSettings) -> None:
        self.settings = settings
        self.database = Database(settings.database_address)
        self.events = Events()
        self.images = ImageStore(settings.data)
        self.models = ModelStore(settings.data / "models")
        self.measurements = Measurements()
        self.pool = InferencePool(settings, self.measurements.queue.observe)
        self.recorder = Recorder(self.database, settings.deadline)
        self.inspector = Inspector(
            settings,
            self.database,
            self.images,
            self.models,
            self.pool,
            self.recorder,
            self.events,
            self.measurements,
        )
        self.retention = Retention(self.database, self.images, Limits(settings.keep_days, settings.keep_gigabytes))
        self.jobs = JobRunner(settings, self.database, self.events)
        self.monitor = Monitor(self.database, self.events)
        self.sources = Sources(self.database, self.events, self.inspector.inspect)
        self.outputs = Outputs(self.database, self.events, self.sources.trigger)
        # Sources last: what they send needs all else.
        self.parts: list[Part] = [
            self.recorder,
            self.pool,
            self.inspector,
            self.retention,
            self.jobs,
            self.monitor,
            self.outputs,
            self.sources,
        ]
        self._started: list[Part] = []

    async def start(self) -> None:
        """Create the folder, migrate the database, and start all parts."""
        self.settings.data.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(self.database.migrate)
        try:
            for part in self.parts:
                await part.start()
                self._started.append(part)
        except BaseException:
            await self.stop()
            raise

    async def switch(self, change: Callable[[Session], ModelVersion]) -> ModelVersion:
        """Change which version of a product inspects, by `catalog.activate` or `catalog.roll_back`, and return it."""

        def write() -> ModelVersion:
            with self.database.session() as session:
                return change(session)

        version = await in_thread(write)
        self.events.publish("version", {"product": version.product_id, "number": version.number})
        return version

    async def stop(self) -> None:
        """Stop all parts, the last started first."""
        while self._started:
            await self._started.pop().stop()
        self.database.close()
