"""The demo: a rendered product is trained and inspected, so that a visitor sees a living station."""

import asyncio
import itertools
import logging
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from hyperspot.errors import DataError, HyperspotError
from hyperspot.service.database.tables import Inspection, Product
from hyperspot.service.inspecting import InspectionRequest
from hyperspot.service.jobs import queue
from hyperspot.service.problems import Problem
from hyperspot.service.products import catalog, training_images
from hyperspot.service.review.labels import add_label
from hyperspot.service.station import Station
from hyperspot.utils.optional_packages import require

PRODUCT, NAME, WHO = "flange", "Flange (demo)", "demo"
GOOD, DEFECTIVE = 40, 12
"""Images that are inspected in turn."""
SECONDS = 2.0
"""Between two of them."""
LABEL_EVERY = 3
SEED = 0
log = logging.getLogger(__name__)


def check() -> None:
    """Raise MissingPackageError if the demo cannot train."""
    for module in ("torch", "scipy", "sklearn", "safetensors"):
        require(module, "train", "the demo, which trains a model,")


async def run(station: Station, seconds: float = SECONDS) -> None:
    """Fill a station until it stops; what an earlier start has made is kept.

    Args:
        station: That runs.
        seconds: Between two images.
    """
    folder = station.settings.data / "demo"
    try:
        await asyncio.to_thread(_render, folder)
        await asyncio.to_thread(_train, station, folder)
        while not await asyncio.to_thread(_is_trained, station):
            await asyncio.sleep(0.5)
    except (HyperspotError, Problem, OSError, SQLAlchemyError) as error:
        log.error("the demo ends: %s", error)
        return
    log.info("the demo inspects an image every %g s", seconds)
    for number, (path, is_good) in enumerate(images(folder), 1):
        try:
            await _inspect(station, number, path, is_good)
        except (HyperspotError, Problem, OSError, SQLAlchemyError) as error:
            log.warning("the demo could not inspect an image: %s", error)
        await asyncio.sleep(seconds)


def images(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Yield the test images again and again in a fixed random order, and whether they are good."""
    paths = [(path, path.parent.name == "good") for path in sorted((folder / "test").glob("*/*.png"))]
    random.Random(SEED).shuffle(paths)  # noqa: S311 - no secret
    return itertools.cycle(paths)


def _render(folder: Path) -> None:
    from hyperspot.data.demo_product.product_set import make_product_set

    if not folder.exists():
        partial = folder.with_name("demo.partial")
        shutil.rmtree(partial, ignore_errors=True)
        make_product_set(partial, seed=SEED, good=GOOD, defective=DEFECTIVE).rename(folder)


def _train(station: Station, folder: Path) -> None:
    """Create the product, and queue its training."""
    with station.database.session() as session:
        if session.get(Product, PRODUCT) is not None:
            return
        catalog.create_product(session, PRODUCT, NAME, WHO)
        for path in sorted((folder / "train" / "good").glob("*.png")):
            training_images.add(session, station.images, PRODUCT, path.read_bytes(), WHO)
        queue.enqueue(session, "train", PRODUCT, {"activate": True, "note": "made by the demo"}, WHO)


def _is_trained(station: Station) -> bool:
    """Whether the product has an active version; raises DataError if its training ended without."""
    with station.database.session() as session:
        if catalog.get_product(session, PRODUCT).active_version_id is not None:
            return True
        jobs = queue.list_jobs(session, PRODUCT)
    if not any(job.state in queue.OPEN for job in jobs):
        why = jobs[0].error or jobs[0].state if jobs else "it was never queued"
        raise DataError(f"the training of the demo product did not succeed ({why}); start with an empty --data")
    return False


async def _inspect(station: Station, number: int, path: Path, is_good: bool) -> None:
    request = InspectionRequest(
        PRODUCT,
        await asyncio.to_thread(path.read_bytes),
        source="demo",
        serial_number=f"F{number:06}",
        lot=f"L{1 + (number - 1) // 50:03}",
        station="press 1" if number % 2 else "press 2",
    )
    inspection = await station.inspector.inspect(request)
    if number % LABEL_EVERY == 0:
        await asyncio.to_thread(_label, station, inspection.number, is_good)


def _label(station: Station, number: int, is_good: bool) -> None:
    with station.database.session() as session:
        inspection = session.get(Inspection, number)
        if inspection is not None:
            add_label(session, inspection, WHO, "good" if is_good else "defect")
