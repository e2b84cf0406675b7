"""The database: migrations give the tables that the code names, on SQLite and PostgreSQL."""

from datetime import UTC, datetime

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect, text
from sqlalchemy.exc import StatementError

from hyperspot.errors import SettingsError
from hyperspot.service.database import Database
from hyperspot.service.database.tables import Base, Product


def test_migrations_give_the_tables_of_the_code(database):
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        assert {"products", "inspections", "alembic_version"} <= set(inspect(connection).get_table_names())


def test_a_second_migration_changes_nothing(database):
    with database.session() as session:
        session.add(Product(id="bolt", name="Bolt"))
    database.migrate()
    with database.session() as session:
        assert session.get(Product, "bolt").name == "Bolt"


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
def test_sqlite_survives_a_power_cut_and_lets_readers_in(database):
    with database.engine.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 2
        assert connection.execute(text("PRAGMA foreign_keys")).scalar() == 1


def test_times_keep_their_zone(database):
    with database.session() as session:
        session.add(Product(id="bolt", name="Bolt"))
    with database.session() as session:
        assert session.get(Product, "bolt").created_at.tzinfo is not None
    with pytest.raises(StatementError, match="without a zone"), database.session() as session:
        session.add(Product(id="nut", name="Nut", created_at=datetime(2026, 1, 1)))
    with database.session() as session:
        session.add(Product(id="nut", name="Nut", created_at=datetime(2026, 1, 1, tzinfo=UTC)))


@pytest.mark.parametrize("address", ["nonsense", "oracle9://host/name", "sqlite:////missing/folder/station.sqlite"])
def test_a_database_that_cannot_be_used_is_one_sentence(address):
    with pytest.raises(SettingsError, match="cannot be"):
        Database(address).migrate()


def test_a_password_is_in_no_message():
    address = "postgresql+psycopg://user:secret@127.0.0.1:1/name"
    with pytest.raises(SettingsError) as raised:
        Database(address).migrate()
    assert "secret" not in str(raised.value)
