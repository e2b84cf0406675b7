"""A live camera through FFmpeg: motion JPEG from a server on loopback that goes away and comes back."""

import asyncio
import contextlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np

from hyperspot.service.sources import Sources
from tests.service.plant import plant_in, until

JPEG = cv2.imencode(".jpg", np.full((48, 64, 3), 200, np.uint8))[1].tobytes()


class Stream(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        with contextlib.suppress(OSError):
            while not self.server.is_gone:
                self.wfile.write(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(JPEG))
                self.wfile.write(JPEG + b"\r\n")
                time.sleep(0.02)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def camera(port=0):
    server = ThreadingHTTPServer(("127.0.0.1", port), Stream)
    server.is_gone = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.is_gone = True
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_stream_that_ends_is_opened_again(tmp_path):
    async def main():
        async with plant_in(tmp_path) as plant:
            sources = Sources(plant.database, plant.events, plant.inspector.inspect, first_wait=0.05)
            with camera() as port:
                settings = {"address": f"http://127.0.0.1:{port}/live.mjpg", "take": "interval", "interval": 0.05}
                plant.add_source("camera", settings | {"silence": 2})
                await sources.start()
                await until(lambda: len(plant.inspections) >= 3, 30)
            await until(lambda: sources.status()["camera"]["state"] == "failing", 30)
            count = len(plant.inspections)
            with camera(port):
                await until(lambda: len(plant.inspections) > count, 30)
                await until(lambda: sources.status()["camera"]["state"] == "running", 30)
                await sources.stop()
            assert {round(inspection.score * 255) for inspection in plant.inspections} <= {199, 200, 201}

    asyncio.run(main())
