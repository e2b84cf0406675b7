"""Downloads, from a server on this machine that breaks the connection, sends other bytes or is not there."""

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save

from hyperspot.backbones import create
from hyperspot.errors import WeightsError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CHUNK = 1 << 16


@dataclass
class Hub:
    """What the server sends, and what it was asked."""

    content: bytes
    etag: str
    cut_after: int | None = None
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)

    @property
    def downloads(self) -> list[str | None]:
        return [span for verb, _, span in self.asked if verb == "GET"]


@pytest.fixture(scope="module")
def content() -> bytes:
    tensors = create("resnet18", "random:5").state_dict()
    return save({name: tensor.contiguous() for name, tensor in tensors.items()})


@pytest.fixture
def hub(content: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    served = Hub(content, hashlib.sha256(content).hexdigest())

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> bytes:
            served.asked.append((self.command, self.path, self.headers["Range"]))
            start = 0
            if "timm/resnet18.tv_in1k/resolve" not in self.path:
                self.send_response(404)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return b""
            if self.headers["Range"]:
                start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
                self.send_response(206)
                last = len(served.content) - 1
                self.send_header("Content-Range", f"bytes {start}-{last}/{len(served.content)}")
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(served.content) - start))
            self.send_header("ETag", f'"{served.etag}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            return served.content[start:]

        def do_CONNECT(self) -> None:
            served.asked.append((self.command, self.path, None))
            self.send_error(403)

        def do_HEAD(self) -> None:
            self.answer()

        def do_GET(self) -> None:
            body = self.answer()
            if served.cut_after is not None:
                body, served.cut_after = body[: served.cut_after], None
                self.close_connection = True
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", CHUNK)
        # Clients made earlier in this process read the proxy variables of then.
        huggingface_hub.close_session()
        yield served
        huggingface_hub.close_session()
        server.shutdown()
        thread.join()


@pytest.fixture
def proxied(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> str:
    """Let the server stand for a proxy, the only one that is known; returns its address."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return os.environ["HF_ENDPOINT"]


def test_a_broken_connection_is_resumed_where_it_broke(hub: Hub, cache: Path) -> None:
    hub.cut_after = len(hub.content) // 2
    backbone = create("resnet18")
    whole_chunks = len(hub.content) // 2 // CHUNK * CHUNK
    assert hub.downloads == [None, f"bytes={whole_chunks}-"]
    assert backbone.weights_sha256 == hub.etag
    assert backbone.weights_source == f"resnet18-tv_in1k-{COMMIT[:8]}.safetensors"
    assert [path.name for path in cache.iterdir()] == [backbone.weights_source]
    expected = create("resnet18", "random:5").state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in backbone.state_dict().items())


def test_what_was_downloaded_once_is_not_asked_for_again(hub: Hub) -> None:
    first = create("resnet18")
    asked = len(hub.asked)
    second = create("resnet18")
    assert len(hub.asked) == asked
    assert (first.weights_source, first.weights_sha256) == (second.weights_source, second.weights_sha256)


def test_other_bytes_than_promised_are_thrown_away(hub: Hub, cache: Path) -> None:
    changed = bytearray(hub.content)
    changed[-1] ^= 1
    hub.content = bytes(changed)
    with pytest.raises(WeightsError, match=r"damaged.*try again"):
        create("resnet18")
    assert list(cache.iterdir()) == []


def test_a_server_that_promises_nothing_is_not_believed(hub: Hub, cache: Path) -> None:
    hub.etag = "abc"
    with pytest.raises(WeightsError, match=r"SHA-256.*resnet18\.safetensors.*HYPERSPOT_WEIGHTS"):
        create("resnet18")
    assert hub.downloads == []
    assert list(cache.iterdir()) == []


def test_a_server_without_the_repository_is_named(hub: Hub) -> None:
    with pytest.raises(WeightsError, match=r"timm/resnet34\.tv_in1k cannot be downloaded") as raised:
        create("resnet34")
    assert "\n" not in str(raised.value)


def test_offline_nothing_is_asked(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsError, match=r"offline.*HYPERSPOT_WEIGHTS"):
        create("resnet18")
    assert hub.asked == []


def test_a_cache_that_cannot_be_written_to_is_named(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("HYPERSPOT_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(WeightsError, match=str(tmp_path / "file")):
        create("resnet18")


@pytest.mark.parametrize("is_whole", [True, False])
def test_a_copy_in_the_cache_of_the_hub_serves_offline_if_it_is_whole(
    is_whole: bool, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    huggingface_hub.hf_hub_download(
        "timm/resnet18.tv_in1k",
        "model.safetensors",
        cache_dir=constants.HF_HUB_CACHE,
        endpoint=os.environ["HF_ENDPOINT"],
    )
    hub.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    if is_whole:
        assert create("resnet18").weights_sha256 == hub.etag
    else:
        (blob,) = Path(constants.HF_HUB_CACHE).glob(f"*/blobs/{hub.etag}")
        blob.write_bytes(hub.content[:-1] + b"x")
        with pytest.raises(WeightsError, match="damaged"):
            create("resnet18")
    assert hub.asked == []


@pytest.mark.parametrize("case", [str.lower, str.upper])
def test_a_proxy_is_asked_in_place_of_the_hub(
    case: Callable[[str], str], hub: Hub, proxied: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name of the hub is none (RFC 2606): whoever looks for it himself finds nothing."""
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    monkeypatch.setenv(case("http_proxy"), proxied)
    assert create("resnet18").weights_sha256 == hub.etag
    assert {path.partition("/timm/")[0] for _, path, _ in hub.asked} == {"http://hub.invalid"}
    assert len(hub.downloads) == 1


def test_a_proxy_is_asked_to_pass_encrypted_downloads_on(
    hub: Hub, proxied: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This one refuses, and is not gone around."""
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    monkeypatch.setenv("HTTPS_PROXY", proxied)
    with pytest.raises(WeightsError, match=r"cannot be downloaded .*403.*HYPERSPOT_WEIGHTS"):
        create("resnet18")
    assert {(verb, path) for verb, path, _ in hub.asked} == {("CONNECT", "hub.invalid:443")}
