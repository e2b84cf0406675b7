"""Serves the page of `hyperspot roi` to this machine, until the region of interest is saved."""

import io
import json
import secrets
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from hyperspot.decision.inspection_plan import InspectionPlan
from hyperspot.decision.plan_drawing import drawn_plan, plan_at
from hyperspot.errors import DataError, HyperspotError
from hyperspot.utils.atomic_files import replacing

PAGE = Path(__file__).with_name("roi.html")
STATIC = Path(__file__).parents[1] / "service" / "pages" / "static"
"""The station draws with the same files; reading them imports nothing of it."""
FILES = {"plan.js": "text/javascript; charset=utf-8", "plan.css": "text/css; charset=utf-8"}
MOST_BYTES = 50_000_000
"""Of a saved plan: a mask of many runs is long."""
LONGEST_SHOWN = 4096
"""Long side of the shown picture, in pixels; browsers refuse much larger ones."""


class RoiServer:
    """A server on 127.0.0.1 that ends when the plan is saved.

    Every address holds a secret, and names other than 127.0.0.1 are refused, so that neither other users of this
    machine nor pages in the browser can read the image or write the file.

    Attributes:
        url: Of the page.

    """

    def __init__(self, image: UInt8[np.ndarray, "h w 3"], plan: InspectionPlan, output: Path, port: int = 0) -> None:
        self._image = image
        self._plan = plan
        self._output = output
        self._secret = secrets.token_urlsafe(24)
        self._written = False
        self._saved = threading.Event()
        try:
            self._server = ThreadingHTTPServer(("127.0.0.1", port), self._handler())
        except OSError as error:
            raise DataError(f"port {port} cannot be used ({error.strerror}); choose another --port") from None
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._host = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self._host}/{self._secret}/"

    def __enter__(self) -> "RoiServer":
        """Start to serve."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop to serve."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def wait(self, timeout: float | None = None) -> bool:
        """Return whether the plan was saved, after that or after `timeout` seconds."""
        return self._saved.wait(timeout)

    def answer(self, method: str, path: str, body: bytes) -> tuple[HTTPStatus, str, bytes]:
        """Return status, content type and content for a request; the path is that after the secret."""
        if method == "GET" and path == "":
            return HTTPStatus.OK, "text/html; charset=utf-8", PAGE.read_bytes()
        if method == "GET" and path in FILES:
            return HTTPStatus.OK, FILES[path], (STATIC / path).read_bytes()
        if method == "GET" and path == "image":
            return HTTPStatus.OK, "image/png", self._picture()
        if method == "GET" and path == "plan":
            height, width = self._image.shape[:2]
            values = {"plan": plan_at(self._plan, width, height).to_dict(), "size": [width, height]}
            return HTTPStatus.OK, "application/json", json.dumps(values).encode()
        if method == "POST" and path == "save":
            try:
                self._save(json.loads(body))
            except (ValueError, TypeError, RecursionError, HyperspotError) as error:
                return HTTPStatus.BAD_REQUEST, "text/plain; charset=utf-8", str(error).encode()
            except OSError as error:
                reason = f"{self._output} cannot be written: {error.strerror or error}"
                return HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain; charset=utf-8", reason.encode()
            return HTTPStatus.OK, "text/plain; charset=utf-8", b"Saved. You can close this page."
        return HTTPStatus.NOT_FOUND, "text/plain; charset=utf-8", b"not found"

    def _save(self, values: dict[str, Any]) -> None:
        plan = drawn_plan(values, self._image)
        with replacing(self._output) as partial:
            partial.write_text(json.dumps(plan.to_dict()) + "\n", encoding="utf-8")
        self._written = True

    def _picture(self) -> bytes:
        picture = Image.fromarray(self._image)
        picture.thumbnail((LONGEST_SHOWN, LONGEST_SHOWN))
        content = io.BytesIO()
        picture.save(content, format="PNG", compress_level=1)
        return content.getvalue()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer("GET", b"")

            def do_POST(self) -> None:
                length = self.headers.get("Content-Length", "")
                if not length.isascii() or not length.isdigit() or int(length) > MOST_BYTES:
                    self._send(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "text/plain", b"too long")
                    return
                self._answer("POST", self.rfile.read(int(length)))

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by http.server
                """Print nothing: the addresses hold the secret."""

            def _answer(self, method: str, body: bytes) -> None:
                secret, _, path = self.path.partition("?")[0].removeprefix("/").partition("/")
                known = secrets.compare_digest(secret.encode(), server._secret.encode())
                if not known or self.headers.get("Host") != server._host:
                    self._send(HTTPStatus.FORBIDDEN, "text/plain", b"forbidden")
                    return
                self._send(*server.answer(method, path, body))
                if server._written:
                    # After the answer: the command ends now.
                    server._saved.set()

            def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(content)))
                self.send_header("Cache-Control", "no-store")
                self.send_header("Referrer-Policy", "no-referrer")
                self.end_headers()
                self.wfile.write(content)

        return Handler
