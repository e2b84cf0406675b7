"""A small trained model, shared by all tests of the station, and stations around it."""

import asyncio
import io
import uuid
from contextlib import asynccontextmanager

import numpy as np
import pytest
from argon2 import PasswordHasher
from PIL import Image

from hyperspot import Detector
from hyperspot.export import export
from hyperspot.service.access import hashing
from hyperspot.service.database import Database
from hyperspot.service.products import catalog
from hyperspot.service.settings import StationSettings
from hyperspot.service.station import Station
from tests.service.postgresql_server import binaries, remove_server, start_server

SIDE = 64


def encoded(pixels, file_format="PNG"):
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format=file_format)
    return content.getvalue()


@pytest.fixture(scope="session")
def good_pixels():
    return list(np.random.default_rng(0).integers(100, 140, (24, SIDE, SIDE, 3), dtype=np.uint8))


@pytest.fixture(scope="session")
def good_image(good_pixels):
    return encoded(good_pixels[0])


@pytest.fixture(scope="session")
def bad_image(good_pixels):
    pixels = good_pixels[0].copy()
    pixels[24:40, 24:40] = 255
    return encoded(pixels)


@pytest.fixture(scope="session")
def trained_file(good_pixels, tmp_path_factory):
    detector = Detector.fit(good_pixels, short_side=SIDE, false_alarm_rate=0.1)
    return detector.save(tmp_path_factory.mktemp("model") / "part.safetensors")


@pytest.fixture(scope="session")
def model_file(trained_file):
    """An exported file: a worker is ready in a third of a second instead of three."""
    return export(Detector.load(trained_file), trained_file.with_suffix(".onnx"))


def add_active_version(station, model_file, product_id="bolt"):
    """Create a product with an active version."""
    with station.database.session() as session:
        if product_id not in {product.id for product in catalog.list_products(session)}:
            catalog.create_product(session, product_id, product_id.title(), "tests")
        version = station.models.add(session, product_id, model_file, "uploaded", "tests")
        catalog.activate(session, product_id, version.number, "tests")
    return version


@pytest.fixture(autouse=True)
def quick_password_hashes(monkeypatch):
    """Hash passwords in a millisecond."""
    monkeypatch.setattr(hashing, "HASHER", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))


@pytest.fixture
def settings(tmp_path):
    return StationSettings(data=tmp_path / "station", port=0, threads=1)


@asynccontextmanager
async def running(settings, model_file=None):
    """Run a station, with the product `bolt` if there is a model."""
    station = Station(settings)
    if model_file is not None:
        settings.data.mkdir(exist_ok=True)
        await asyncio.to_thread(station.database.migrate)
        await asyncio.to_thread(add_active_version, station, model_file)
    await station.start()
    try:
        yield station
    finally:
        await station.stop()


@pytest.fixture(scope="session")
def postgresql_server():
    """A real PostgreSQL server on loopback, or a skip; it has `stop()` and `start()`."""
    if binaries() is None:
        pytest.skip("no PostgreSQL server here: install Debian's package postgresql")
    server = start_server()
    yield server
    remove_server(server)


@pytest.fixture
def postgresql(postgresql_server):
    """The SQLAlchemy address of an empty PostgreSQL database."""
    return postgresql_server.new_database(f"station_{uuid.uuid4().hex}")


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path):
    """A migrated database, once of each kind."""
    address = f"sqlite:///{tmp_path / 'station.sqlite'}"
    opened = Database(address if request.param == "sqlite" else request.getfixturevalue("postgresql"))
    opened.migrate()
    yield opened
    opened.close()
