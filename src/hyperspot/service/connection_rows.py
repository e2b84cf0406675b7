"""Adds, changes and removes sources and outputs, for the API and the Set-up page."""

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from hyperspot.errors import HyperspotError
from hyperspot.service.access.audit import audit
from hyperspot.service.connections import check_settings, merge_settings
from hyperspot.service.database.tables import Output, Source
from hyperspot.service.outputs.registry import OUTPUTS
from hyperspot.service.problems import Problem
from hyperspot.service.products.catalog import get_product
from hyperspot.service.sources.registry import SOURCES

NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9 ._-]{0,62}[A-Za-z0-9])?")
RESERVED = ("rest", "lookout", "import", "kinds")
"""Inspections name what they come from."""
Row = TypeVar("Row", Source, Output)


def list_rows(session: Session, table: type[Row]) -> list[Row]:
    """Return all sources or outputs by name."""
    return list(session.scalars(select(table).order_by(table.name)))


def get_row(session: Session, table: type[Row], name: str) -> Row:
    """Return a source or output; raises Problem 404 if there is none."""
    row = session.scalar(select(table).where(table.name == name)) if NAME.fullmatch(name) else None
    if row is None:
        word = _word(table)
        raise Problem(404, f"there is no such {word}; add it, or check its name")
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
    """Add a source or output.

    Args:
        session: The transaction of the change.
        table: `Source` or `Output`.
        name: Not taken.
        kind: Registered in `SOURCES` or `OUTPUTS`.
        product_id: Of an existing product; None means all products, for outputs alone.
        settings: Of the kind.
        who: For the audit log.
        is_enabled: Whether it runs.

    Raises:
        Problem: 404 without the product, 409 if the name is taken, 422 for a name, kind or settings that do not fit.
    """
    word = _word(table)
    if not NAME.fullmatch(name) or name.lower() in RESERVED:
        raise Problem(
            422,
            f"the name of a {word} has 1 to 64 letters, digits, spaces and . _ -, begins and ends with a letter or "
            f"digit, and is none of {', '.join(RESERVED)}",
        )
    kinds = list(SOURCES if table is Source else OUTPUTS)
    if kind not in kinds:
        raise Problem(422, f"there is no {word} of this kind; choose one of {', '.join(kinds)}")
    if session.scalar(select(table.id).where(table.name == name)) is not None:
        raise Problem(409, f"there is a {word} '{name}' already; choose another name")
    _check_product(session, table, product_id)
    row = table(
        name=name, kind=kind, product_id=product_id, settings=_checked(kind, settings), is_enabled=is_enabled
    )
    session.add(row)
    session.flush()
    audit(session, who, f"{word}.create", name, kind=kind, product=product_id, is_enabled=is_enabled)
    return row


def change_row(session: Session, table: type[Row], name: str, who: str, **changes: Any) -> Row:
    """Change a source or output.

    Args:
        session: The transaction of the change.
        table: `Source` or `Output`.
        name: Of the row.
        who: For the audit log.
        changes: `product_id`, `settings` (an old secret stays where it is REDACTED) or `is_enabled`.

    Raises:
        Problem: 404 without it or the product, 422 for settings that do not fit.
    """
    row = get_row(session, table, name)
    shown = dict(changes)
    if "product_id" in changes:
        _check_product(session, table, changes["product_id"])
    if "settings" in changes:
        merged = merge_settings(row.settings, changes["settings"])
        changes["settings"] = _checked(row.kind, merged)
        shown["settings"] = sorted(changes["settings"])
    for column, value in changes.items():
        setattr(row, column, value)
    session.flush()
    audit(session, who, f"{_word(table)}.change", name, **shown)
    return row


def remove_row(session: Session, table: type[Row], name: str, who: str) -> None:
    """Remove a source or output, with the verdicts that wait for it; raises Problem 404 without it."""
    row = get_row(session, table, name)
    session.delete(row)
    audit(session, who, f"{_word(table)}.remove", name, kind=row.kind)


def _check_product(session: Session, table: type[Source] | type[Output], product_id: str | None) -> None:
    if product_id is not None:
        get_product(session, product_id)
    elif table is Source:
        raise Problem(422, "a source belongs to a product; name it")


def _checked(kind: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return check_settings(kind, settings)
    except HyperspotError as error:
        raise Problem(422, str(error)) from None


def _word(table: type[Source] | type[Output]) -> str:
    return "source" if table is Source else "output"
