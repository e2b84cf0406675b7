"""A real PostgreSQL server on loopback for the tests, where Debian's package is installed."""

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path("/usr/lib/postgresql")
USER = "postgres"
START_SECONDS = 30


def binaries():
    """Return the folder of the newest server, or None."""
    found = sorted(ROOT.glob("*/bin"), key=lambda path: int(path.parent.name)) if ROOT.is_dir() else []
    return found[-1] if found else None


class PostgresqlServer:
    """A server with its own data; it can be stopped and started again on the same port."""

    def __init__(self, folder):
        self._bin = binaries()
        self.folder = Path(folder)
        self._process = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        # PostgreSQL refuses to run as root.
        self._as_user = ["runuser", "-u", USER, "--"] if os.geteuid() == 0 else []
        self.user = USER if self._as_user else getpass.getuser()
        if self._as_user:
            shutil.chown(self.folder, USER)
        self._run("initdb", "-D", self.folder / "data", "-A", "trust", "-U", self.user, "--no-sync", "-E", "UTF8")

    def _run(self, program, *arguments):
        command = [*self._as_user, str(self._bin / program), *map(str, arguments)]
        subprocess.run(command, check=True, capture_output=True, cwd=self.folder)

    def start(self):
        log = (self.folder.parent / f"{self.folder.name}.log").open("ab")
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "port": self.port, "fsync": "off"}
        given = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with log:
            self._process = subprocess.Popen(
                [*self._as_user, str(self._bin / "postgres"), "-D", str(self.folder / "data"), *given],
                stdout=log,
                stderr=log,
                cwd=self.folder,
            )
        until = time.monotonic() + START_SECONDS
        while True:
            try:
                self._run("psql", "-h", "127.0.0.1", "-p", self.port, "-U", self.user, "-c", "SELECT 1", "postgres")
                return
            except subprocess.CalledProcessError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.1)

    def stop(self, mode="immediate"):
        if self._process is None:
            return
        self._run("pg_ctl", "stop", "-D", self.folder / "data", "-m", mode)
        self._process.wait(START_SECONDS)
        self._process = None

    def new_database(self, name):
        """Create an empty database and return its address."""
        self._run("createdb", "-h", "127.0.0.1", "-p", self.port, "-U", self.user, name)
        return f"postgresql+psycopg://{self.user}@127.0.0.1:{self.port}/{name}"


def start_server():
    server = PostgresqlServer(tempfile.mkdtemp(prefix="hyperspot-postgresql-"))
    server.start()
    return server


def remove_server(server):
    server.stop()
    shutil.rmtree(server.folder, ignore_errors=True)
    Path(f"{server.folder}.log").unlink(missing_ok=True)
