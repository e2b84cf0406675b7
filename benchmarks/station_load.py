"""The station under load: what it adds to the bare predictor, its throughput, and twice its capacity for a minute.

    python -m benchmarks.station_load --seconds 60

Overhead: one image at a time, in turn by the exported detector in this process and by the station over HTTP. Both have
as many threads. Throughput: the same images in batches by the detector, and from many connections by the station, in
turn. Overload: requests at twice the measured throughput; what is accepted has to be recorded, the rest answered with
429. The client runs on the same machine. Prints one JSON object.
"""

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.station import ServedStation, add_arguments, chosen
from hyperspot.hardware.cpu import native_precision
from hyperspot.runtime import ExportedDetector
from hyperspot.service.database import Database
from hyperspot.service.database.tables import Inspection
from hyperspot.service.records.image_store import ImageStore, key_of


def overhead(station: ServedStation, bare: ExportedDetector, images: list[bytes], rounds: int) -> dict[str, float]:
    """Return medians in milliseconds, of interleaved calls."""
    client = station.client()
    times: dict[str, list[float]] = {"bare": [], "station": []}
    for image in images[:5]:
        bare.predict(image)
        client.inspect(image)
    for _ in range(rounds):
        for image in images:
            started = time.perf_counter()
            bare.predict(image)
            middle = time.perf_counter()
            answer = client.inspect(image)
            assert answer.status == 200, answer
            times["bare"].append(middle - started)
            times["station"].append(time.perf_counter() - middle)
    client.close()
    added = [after - before for before, after in zip(times["bare"], times["station"], strict=True)]
    return {
        "bare_ms": round(1e3 * statistics.median(times["bare"]), 2),
        "station_ms": round(1e3 * statistics.median(times["station"]), 2),
        "overhead_ms": round(1e3 * statistics.median(added), 2),
    }


def throughput(station: ServedStation, bare: ExportedDetector, images: list[bytes], rounds: int) -> dict[str, float]:
    """Return medians in images per second, of interleaved rounds; a round is of 1.5 to 5 s."""
    rates: dict[str, list[float]] = {"bare": [], "station": []}
    for _ in range(rounds):
        started = time.perf_counter()
        for _verdict in bare.predict_many(images, batch_size=8):
            pass
        rates["bare"].append(len(images) / (time.perf_counter() - started))
        started = time.perf_counter()
        answered = saturate(station, images)
        rates["station"].append(len(images) / (time.perf_counter() - started))
        assert answered == {200: len(images)}, answered
    result = {f"{name}_per_second": round(statistics.median(values), 1) for name, values in rates.items()}
    ratios = [after / before for before, after in zip(rates["bare"], rates["station"], strict=True)]
    return result | {"throughput_ratio": round(statistics.median(ratios), 3)}


def saturate(station: ServedStation, images: list[bytes], connections: int = 24) -> dict[int, int]:
    """Send all images from several connections at once; return the number of answers by status."""
    waiting, statuses, lock = list(images), Counter[int](), threading.Lock()

    def work() -> None:
        client = station.client()
        while True:
            with lock:
                if not waiting:
                    break
                image = waiting.pop()
            status = client.inspect(image).status
            with lock:
                statuses[status] += 1
        client.close()

    threads = [threading.Thread(target=work) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return dict(statuses)


def overload(station: ServedStation, images: list[bytes], rate: float, seconds: float) -> dict[str, Any]:
    """Send images at a rate, whatever the answers; return the number of answers and the latencies of the accepted."""
    acknowledged: dict[str, bytes] = {}
    statuses, latencies, lock = Counter[int](), list[float](), threading.Lock()
    start = time.perf_counter()
    numbers = iter(range(int(rate * seconds)))

    def work() -> None:
        client = station.client()
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                break
            due = start + number / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            image = images[number % len(images)]
            sent = time.perf_counter()
            answer = client.inspect(image, f"load-{number}")
            with lock:
                statuses[answer.status] += 1
                if answer.status == 200:
                    latencies.append(time.perf_counter() - sent)
                    acknowledged[answer.body["id"]] = image
        client.close()

    # As many connections as can wait, and more that are refused.
    threads = [threading.Thread(target=work) for _ in range(station.settings.queue + 64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    latencies.sort()
    return {
        "sent_per_second": round(sum(statuses.values()) / (time.perf_counter() - start), 1),
        "answers": {str(status): count for status, count in sorted(statuses.items())},
        "accepted_p50_ms": round(1e3 * latencies[len(latencies) // 2], 1),
        "accepted_p99_ms": round(1e3 * latencies[int(0.99 * len(latencies))], 1),
        "lost": len(lost(station, acknowledged)),
    }


def lost(station: ServedStation, acknowledged: dict[str, bytes]) -> list[str]:
    """Return the acknowledged inspections that are not recorded once, with their image."""
    database = Database(station.settings.database_address)
    store = ImageStore(station.settings.data)
    with database.session() as session:
        recorded = Counter(session.scalars(Inspection.__table__.select().with_only_columns(Inspection.id)))
        missing = []
        for inspection_id, image in acknowledged.items():
            key = key_of(image)
            assert key is not None
            if recorded[inspection_id] != 1 or store.read(key) != image:
                missing.append(inspection_id)
    database.close()
    return missing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2, help="of each worker")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60, help="of overload")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, images = chosen(given, Path(folder))
        bare = ExportedDetector.load(model, threads=given.threads * given.workers)
        result: dict[str, Any] = {"native_precision": native_precision(), "images": len(images)}
        options = ["--workers", str(given.workers), "--threads", str(given.threads)]
        station = ServedStation(Path(folder, "station"), model, options)
        station.start()
        try:
            result |= overhead(station, bare, images, given.rounds)
            result |= throughput(station, bare, images, given.rounds)
            result |= overload(station, images, 2 * result["station_per_second"], given.seconds)
        finally:
            station.stop()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
