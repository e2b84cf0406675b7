"""A worker process: keeps models ready and predicts the images that the pool sends."""

import os
import queue
import signal
import threading
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import NoReturn

from hyperspot.errors import HyperspotError, ImageError, ImageWarning
from hyperspot.model_loading import load_model
from hyperspot.predictor import Predictor
from hyperspot.results.verdict import Verdict
from hyperspot.runtime import ExportedDetector, is_exported
from hyperspot.service.inference.outcome import Outcome, outcome_of
from hyperspot.service.monitoring.image_checks import checks_of
from hyperspot.service.products.models import ModelFile


@dataclass(frozen=True)
class WorkerSettings:
    """How a worker runs; see `StationSettings`."""

    engine: str | None
    threads: int
    models_in_memory: int
    max_pixels: int


@dataclass(frozen=True)
class Batch:
    """Images for one model; without images the model is only loaded."""

    model: ModelFile
    images: Sequence[bytes]


@dataclass(frozen=True)
class Failure:
    """Why an image has no outcome.

    Attributes:
        message: One sentence.
        is_image: Whether the image is the reason, not the model.
    """

    message: str
    is_image: bool


Answer = list[Outcome | Failure]


class Models:
    """The models that are ready, the least recently used first."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._ready: OrderedDict[str, Predictor] = OrderedDict()

    def get(self, model: ModelFile) -> Predictor:
        """Return a model, from the disk if it is not ready; raises HyperspotError if it cannot be loaded."""
        predictor = self._ready.pop(model.sha256, None)
        if predictor is None:
            while len(self._ready) >= self._settings.models_in_memory:
                self._ready.popitem(last=False)
            predictor = self._load(model)
        self._ready[model.sha256] = predictor
        return predictor

    def _load(self, model: ModelFile) -> Predictor:
        if is_exported(model.path):
            engine = None if self._settings.engine == "torch" else self._settings.engine
            return ExportedDetector.load(model.path, engine=engine, threads=self._settings.threads)
        predictor = load_model(model.path)
        import torch

        torch.set_num_threads(self._settings.threads)
        return predictor


def predict(models: Models, batch: Batch) -> Answer:
    """Return the outcome of each image, or why it has none."""
    try:
        predictor = models.get(batch.model)
        if not batch.images:
            return []
        results: list[Verdict | ImageError]
        if len(batch.images) == 1:
            try:
                results = [predictor.predict(batch.images[0])]
            except ImageError as error:
                results = [error]
        else:
            results = list(predictor.predict_many(batch.images, batch_size=len(batch.images), errors="return"))
        return [
            Failure(str(one), is_image=True) if isinstance(one, ImageError) else outcome_of(one, checks_of(one.image))
            for one in results
        ]
    except HyperspotError as error:
        # Without the folder of the station, which operators need not know.
        message = str(error).replace(f"{batch.model.path.parent}/", "")
        return [Failure(message, is_image=False) for _ in batch.images]
    except MemoryError:
        return [Failure("the station is out of memory; use a smaller image", is_image=False) for _ in batch.images]


def main(connection: Connection, settings: WorkerSettings) -> None:
    """Answer batches until the station closes the connection or is gone."""
    # Ctrl-C and a service manager signal all processes; the station decides when a worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    warnings.simplefilter("ignore", ImageWarning)
    models = Models(settings)
    batches: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(connection, batches), daemon=True).start()
    while (batch := batches.get()) is not None:
        try:
            connection.send(predict(models, batch))
        except OSError:
            _die()


def _receive(connection: Connection, batches: "queue.SimpleQueue[Batch | None]") -> None:
    """Receive the next batch while one is predicted."""
    while True:
        try:
            batch = connection.recv()
        except (EOFError, OSError):
            _die()
        batches.put(batch)


def _die() -> NoReturn:
    """End at once: the station is gone, and threads of an engine could keep the process."""
    os._exit(1)
