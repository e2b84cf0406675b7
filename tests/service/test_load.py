"""The station at twice its capacity; the long form is `benchmarks.station_load`."""

from benchmarks.station import ServedStation
from benchmarks.station_load import overload, saturate
from tests.service.conftest import encoded


def test_overload_is_refused_and_nothing_accepted_is_lost(tmp_path, model_file, good_pixels):
    images = [encoded(pixels) for pixels in good_pixels]
    station = ServedStation(tmp_path / "station", model_file, ["--threads", "1", "--queue", "8"])
    station.start()
    try:
        assert saturate(station, images, connections=4) == {200: len(images)}
        result = overload(station, images, rate=400, seconds=4)
    finally:
        station.stop()
    assert set(result["answers"]) == {"200", "429"}
    assert result["lost"] == 0
    # A full queue of 8 images of 64 x 64 pixels: far less, on any machine.
    assert result["accepted_p99_ms"] < 10_000
