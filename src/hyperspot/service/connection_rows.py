"""Sources and outputs in the database: added, changed, removed; every change is audited in its transaction."""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from hyperspot.service.access.audit import audit
from hyperspot.service.connections import check_settings, merge_settings
from hyperspot.service.database.tables import Output, Source
from hyperspot.service.outputs.registry import OUTPUTS
from hyperspot.service.problems import Problem
from hyperspot.service.products.catalog import get_product
from hyperspot.service.sources.registry import SOURCES

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,62}[A-Za-z0-9])?")
RESERVED = ("rest", "lookout", "import", "kinds")
"""Inspections name what they come from; `kinds` is an address."""
Row = TypeVar("Row", bound=Source | Output)


def list_rows(session: Session, table: type[Row]) -> list[Row]:
    """Return all sources or all outputs, by name."""
    return list(session.scalars(select(table).order_by(table.name)))


def get_row(session: Session, table: type[Row], row_id: int) -> Row:
    """Return a source or an output; raises Problem 404 if there is none."""
    row = session.get(table, row_id)
    if row is None:
        raise Problem(404, f"there is no such {_word(table)}; list them")
    return row


def named_row(session: Session, table: type[Row], name: str) -> Row:
    """Return a source or an output by its name; raises Problem 404 if there is none."""
    found = session.scalars(select(table).where(table.name == name)).all() if NAME.fullmatch(name) else []
    row: Row | None = found[0] if found else None
    if row is None:
        raise Problem(404, f"there is no such {_word(table)}; list them")
    return row


def add_row(
    session: Session,
    table: type[Row],
    name: str,
    kind: str,
    product_id: str | None,
    settings: Mapping[str, Any],
    who: str,
    *,
    is_enabled: bool = True,
) -> Row:
    """Add a source or an output; whoever calls reloads it after the commit.

    Raises:
        Problem: 404 without the product, 409 for a name that is taken, 422 for a name or a kind that cannot be used.
        SettingsError: If a setting does not fit.

    Examples:
        >>> from sqlalchemy import create_engine
        >>> from sqlalchemy.orm import Session
        >>> from hyperspot.service.connection_rows import add_row
        >>> from hyperspot.service.database.tables import Base, Output
        >>> engine = create_engine("sqlite://")
        >>> Base.metadata.create_all(engine)
        >>> with Session(engine) as session:
        ...     row = add_row(session, Output, "MES", "webhook", None, {"address": "https://mes.local"}, "ann")
        ...     row.name, row.is_enabled
        ('MES', True)

    """
    name = name.strip()
    if not NAME.fullmatch(name):
        raise Problem(422, "a name has 1 to 64 letters, digits, spaces, '.', '_' and '-'; choose another")
    if name.lower() in RESERVED:
        raise Problem(422, f"the names {', '.join(RESERVED)} have a meaning already; choose another")
    if kind not in (SOURCES if table is Source else OUTPUTS):
        raise Problem(422, f"there is no {_word(table)} of this kind; choose one that the page offers")
    if product_id is None and table is Source:
        raise Problem(422, "a source needs a product; choose one")
    if product_id is not None:
        get_product(session, product_id)
    if session.scalar(select(table.id).where(table.name == name)) is not None:
        raise Problem(409, f"there is a {_word(table)} '{name}'; choose another name")
    row = table(
        name=name, kind=kind, product_id=product_id, settings=check_settings(kind, settings), is_enabled=is_enabled
    )
    session.add(row)
    session.flush()
    audit(session, who, f"{_word(table)}.create", name, kind=kind, product=product_id)
    return row


def change_row(
    session: Session, row: Source | Output, who: str, *, settings: Mapping[str, Any], product_id: str | None
) -> None:
    """Change the settings and the product; a secret that is sent as it was shown stays."""
    if product_id is not None:
        get_product(session, product_id)
    elif isinstance(row, Source):
        raise Problem(422, "a source needs a product; choose one")
    row.settings = check_settings(row.kind, merge_settings(row.settings, settings))
    row.product_id = product_id
    audit(session, who, f"{_word(type(row))}.change", row.name)


def set_enabled(session: Session, row: Source | Output, enabled: bool, who: str) -> None:
    """Start or stop a source or an output."""
    row.is_enabled = enabled
    audit(session, who, f"{_word(type(row))}.{'enable' if enabled else 'disable'}", row.name)


def remove_row(session: Session, row: Source | Output, who: str) -> None:
    """Remove a source or an output, with what waits for it."""
    session.delete(row)
    audit(session, who, f"{_word(type(row))}.remove", row.name)


def _word(table: type[Any]) -> str:
    return "source" if table is Source else "output"
