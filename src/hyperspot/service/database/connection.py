"""Connections to SQLite (WAL) and PostgreSQL, and their migration."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from hyperspot.errors import SettingsError
from hyperspot.utils.optional_packages import missing

MIGRATIONS = Path(__file__).with_name("migrations")
BUSY_SECONDS = 30
"""SQLite has one writer at a time; others wait."""
NOTE_MILLISECONDS = 100
"""That a note waits for the writer, and with it who reads."""


class Database:
    """A database of one station; sessions may be opened in any thread.

    Attributes:
        engine: Of SQLAlchemy.
        is_sqlite: Whether it is SQLite, which has one writer at a time.

    Examples:
        >>> import tempfile
        >>> from hyperspot.service.database import Database
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     database = Database(f"sqlite:///{folder}/station.sqlite")
        ...     database.migrate()
        ...     database.is_ready()
        ...     database.close()
        True

    """

    def __init__(self, address: str) -> None:
        try:
            url = make_url(address)
            self.is_sqlite = url.get_backend_name() == "sqlite"
            arguments: dict[str, Any] = (
                {"connect_args": {"timeout": BUSY_SECONDS}}
                if self.is_sqlite
                else {"pool_pre_ping": True, "pool_size": 20, "max_overflow": 20}
            )
            # Errors of statements would tell the log hashes of passwords and texts of users.
            self.engine: Engine = create_engine(url, hide_parameters=True, **arguments)
        except (ArgumentError, NoSuchModuleError) as error:
            raise SettingsError(
                f"the database address cannot be used ({error}); give sqlite:///FILE or "
                "postgresql+psycopg://USER:PASSWORD@HOST/NAME"
            ) from None
        except ModuleNotFoundError as error:
            raise missing(str(error.name), "postgresql", "a database other than SQLite") from None
        if self.is_sqlite:
            event.listen(self.engine, "connect", _prepare_sqlite)
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    @contextmanager
    def session(self) -> Iterator[Session]:
        """Open a session; commits at the end, rolls back on an error."""
        with self._sessions.begin() as session:
            yield session

    @contextmanager
    def note(self) -> Iterator[Connection]:
        """Open a transaction for what may be left out; raises OperationalError if SQLite has another writer."""
        with self.engine.connect() as connection:
            if self.is_sqlite:
                connection.exec_driver_sql(f"PRAGMA busy_timeout = {NOTE_MILLISECONDS}")
            try:
                yield connection
                connection.commit()
            finally:
                connection.rollback()
                if self.is_sqlite:
                    connection.exec_driver_sql(f"PRAGMA busy_timeout = {1000 * BUSY_SECONDS}")

    def migrate(self) -> None:
        """Create or update all tables; raises SettingsError if the database cannot be reached."""
        try:
            with self.engine.begin() as connection:
                self._lock(connection)
                config = Config()
                config.set_main_option("script_location", str(MIGRATIONS))
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        except SQLAlchemyError as error:
            reason = str(getattr(error, "orig", error)).strip().splitlines()[0]
            shown = self.engine.url.render_as_string(hide_password=True)
            raise SettingsError(f"{shown} cannot be opened: {reason}; check the address and the server") from None

    def is_ready(self) -> bool:
        """Whether a query is answered now."""
        try:
            with self.engine.connect() as connection:
                connection.execute(text("SELECT 1"))
        except SQLAlchemyError:
            return False
        return True

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()

    def _lock(self, connection: Connection) -> None:
        """Let one process migrate at a time; released with the transaction."""
        if not self.is_sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(794513)"))


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    cursor = connection.cursor()
    # Readers do not wait for the writer. FULL: a commit survives a power cut, as an answered inspection has to.
    for pragma in ("journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
