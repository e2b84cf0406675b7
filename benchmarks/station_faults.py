"""Kills random processes of a station under load: every acknowledged inspection is recorded once, with its image.

    python -m benchmarks.station_faults --kills 100

Several clients send images, each with its own idempotency key, and repeat a request until it is answered. Meanwhile the
server, a worker, or a process of a job is killed with SIGKILL, at random times; a killed server is started again. At
the end the database and the files are compared with what the clients know. Prints one JSON object.
"""

import argparse
import json
import random
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from sqlalchemy import select

from benchmarks.station import PRODUCT, ServedStation, add_arguments, chosen, kill
from benchmarks.station_load import lost
from hyperspot.service.database import Database
from hyperspot.service.database.tables import Inspection, Job
from hyperspot.service.jobs.queue import enqueue
from hyperspot.service.products import training_images
from hyperspot.service.records.image_store import ImageStore

CLIENTS = 4
WAIT_SECONDS = 30.0
"""After a kill, for an image to be answered again: a process is killed at work, not while it starts."""
PAUSE = 0.05
"""Seconds between requests of a client, and before a request is repeated."""


class Load:
    """Clients that send images until `stop`, and remember what was acknowledged."""

    def __init__(self, station: ServedStation, images: list[bytes], pause: float = PAUSE) -> None:
        self._station, self._images, self._pause = station, images, pause
        self.acknowledged: dict[str, bytes] = {}
        self.by_key: dict[str, str] = {}
        self.statuses: Counter[int] = Counter()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CLIENTS)]

    def start(self) -> None:
        """Start to send."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Wait until each client has the answer to its last request."""
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def wait_for_an_answer(self, seconds: float) -> None:
        """Wait until one more image is answered, or for a time."""
        before, end = self.statuses[200], time.monotonic() + seconds
        while self.statuses[200] == before and time.monotonic() < end:
            time.sleep(0.01)

    def _run(self, client_number: int) -> None:
        client = self._station.client(timeout=40)
        number = 0
        while not self._ended.is_set():
            key = f"{client_number}-{number}"
            image = self._images[(number + client_number) % len(self._images)]
            while (answer := client.inspect(image, key)).status != 200:
                with self._lock:
                    self.statuses[answer.status] += 1
                time.sleep(PAUSE)
            with self._lock:
                self.statuses[200] += 1
                self.acknowledged[answer.body["id"]] = image
                self.by_key[key] = answer.body["id"]
            number += 1
            time.sleep(self._pause)
        client.close()


def faults(station: ServedStation, images: list[bytes], kills: int, rng: random.Random) -> dict[str, Any]:
    """Kill processes under load; return what happened and what was lost."""
    database = Database(station.settings.database_address)
    store = ImageStore(station.settings.data)
    with database.session() as session:
        for image in images:
            training_images.add(session, store, PRODUCT, image, "benchmark")
    load = Load(station, images)
    load.start()
    killed = Counter[str]()
    try:
        while sum(killed.values()) < kills:
            load.wait_for_an_answer(WAIT_SECONDS)
            time.sleep(rng.uniform(0.0, 1.0))
            with database.session() as session:
                if not session.scalars(select(Job.id).where(Job.state.in_(("queued", "running")))).first():
                    enqueue(session, "train", PRODUCT, {}, "benchmark")
            assert station.process is not None
            victim = rng.choice(station.processes())
            is_server = victim == station.process.pid
            if not kill(victim):
                continue
            killed["server" if is_server else "other process"] += 1
            if is_server:
                station.process.wait()
                station.start()
    finally:
        load.stop()
    with database.session() as session:
        rows = session.execute(select(Inspection.id, Inspection.idempotency_key)).all()
        jobs = Counter(session.scalars(select(Job.state)))
    database.close()
    twice = [key for key, count in Counter(row[1] for row in rows).items() if count > 1]
    pairs = {(row[1], row[0]) for row in rows}
    wrong = [pair for pair in load.by_key.items() if pair not in pairs]
    return {
        "killed": dict(killed),
        "answers": {str(status): count for status, count in sorted(load.statuses.items())},
        "acknowledged": len(load.acknowledged),
        "recorded": len(rows),
        "lost": len(lost(station, load.acknowledged)),
        "twice": len(twice),
        "wrong_key": len(wrong),
        "jobs": dict(jobs),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--database", help="address; default: SQLite")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, images = chosen(given, Path(folder))
        station = ServedStation(Path(folder, "station"), model, ["--threads", "1"], given.database)
        station.start()
        try:
            result = faults(station, images, given.kills, random.Random(given.seed))
        finally:
            station.stop()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
