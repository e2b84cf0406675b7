"""Runs a station until it is told to stop: the lock of its folder, its socket, its web server."""

import asyncio
import contextlib
import errno
import os
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO

import uvicorn

from hyperspot.errors import SettingsError
from hyperspot.service import demo as demonstration
from hyperspot.service.access import links
from hyperspot.service.app import create_app
from hyperspot.service.settings import StationSettings
from hyperspot.service.station import Station

LOCK, UNFINISHED = ".lock", ".restoring"
"""Files of a station's folder: held by the running station; there while a backup is restored."""
STOP_SECONDS = 10.0
"""Beyond the deadline of inspections, for answers under way."""
EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 - what people pass to be reached from elsewhere


@dataclass(frozen=True)
class Announcement:
    """Where a station is reached.

    Attributes:
        address: Of its pages and its API.
        sign_in_link: Signs an admin in once, within ten minutes; None if nobody needs one.
    """

    address: str
    sign_in_link: str | None


def serve(
    settings: StationSettings, announce: Callable[[Announcement], None], *, link: bool = False, demo: bool = False
) -> None:
    """Run a station until SIGTERM or SIGINT; then running inspections are finished.

    Args:
        settings: Of the station.
        announce: Called once the station is started.
        link: Make a one-time link even if an admin has a password.
        demo: Fill the station with the demo product.

    Raises:
        HyperspotError: One sentence, if the folder, the port, the TLS files or the database cannot be used.
    """
    check_tls(settings)
    with locked(settings.data), listening(settings) as listener:
        if (settings.data / UNFINISHED).exists():
            raise SettingsError(f"the restoration of {settings.data} was not finished; restore the backup again")
        asyncio.run(_run(Station(settings), listener, announce, link=link, demo=demo))


async def _run(
    station: Station,
    listener: socket.socket,
    announce: Callable[[Announcement], None],
    *,
    link: bool,
    demo: bool,
) -> None:
    settings = station.settings
    config = uvicorn.Config(
        create_app(station),
        # The station is started here, so that its errors are one sentence.
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        timeout_graceful_shutdown=round(settings.deadline + STOP_SECONDS),
    )
    server = _Server(config, station)
    # Also while it starts: a station that is told to stop then stops as it would later.
    with server.capture_signals():
        await station.start()
        try:
            announce(await asyncio.to_thread(_announcement, station, listener, link))
            showing = asyncio.create_task(demonstration.run(station)) if demo else None
            try:
                await server.serve([listener])
            finally:
                if showing is not None:
                    showing.cancel()
                    with contextlib.suppress(asyncio.CancelledError):
                        await showing
        finally:
            await station.stop()


class _Server(uvicorn.Server):
    """Ends with exit code 0 when it is told to, and ends the streams of browsers, which never end by themselves."""

    def __init__(self, config: uvicorn.Config, station: Station) -> None:
        super().__init__(config)
        self._station = station

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handled = [signal.SIGINT, signal.SIGTERM]
        if sys.platform == "win32":
            handled.append(signal.SIGBREAK)
        before = {number: signal.signal(number, self.handle_exit) for number in handled}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self._station.events.publish("stop", {})


def _announcement(station: Station, listener: socket.socket, link: bool) -> Announcement:
    settings, port = station.settings, listener.getsockname()[1]
    host = "127.0.0.1" if settings.host in EVERYWHERE else settings.host
    address = f"{settings.scheme}://{f'[{host}]' if ':' in host else host}:{port}/"
    with station.database.session() as session:
        wanted = link or links.needs_link(session)
        secret = links.make_link(session) if wanted else None
    return Announcement(address, None if secret is None else f"{address}sign-in/link/{secret}")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a station's folder; raises SettingsError if another station does, or it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+b")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise SettingsError(f"{folder} cannot be used: {reason}; choose another --data") from None
    with file:
        if not _lock(file):
            raise SettingsError(f"{folder} is served by another station; stop it, or choose another --data")
        # Released by the system when the process ends, however it ends.
        yield


def _lock(file: IO[bytes]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


@contextlib.contextmanager
def listening(settings: StationSettings) -> Iterator[socket.socket]:
    """Yield a socket that listens; raises SettingsError if the address cannot be used."""
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        raise SettingsError(f"--host {settings.host} is no address of this machine; choose 127.0.0.1") from None
    family, kind, protocol, _, address = found[0]
    with socket.socket(family, kind, protocol) as listener:
        if os.name == "posix":
            # On Windows it would let two stations share a port.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
            listener.listen(socket.SOMAXCONN)
        except OSError as error:
            raise SettingsError(_why_not(settings, error)) from None
        yield listener


def _why_not(settings: StationSettings, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {settings.port} is in use; stop the program that uses it, or choose another --port"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {settings.port} is not allowed for this user; choose a --port above 1023"
    if error.errno == errno.EADDRNOTAVAIL:
        return f"--host {settings.host} is no address of this machine; choose 127.0.0.1"
    return f"port {settings.port} cannot be used ({error.strerror}); choose another --port"


def check_tls(settings: StationSettings) -> None:
    """Raise SettingsError if the TLS files cannot be used."""
    if settings.tls_certificate is None or settings.tls_key is None:
        return
    for path in (settings.tls_certificate, settings.tls_key):
        try:
            path.read_bytes()
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise SettingsError(f"{path} cannot be read: {reason}; check the name and the permissions") from None
    try:
        # An empty password: otherwise OpenSSL asks for that of an encrypted key on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            settings.tls_certificate, settings.tls_key, password=lambda: b""
        )
    except (ssl.SSLError, ValueError):
        raise SettingsError(
            f"{settings.tls_certificate} and {settings.tls_key} are no certificate and its key in PEM format without "
            "a password; convert them, or choose other files"
        ) from None
