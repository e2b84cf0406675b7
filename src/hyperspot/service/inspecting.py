"""The path of an image through the station, whoever sends it: check, predict, record, publish."""

import asyncio
import contextlib
import logging
import random
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from hyperspot.service.database import Database
from hyperspot.service.database.tables import Inspection, ModelVersion, Product, now
from hyperspot.service.events import Events
from hyperspot.service.inference.outcome import Outcome
from hyperspot.service.inference.pool import InferencePool
from hyperspot.service.measurements import Measurements
from hyperspot.service.problems import DATABASE_AWAY, Problem, database_problem
from hyperspot.service.products.catalog import Recipe, recipe_of
from hyperspot.service.products.models import ModelFile, ModelStore
from hyperspot.service.records.image_store import ImageKey, ImageStore, result_content
from hyperspot.service.records.receiving import RefusedImageError, received
from hyperspot.service.records.recorder import DuplicateError, NewInspection, Recorder, find_by_key
from hyperspot.service.records.summary import summary_of
from hyperspot.service.settings import StationSettings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class InspectionRequest:
    """An image to inspect.

    Attributes:
        product_id: Whose active model inspects.
        image: As it was encoded by the sender.
        source: `rest`, or the name of a source.
        serial_number: Of the part.
        lot: Of the part.
        station: Where the image was taken.
        idempotency_key: A repeated request with the same key and image is answered with the first inspection.
        received_at: In UTC.
    """

    product_id: str
    image: bytes
    source: str = "rest"
    serial_number: str | None = None
    lot: str | None = None
    station: str | None = None
    idempotency_key: str | None = None
    received_at: datetime = field(default_factory=now)


class Inspector:
    """Inspects images with the active models."""

    def __init__(
        self,
        settings: StationSettings,
        database: Database,
        images: ImageStore,
        models: ModelStore,
        pool: InferencePool,
        recorder: Recorder,
        events: Events,
        measurements: Measurements,
    ) -> None:
        self._settings, self._database, self._images, self._models = settings, database, images, models
        self._pool, self._recorder, self._events, self._measurements = pool, recorder, events, measurements
        self._running: dict[tuple[str, str], asyncio.Event] = {}
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Load the active models before the first image needs them, now and after each activation."""
        await self._warm()
        self._following = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Load no more models."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)

    async def _follow(self) -> None:
        async with self._events.follow() as events:
            async for event in events:
                # A job may have activated the version that it made.
                if event.kind == "version" or (event.kind == "job" and event.data["state"] == "done"):
                    try:
                        await self._warm()
                    except SQLAlchemyError as error:
                        log.warning("active models are loaded when an image needs them: %s", error)

    async def _warm(self) -> None:
        self._pool.warm(await asyncio.to_thread(self._active_models))

    def _active_models(self) -> list[ModelFile]:
        query = (
            select(ModelVersion)
            .join(Product, Product.active_version_id == ModelVersion.id)
            .where(Product.is_archived.is_(False))
            .order_by(Product.id)
            .limit(self._settings.models_in_memory)
        )
        with self._database.session() as session:
            return [self._models.file(version) for version in session.scalars(query)]

    async def inspect(self, request: InspectionRequest) -> Inspection:
        """Return the inspection once it is durable.

        Raises:
            Problem: 404 without the product, 409 without an active model or if the idempotency key belongs to another
                image, 413, 415 or 422 for an image that cannot be inspected, 429 if the queue is full, 503 and 504.
        """
        key = self.check(request.image)
        if request.idempotency_key is None:
            return await self._inspect(request, key)
        async with self._alone(request.product_id, request.idempotency_key):
            return await self._inspect(request, key)

    def check(self, image: bytes) -> ImageKey:
        """Return the key of an image that can be inspected, by its first bytes; raises Problem otherwise."""
        if not image:
            raise Problem(400, "the image is empty; send its bytes")
        if len(image) > self._settings.max_upload:
            raise Problem(413, f"the image has more than {self._settings.max_upload:,} bytes; send a smaller file")
        try:
            with received(image, self._settings.max_pixels) as (key, _):
                return key
        except RefusedImageError as error:
            raise Problem(error.status, str(error)) from None

    @contextlib.asynccontextmanager
    async def _alone(self, product_id: str, idempotency_key: str) -> AsyncIterator[None]:
        """Let requests with the same key follow each other."""
        pair = product_id, idempotency_key
        while (running := self._running.get(pair)) is not None:
            await running.wait()
        done = self._running[pair] = asyncio.Event()
        try:
            yield
        finally:
            del self._running[pair]
            done.set()

    async def _inspect(self, request: InspectionRequest, key: ImageKey) -> Inspection:
        started = time.perf_counter()
        recipe, earlier = await asyncio.to_thread(self._prepare, request)
        if earlier is not None:
            return same_image(earlier, key)
        if self._pool.is_full():
            # Before the image is written.
            raise self._pool.refuse()
        with self._images.using(key):
            inspection = await self._predict(request, key, recipe)
        self._events.publish("inspection", summary_of(inspection))
        self._measurements.count(inspection, time.perf_counter() - started)
        return inspection

    async def _predict(self, request: InspectionRequest, key: ImageKey, recipe: Recipe) -> Inspection:
        model = self._models.file_of(recipe.sha256, recipe.suffix)
        stored = asyncio.create_task(asyncio.to_thread(self._images.put, key, request.image))
        try:
            outcome = await self._pool.predict(model, request.image)
        finally:
            # A file without an inspection is removed by retention.
            try:
                await stored
            except OSError as error:
                raise disk_problem(error) from None
        return await self._record(request, key, recipe, outcome)

    def _prepare(self, request: InspectionRequest) -> tuple[Recipe, Inspection | None]:
        try:
            with self._database.session() as session:
                recipe = recipe_of(session, request.product_id)
                if request.idempotency_key is None:
                    return recipe, None
                return recipe, find_by_key(session, request.product_id, request.idempotency_key)
        except DATABASE_AWAY as error:
            raise database_problem(error) from None

    async def _record(self, request: InspectionRequest, key: ImageKey, recipe: Recipe, outcome: Outcome) -> Inspection:
        inspection_id = uuid.uuid4().hex
        result = result_content(outcome)
        new = NewInspection(
            image={
                "sha256": key.sha256,
                "suffix": key.suffix,
                "size": len(request.image),
                "width": outcome.width,
                "height": outcome.height,
            },
            inspection={
                "id": inspection_id,
                "product_id": request.product_id,
                "version_id": recipe.version_id,
                "version_number": recipe.version_number,
                "image_sha256": key.sha256,
                "idempotency_key": request.idempotency_key,
                "serial_number": request.serial_number,
                "lot": request.lot,
                "station": request.station,
                "source": request.source,
                "received_at": request.received_at,
                "result_size": len(result),
                **outcome.columns(),
                "review_reason": review_reason(recipe, outcome),
            },
        )
        # Both wait for the disk, at the same time.
        kept = asyncio.create_task(asyncio.to_thread(self._images.put_result, inspection_id, result))
        try:
            inspection = await self._recorder.record(new)
        except DuplicateError as duplicate:
            inspection = same_image(duplicate.inspection, key)
        finally:
            try:
                await kept
            except OSError as error:
                raise disk_problem(error) from None
        if inspection.id != inspection_id:
            self._images.remove_result(inspection_id)
        return inspection


def review_reason(recipe: Recipe, outcome: Outcome) -> str | None:
    """Return why an inspection goes to review, if it does."""
    if outcome.is_anomalous:
        return "alarm"
    rate = recipe.false_alarm_rate
    if outcome.p_value is not None and rate is not None and outcome.p_value <= recipe.near_miss * rate:
        return "near-miss"
    return "sample" if random.random() < recipe.review_share else None  # noqa: S311 - no secret


def same_image(earlier: Inspection, key: ImageKey) -> Inspection:
    """Return an earlier inspection; raises Problem 409 if it is of another image."""
    if earlier.image_sha256 != key.sha256:
        raise Problem(409, "the idempotency key was used for another image; use a new key for each image")
    return earlier


def disk_problem(error: OSError) -> Problem:
    """Return the answer when a file cannot be written."""
    log.error("a file cannot be written: %s", error)
    return Problem(503, f"the station cannot store the image ({error.strerror or error}); free space on its disk")
