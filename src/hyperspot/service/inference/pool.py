"""Worker processes behind one bounded queue.

A thread for each worker takes what waits for one model, up to a batch, and sends it: under load batches form by
themselves, and without load no image waits for others. A worker that dies is replaced, and its images are tried once
more.
"""

import asyncio
import logging
import math
import multiprocessing
import multiprocessing.connection
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field

from hyperspot.hardware.cpu import cores
from hyperspot.service.finishing import resolve
from hyperspot.service.inference.outcome import Outcome
from hyperspot.service.inference.worker import Answer, Batch, Failure, WorkerSettings, main
from hyperspot.service.problems import Problem
from hyperspot.service.products.models import ModelFile
from hyperspot.service.settings import StationSettings

ATTEMPTS = 2
"""Times that an image is tried when workers die."""
GRACE = 5.0
"""Seconds beyond the time of a request that a worker may work on a batch, loading a model included."""
STOP_SECONDS = 5.0
IN_FLIGHT = 2
"""Batches that a worker holds at most: one that it predicts, and one that it has received meanwhile."""
SMOOTHING = 0.1
"""Weight of the newest batch in the mean time per image."""
log = logging.getLogger(__name__)


@dataclass
class _Request:
    model: ModelFile
    image: bytes
    future: "Future[Outcome]" = field(default_factory=Future)
    arrived: float = field(default_factory=time.monotonic)
    attempts: int = 0


@dataclass
class _Work:
    """Requests for one model; without requests the model is only loaded."""

    model: ModelFile
    requests: list[_Request]
    started: float = field(default_factory=time.monotonic)


class InferencePool:
    """Predicts in worker processes.

    Args:
        settings: Of the station.
        waited: Gets the seconds that each image waited in the queue, from any thread.

    Attributes:
        deadline: Seconds of a request.
        seconds_per_image: Smoothed; None before the first image.
    """

    def __init__(self, settings: StationSettings, waited: Callable[[float], None] = lambda _: None) -> None:
        self._settings, self.waited = settings, waited
        self.worker_settings = WorkerSettings(
            settings.engine,
            settings.threads or max(1, cores() // settings.workers),
            settings.models_in_memory,
            settings.max_pixels,
        )
        self.deadline = settings.deadline
        self.seconds_per_image: float | None = None
        self._waiting: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._workers = [_Worker(self, number) for number in range(settings.workers)]
        self._is_open = False
        self._idle = 0

    async def start(self) -> None:
        """Start the workers."""
        self._is_open = True
        for worker in self._workers:
            worker.start()

    async def stop(self) -> None:
        """Answer what waits, then end the workers."""
        with self._changed:
            self._is_open = False
            self._changed.notify_all()
        await asyncio.gather(*(asyncio.to_thread(worker.join) for worker in self._workers))
        for request in self._waiting:
            resolve(request.future, Problem(503, "the station is stopping; send the image again"))
        self._waiting.clear()

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._waiting)

    @property
    def processes(self) -> list[int]:
        """Process ids of the workers that live."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    def is_full(self) -> bool:
        """Whether the next request would be refused."""
        return len(self._waiting) >= self._settings.queue

    def refuse(self) -> Problem:
        """Return the answer to a request that finds the queue full."""
        seconds = len(self._waiting) * (self.seconds_per_image or 0.1) / len(self._workers)
        return Problem(
            429,
            f"{len(self._waiting)} images wait; send this one again later",
            headers={"Retry-After": str(max(1, math.ceil(seconds)))},
        )

    def warm(self, models: Iterable[ModelFile]) -> None:
        """Let all workers load models before the first image needs them."""
        for model in models:
            for worker in self._workers:
                worker.load(model)

    async def predict(self, model: ModelFile, image: bytes) -> Outcome:
        """Return the outcome for an encoded image.

        Raises:
            Problem: 422 if the image cannot be read, 429 if the queue is full, 503 if the model cannot be used or
                workers died, 504 after the deadline.
        """
        request = _Request(model, image)
        with self._changed:
            if not self._is_open:
                raise Problem(503, "the station is stopping; send the image again")
            if self.is_full():
                raise self.refuse()
            self._waiting.append(request)
            self._changed.notify()
        try:
            async with asyncio.timeout(self.deadline):
                return await asyncio.wrap_future(request.future)
        except TimeoutError:
            raise late(self.deadline) from None

    def take(self, worker: "_Worker") -> "_Work | None":
        """Return the next work of a worker that is idle, once there is some; None when the pool stops."""
        with self._changed:
            self._idle += 1
            try:
                while True:
                    if worker.to_load:
                        return _Work(worker.to_load.popleft(), [])
                    if (batch := self._next_batch()) is not None:
                        return batch
                    if not self._is_open:
                        return None
                    self._changed.wait()
            finally:
                self._idle -= 1

    def take_ahead(self) -> "_Work | None":
        """Return work for a worker that is busy, if no other is idle, so that it need not wait between batches."""
        with self._changed:
            return None if self._idle else self._next_batch()

    def _next_batch(self) -> "_Work | None":
        """Take the oldest request and others of the same model; requests that were given up are dropped.

        A request whose worker died goes alone: if its image is the reason, no other dies with it.
        """
        batch: list[_Request] = []
        others: list[_Request] = []
        while self._waiting and len(batch) < self._settings.max_batch:
            request = self._waiting.popleft()
            if request.future.done():
                continue
            if not batch or (request.model == batch[0].model and not request.attempts):
                batch.append(request)
                if request.attempts:
                    break
            else:
                others.append(request)
        self._waiting.extendleft(reversed(others))
        return _Work(batch[0].model, batch) if batch else None

    def put_back(self, batches: list[list[_Request]]) -> None:
        """Take the images of a dead worker first, once more; the first batch is the one that it predicted."""
        with self._changed:
            for number, batch in reversed(list(enumerate(batches))):
                for request in reversed(batch):
                    request.attempts += number == 0
                    if request.attempts < ATTEMPTS:
                        self._waiting.appendleft(request)
                    else:
                        resolve(
                            request.future,
                            Problem(503, "the workers that predicted this image died; check the station's log"),
                        )
            self._changed.notify_all()

    def wake(self) -> None:
        """Let workers look for work."""
        with self._changed:
            self._changed.notify_all()

    def count(self, seconds: float, images: int) -> None:
        """Note how long a batch took."""
        mean = seconds / images
        before = self.seconds_per_image
        self.seconds_per_image = mean if before is None else before + SMOOTHING * (mean - before)


class _Worker:
    """One process, and the thread that feeds it."""

    def __init__(self, pool: InferencePool, number: int) -> None:
        self._pool, self._number = pool, number
        self.to_load: deque[ModelFile] = deque()
        self._loaded: list[ModelFile] = []
        self._process: multiprocessing.process.BaseProcess | None = None
        self._thread = threading.Thread(target=self._run, name=f"worker-{number}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def join(self) -> None:
        if self._thread.ident is not None:
            self._thread.join()

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None and process.is_alive() else None

    def load(self, model: ModelFile) -> None:
        self._loaded = [one for one in self._loaded if one != model] + [model]
        self.to_load.append(model)
        self._pool.wake()

    def _run(self) -> None:
        process, connection = self._open()
        sent: deque[_Work] = deque()
        while True:
            try:
                if not sent:
                    work = self._pool.take(self)
                    if work is None:
                        break
                    self._send(connection, work, sent)
                if len(sent) < IN_FLIGHT and (ahead := self._pool.take_ahead()) is not None:
                    self._send(connection, ahead, sent)
                answer = self._receive(process, connection, sent[0])
            except (EOFError, OSError) as error:
                log.error("worker %s died (%s); it is replaced", process.pid, error)
                process.kill()
                process.join()
                connection.close()
                self.to_load.extend(self._loaded[-self._pool.worker_settings.models_in_memory :])
                self._pool.put_back([work.requests for work in sent])
                sent.clear()
                process, connection = self._open()
                continue
            work = sent.popleft()
            if work.requests:
                self._pool.count(time.monotonic() - work.started, len(work.requests))
            for request, one in zip(work.requests, answer, strict=True):
                resolve(request.future, _problem_of(one) if isinstance(one, Failure) else one)
            if sent:
                # It begins now.
                sent[0].started = time.monotonic()
        self._end(process, connection)

    def _end(
        self, process: multiprocessing.process.BaseProcess, connection: multiprocessing.connection.Connection
    ) -> None:
        try:
            connection.send(None)
        except OSError:
            log.info("worker %s was gone at the end", process.pid)
        process.join(STOP_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
        connection.close()

    def _send(self, connection: multiprocessing.connection.Connection, work: "_Work", sent: "deque[_Work]") -> None:
        sent.append(work)
        for request in work.requests:
            self._pool.waited(time.monotonic() - request.arrived)
        connection.send(Batch(work.model, [request.image for request in work.requests]))

    def _open(self) -> tuple[multiprocessing.process.BaseProcess, multiprocessing.connection.Connection]:
        # Spawned: a fork would copy the threads' locks of the station.
        context = multiprocessing.get_context("spawn")
        connection, theirs = context.Pipe()
        process = context.Process(
            target=main, args=(theirs, self._pool.worker_settings), name=f"hyperspot-worker-{self._number}", daemon=True
        )
        process.start()
        theirs.close()
        self._process = process
        return process, connection

    def _receive(
        self,
        process: multiprocessing.process.BaseProcess,
        connection: multiprocessing.connection.Connection,
        work: "_Work",
    ) -> Answer:
        """Return the answer of the process; raises EOFError or OSError if it died or hangs."""
        while not connection.poll(1.0):
            if not process.is_alive():
                raise EOFError(f"exit code {process.exitcode}")
            # From its start: behind a queue and another batch, a slow worker is late without hanging.
            if work.requests and time.monotonic() > work.started + self._pool.deadline + GRACE:
                raise EOFError("no answer long after the deadline")
        answer: Answer = connection.recv()
        return answer


def late(seconds: float) -> Problem:
    """Return the answer to a request whose deadline passed."""
    return Problem(504, f"no verdict within {seconds:g} s; send the image again, or let the station have more workers")


def _problem_of(failure: Failure) -> Problem:
    return Problem(422 if failure.is_image else 503, failure.message)
