"""The database: tables, connections and migrations."""

from hyperspot.service.database.connection import Database

__all__ = ["Database"]
