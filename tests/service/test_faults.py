"""Processes of the station are killed under load; the long form is `benchmarks.station_faults`."""

import random
import sys

import pytest

from benchmarks.station import ServedStation
from benchmarks.station_faults import faults
from tests.service.conftest import encoded

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are listed by /proc")


@pytest.mark.timeout(280)
def test_killed_processes_lose_and_repeat_nothing(tmp_path, model_file, good_pixels):
    station = ServedStation(tmp_path / "station", model_file, ["--threads", "1"])
    station.start()
    try:
        result = faults(station, [encoded(pixels) for pixels in good_pixels[:12]], 6, random.Random(1))
    finally:
        station.stop()
    assert sum(result["killed"].values()) == 6
    assert result["acknowledged"] > 0
    assert (result["lost"], result["twice"], result["wrong_key"]) == (0, 0, 0)
