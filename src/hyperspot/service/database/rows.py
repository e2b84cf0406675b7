"""Rows as JSON lines that any database takes: dumped from one, loaded into another."""

import base64
import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import Any

from sqlalchemy import Column, Connection, LargeBinary, Table, func, select, text

from hyperspot.service.database.tables import Base, UtcDateTime

AT_ONCE = 1000
TABLES: tuple[Table, ...] = tuple(table for table in Base.metadata.sorted_tables if table.name != "sign_ins")
"""Those that rows refer to come first. Sessions are not kept: whoever has a copy would be signed in."""


def begin_snapshot(connection: Connection) -> None:
    """Begin a transaction in which all reads see the same moment, while others write."""
    if connection.dialect.name == "sqlite":
        # Python's driver begins a transaction with the first change alone.
        connection.exec_driver_sql("BEGIN")
    else:
        connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")


def dump(connection: Connection, table: Table) -> Iterator[bytes]:
    """Yield the rows of a table, a JSON object and a line break each, in the order of the primary key."""
    query = select(table).order_by(*table.primary_key.columns)
    rows = connection.execution_options(stream_results=True, yield_per=AT_ONCE).execute(query)
    for row in rows:
        values = {column.name: _encoded(value) for column, value in zip(table.columns, row, strict=True)}
        yield json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def load(connection: Connection, table: Table, lines: Iterable[bytes]) -> int:
    """Insert rows that `dump` made; return how many.

    Raises:
        ValueError: If a line is none.
    """
    count, lines = 0, iter(lines)
    while batch := [_row(table, line) for line in islice(lines, AT_ONCE)]:
        connection.execute(table.insert(), batch)
        count += len(batch)
    number = table.autoincrement_column
    if connection.dialect.name == "postgresql" and count and number is not None:
        # The next row gets the number after the last one.
        sequence = func.pg_get_serial_sequence(table.name, number.name)
        connection.execute(select(func.setval(sequence, select(func.max(number)).scalar_subquery())))
    return count


def is_empty(connection: Connection) -> bool:
    """Whether no table has a row."""
    return all(connection.execute(select(text("1")).select_from(table).limit(1)).first() is None for table in TABLES)


def _encoded(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _row(table: Table, line: bytes) -> dict[str, Any]:
    values = json.loads(line)
    if not isinstance(values, dict) or set(values) != set(table.columns.keys()):
        raise ValueError(f"a row of {table.name} has other columns")
    return {column.name: _decoded(column, values[column.name]) for column in table.columns}


def _decoded(column: Column[Any], value: Any) -> Any:
    if value is None:
        return None
    if isinstance(column.type, UtcDateTime):
        return datetime.fromisoformat(value)
    return base64.b64decode(value) if isinstance(column.type, LargeBinary) else value
