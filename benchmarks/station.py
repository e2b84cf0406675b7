"""A station in processes of its own, with a product and a token, and a client; for benchmarks and tests."""

import argparse
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyperspot.service.access.tokens import create_token
from hyperspot.service.products import catalog
from hyperspot.service.settings import StationSettings
from hyperspot.service.station import Station

PRODUCT = "bolt"
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
START_SECONDS = 60


@dataclass(frozen=True)
class Answer:
    """What the station answered: status, JSON and headers; status 0 if the connection broke."""

    status: int
    body: dict[str, Any]
    headers: dict[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Let the model and the images be chosen; the synthetic demo product is the default."""
    parser.add_argument("model", type=Path, nargs="?", help="exported file; default: of the demo product")
    parser.add_argument("images", type=Path, nargs="?", help="folder of images; default: of the demo product")
    parser.add_argument("--most", type=int, default=60, help="images")


def chosen(given: argparse.Namespace, folder: Path) -> tuple[Path, list[bytes]]:
    """Return the exported file and the encoded images; the demo product is made and trained in a folder."""
    if given.model is None:
        # Torch only here: its threads would slow down the engine that is measured.
        data = folder / "product"
        command = f"make_product_set({str(data)!r}); export(Detector.fit({str(data)!r}), {str(folder / 'demo.onnx')!r})"
        imports = "from hyperspot import Detector, make_product_set; from hyperspot.export import export; "
        subprocess.run([sys.executable, "-c", imports + command], check=True)
        given.model, given.images = folder / "demo.onnx", data / "train"
    paths = [path for path in sorted(given.images.rglob("*")) if path.suffix.lower() in IMAGES]
    return given.model, [path.read_bytes() for path in paths[: given.most]]


class ServedStation:
    """`hyperspot serve` on a folder, on loopback.

    Args:
        data: Folder of the station.
        model: Model file or exported file of the product.
        options: Further options of `hyperspot serve`.
        database: Address; default: SQLite in the folder.
    """

    def __init__(self, data: Path, model: Path, options: list[str], database: str | None = None) -> None:
        self.settings = StationSettings(data=data, database=database)
        data.mkdir(parents=True, exist_ok=True)
        station = Station(self.settings)
        station.database.migrate()
        with station.database.session() as session:
            catalog.create_product(session, PRODUCT, PRODUCT, "benchmark")
            version = station.models.add(session, PRODUCT, model, "uploaded", "benchmark")
            catalog.activate(session, PRODUCT, version.number, "benchmark")
            self.token = create_token(session, "benchmark", "admin", "benchmark")[1]
        station.database.close()
        self.port = free_port()
        self._command = [sys.executable, "-m", "hyperspot", "serve", "--data", str(data), "--port", str(self.port)]
        self._command += options + ([] if database is None else ["--database", database])
        self._log = data.with_suffix(".log")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server and wait until it is ready."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"it ended:\n{self._log.read_text()[-3000:]}")
            client = self.client()
            if client.get("/health/ready").status == 200:
                client.close()
                return
            client.close()
            time.sleep(0.1)
        raise RuntimeError(f"the station is not ready after {START_SECONDS} s:\n{self._log.read_text()[-3000:]}")

    def stop(self) -> None:
        """End the server in an orderly way."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)

    def client(self, timeout: float = 60) -> "Client":
        """Return a client with one connection."""
        return Client(self.port, self.token, timeout)

    def processes(self) -> list[int]:
        """Return the process ids of the server and all its descendants."""
        assert self.process is not None
        return [self.process.pid, *descendants(self.process.pid)]


class Client:
    """One connection that is kept; for one thread."""

    def __init__(self, port: int, token: str, timeout: float) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
        self._headers = {"Authorization": f"Bearer {token}"}

    def inspect(self, image: bytes, key: str | None = None) -> Answer:
        """Inspect an image."""
        headers = {"Content-Type": "application/octet-stream"} | ({} if key is None else {"Idempotency-Key": key})
        return self.request("POST", f"/api/v1/inspections?product={PRODUCT}", image, headers)

    def get(self, path: str) -> Answer:
        """Get JSON."""
        return self.request("GET", path)

    def request(self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        """Send a request; a broken connection is status 0."""
        try:
            self._connection.request(method, path, body or None, self._headers | (headers or {}))
            response = self._connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return Answer(0, {}, {})
        try:
            values = json.loads(content)
        except ValueError:
            values = {}
        return Answer(response.status, values, dict(response.headers))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def descendants(pid: int) -> list[int]:
    """Return the processes below a process, on Linux."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        for child in children.get(waiting.pop(), []):
            found.append(child)
            waiting.append(child)
    return found


def memory_bytes(pids: list[int]) -> int:
    """Return the memory that processes hold, proportionally shared."""
    total = 0
    for pid in pids:
        try:
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += 1024 * int(line.split()[1])
        except OSError:
            continue
    return total


def kill(pid: int) -> bool:
    """Kill a process; return whether it lived."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
