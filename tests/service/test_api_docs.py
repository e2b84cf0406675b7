"""The pages about REST and Lookout for Vision: their commands and code run against a real station on loopback."""

import json
import os
import re
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest
import uvicorn

from hyperspot.service.api.answers import InspectionAnswer
from hyperspot.service.api.inspections import ListQuery
from hyperspot.service.app import create_app
from hyperspot.service.lookout import ERRORS, DetectAnomalyResult
from hyperspot.service.measurements import Measurements
from hyperspot.service.settings import StationSettings
from hyperspot.service.station import Station
from tests.docs.test_json import first_column
from tests.docs.test_snippets import blocks
from tests.service.clients import token_of
from tests.service.conftest import add_active_version, encoded

PAGES = Path(__file__).parents[2] / "docs" / "station"
REST, LOOKOUT = PAGES / "rest.md", PAGES / "lookout.md"


@contextmanager
def web_server(station):
    """Serve a station by uvicorn in a thread; yields its address."""
    server = uvicorn.Server(uvicorn.Config(create_app(station), port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until = time.monotonic() + 60
        while not server.started and thread.is_alive() and time.monotonic() < until:
            time.sleep(0.05)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(60)


@pytest.fixture(scope="module")
def place(tmp_path_factory, model_file, good_pixels, bad_image):
    """A folder with the files of the examples, and the environment with a running station."""
    folder = tmp_path_factory.mktemp("docs")
    (folder / "part.png").write_bytes(bad_image)
    (folder / "other.png").write_bytes(encoded(good_pixels[1]))
    (folder / "part.onnx").write_bytes(model_file.read_bytes())
    (folder / "good").mkdir()
    for number, pixels in enumerate(good_pixels):
        (folder / "good" / f"{number}.png").write_bytes(encoded(pixels))
    write_lookout(folder / "screws.zip", good_pixels, bad_image)
    station = Station(StationSettings(data=folder / "station", port=0, threads=1))
    station.settings.data.mkdir()
    station.database.migrate()
    add_active_version(station, model_file)
    with web_server(station) as address:
        yield folder, os.environ | {"STATION": address, "TOKEN": token_of(station)}


def write_lookout(file, good_pixels, bad_image):
    def line(path, number, name):
        values = {"source-ref": f"s3://bucket/project/{path}", "anomaly-label": number}
        described = {"class-name": name, "type": "groundtruth/image-classification", "human-annotated": "yes"}
        return json.dumps(values | {"anomaly-label-metadata": described}) + "\n"

    with zipfile.ZipFile(file, "w") as packed:
        train = "".join(line(f"train/good/{number}.png", 0, "normal") for number in range(4))
        test = line("test/good/8.png", 0, "normal") + line("test/defect/7.png", 1, "anomaly")
        packed.writestr("manifests/train.manifest", train)
        packed.writestr("manifests/test.manifest", test)
        for number in range(4):
            packed.writestr(f"train/good/{number}.png", encoded(good_pixels[number]))
        packed.writestr("test/good/8.png", encoded(good_pixels[8]))
        packed.writestr("test/defect/7.png", bad_image)


def outputs_of_commands(page, place):
    folder, environment = place
    outputs = []
    for block in blocks(page, "bash"):
        for command in block.splitlines():
            done = subprocess.run(
                ["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
            outputs.append(done.stdout)
    return outputs


def output_of_code(page, place):
    folder, environment = place
    code = "\n".join(blocks(page, "python"))
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_commands_of_rest(place):
    outputs = outputs_of_commands(REST, place)
    first, form, batch = (json.loads(output) for output in outputs[:3])
    assert (first["serial_number"], first["is_anomalous"], form["serial_number"]) == ("7", True, "8")
    assert [result["status"] for result in batch["results"]] == [200, 200]
    assert json.loads(outputs[-1])["number"] == 1
    assert len((place[0] / "inspections.csv").read_text().splitlines()) == 5
    assert (place[0] / "inspections.parquet").read_bytes()[:4] == b"PAR1"


def test_code_of_rest(place):
    output = output_of_code(REST, place)
    assert output.startswith("True ")
    assert re.search(r"^\d+ anomalous parts$", output, re.MULTILINE)
    assert "done {'version': 1, 'images': 24" in output


def test_commands_and_code_of_lookout(place):
    detected, upload = (json.loads(output) for output in outputs_of_commands(LOOKOUT, place))
    assert detected["DetectAnomalyResult"]["IsAnomalous"] is True
    assert len(upload["upload"]) == 64
    output = output_of_code(LOOKOUT, place)
    assert output.startswith("True ")
    assert "'training_images': 4, 'labeled_inspections': 2" in output


def table_after(page, sentence):
    text = page.read_text("utf-8").partition(sentence)[2]
    return re.search(r"^\|.*?(?=\n\n|\Z)", text, re.MULTILINE | re.DOTALL)[0]


def test_every_name_of_a_verdict_is_documented():
    assert first_column(table_after(REST, "It has these names:")) == set(InspectionAnswer.model_fields)
    assert first_column(table_after(LOOKOUT, "## The answer")) == set(DetectAnomalyResult.model_fields)


def test_every_filter_is_documented():
    assert first_column(table_after(REST, "All filters can be combined:")) == set(ListQuery.model_fields)


def test_every_code_of_lookout_is_documented():
    assert first_column(table_after(LOOKOUT, "## Errors")) == {*ERRORS.values(), "InternalServerException"}


def test_every_metric_is_documented(place):
    folder, environment = place
    names = first_column(table_after(REST, "| metric | meaning |\n"))
    of_the_path = {family.name for family in Measurements().registry.collect()}
    assert {name.removesuffix("_total") for name in names} >= of_the_path
    done = subprocess.run(
        ["curl", "-s", "-H", f"Authorization: Bearer {environment['TOKEN']}", f"{environment['STATION']}/metrics"],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=folder,
    )
    shown = set(re.findall(r"^# TYPE (hyperspot_\w+) ", done.stdout, re.MULTILINE))
    assert {name for name in shown if not name.endswith("_created")} == names
