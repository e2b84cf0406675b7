"""A small plant for the tests of sources and outputs: a database with a product, and an inspector without a model."""

import asyncio
import io
import time
import uuid
from contextlib import asynccontextmanager

import numpy as np
from PIL import Image

from hyperspot.service.database import Database
from hyperspot.service.database.tables import Delivery, Inspection, ModelVersion, Output, Product, Source
from hyperspot.service.events import Events
from hyperspot.service.problems import Problem
from hyperspot.service.records.image_store import key_of
from hyperspot.service.records.recorder import DuplicateError, NewInspection, Recorder, find_by_key
from hyperspot.service.records.summary import summary_of


def png(value=0, side=8):
    """Return a gray image whose bytes differ by value."""
    content = io.BytesIO()
    Image.fromarray(np.full((side, side), value, np.uint8)).save(content, "PNG")
    return content.getvalue()


class FakeInspector:
    """Records inspections with the recorder of the station; bright images are anomalous."""

    def __init__(self, database, events):
        self.database, self.events = database, events
        self.recorder = Recorder(database, 0.5)
        self.requests = []
        self.problems = []
        """Raised first, one for each request."""

    async def inspect(self, request):
        self.requests.append(request)
        if self.problems:
            raise self.problems.pop(0)
        key = key_of(request.image)
        if key is None:
            raise Problem(415, "the content is no image")
        try:
            with Image.open(io.BytesIO(request.image)) as image:
                brightness = float(np.asarray(image).mean())
                width, height = image.size
        except Exception:  # noqa: BLE001 - decoders of damaged files raise anything
            raise Problem(422, "the image is damaged") from None
        if request.idempotency_key is not None:
            with self.database.session() as session:
                earlier = find_by_key(session, request.product_id, request.idempotency_key)
            if earlier is not None:
                return earlier
        image = {"sha256": key.sha256, "suffix": ".png", "size": len(request.image), "width": width, "height": height}
        values = {
            "id": uuid.uuid4().hex,
            "product_id": request.product_id,
            "version_id": 1,
            "version_number": 1,
            "image_sha256": key.sha256,
            "idempotency_key": request.idempotency_key,
            "serial_number": request.serial_number,
            "lot": request.lot,
            "station": request.station,
            "source": request.source,
            "received_at": request.received_at,
            "score": brightness / 255,
            "p_value": 0.25,
            "threshold": 0.5,
            "is_anomalous": brightness > 127,
            "milliseconds": 1.5,
            "width": width,
            "height": height,
            "result_size": 0,
            "verdict": {"reasons": [], "part_found": None, "zones": {}, "regions": []},
            "rendering": {},
            "checks": {},
        }
        try:
            inspection = await self.recorder.record(NewInspection(image, values))
        except DuplicateError as duplicate:
            return duplicate.inspection
        self.events.publish("inspection", summary_of(inspection))
        return inspection


class Plant:
    """The parts, and rows of the tables."""

    def __init__(self, folder, address=None):
        self.database = Database(address or f"sqlite:///{folder / 'station.sqlite'}")
        self.events = Events()
        self.inspector = FakeInspector(self.database, self.events)

    def migrate(self):
        self.database.migrate()
        with self.database.session() as session:
            if session.get(Product, "bolt") is None:
                session.add_all([Product(id="bolt", name="Bolt"), Product(id="nut", name="Nut")])
                session.flush()
                version = {
                    "sha256": "0" * 64,
                    "suffix": ".onnx",
                    "size": 1,
                    "origin": "uploaded",
                    "created_by": "tests",
                }
                session.add(ModelVersion(product_id="bolt", number=1, **version))

    def add(self, row):
        with self.database.session() as session:
            session.add(row)
            session.flush()
            return row.id

    def add_source(self, kind, settings, name="camera"):
        return self.add(Source(name=name, kind=kind, product_id="bolt", settings=settings))

    def add_output(self, kind, settings, name="mes", product_id=None):
        return self.add(Output(name=name, kind=kind, product_id=product_id, settings=settings))

    def rows(self, table):
        with self.database.session() as session:
            return session.query(table).order_by(next(iter(table.__table__.primary_key))).all()

    @property
    def inspections(self):
        return self.rows(Inspection)

    @property
    def deliveries(self):
        return self.rows(Delivery)


@asynccontextmanager
async def plant_in(folder, address=None):
    """Run a plant; its database stays in the folder, or at the address."""
    plant = Plant(folder, address)
    plant.migrate()
    await plant.inspector.recorder.start()
    try:
        yield plant
    finally:
        await plant.inspector.recorder.stop()
        plant.database.close()


@asynccontextmanager
async def started(*parts):
    """Start parts of the station, and stop them."""
    begun = []
    try:
        for part in parts:
            await part.start()
            begun.append(part)
        yield
    finally:
        for part in reversed(begun):
            await part.stop()


async def until(condition, seconds=10.0):
    """Wait for a condition."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.02)
