"""The memory of a station over a long run: megabytes per 10,000 inspections.

    python -m benchmarks.station_soak --seconds 3600

Clients send images without a pause. The memory of the server and of its workers (proportional set size) is sampled
every five seconds; the slope is the median of the slopes of all pairs of samples (Theil and Sen) after a tenth of the
run.
Prints one JSON object.
"""

import argparse
import json
import tempfile
import time
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.station import ServedStation, add_arguments, chosen, memory_bytes
from benchmarks.station_faults import Load
from benchmarks.station_load import lost

EVERY_SECONDS = 5.0
WARM_UP = 0.1
"""Share of the run that is not counted: caches fill, engines allocate."""


def soak(station: ServedStation, images: list[bytes], seconds: float) -> dict[str, Any]:
    """Return the growth of memory and what was lost."""
    load = Load(station, images, pause=0.0)
    load.start()
    start = time.monotonic()
    samples: list[tuple[int, float]] = []
    try:
        while (passed := time.monotonic() - start) < seconds:
            time.sleep(EVERY_SECONDS)
            if passed > WARM_UP * seconds:
                samples.append((load.statuses[200], memory_bytes(station.processes()) / 1e6))
    finally:
        load.stop()
    slopes = [(after[1] - before[1]) / (after[0] - before[0]) for before, after in combinations(samples, 2)]
    return {
        "seconds": round(time.monotonic() - start),
        "inspections": load.statuses[200],
        "answers": {str(status): count for status, count in sorted(load.statuses.items())},
        "first_mb": round(samples[0][1], 1),
        "last_mb": round(samples[-1][1], 1),
        "mb_per_10000": round(1e4 * median(slopes), 2),
        "lost": len(lost(station, load.acknowledged)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--seconds", type=float, default=3600)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, images = chosen(given, Path(folder))
        station = ServedStation(Path(folder, "station"), model, [])
        station.start()
        try:
            result = soak(station, images, given.seconds)
        finally:
            station.stop()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
