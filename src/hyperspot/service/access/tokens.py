"""API tokens: what programs sign in with."""

import logging
import re
import secrets
from datetime import datetime, timedelta

from sqlalchemy import delete, or_, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from hyperspot.service.access.audit import audit
from hyperspot.service.access.hashing import digest
from hyperspot.service.access.identity import Identity, Role
from hyperspot.service.database import Database
from hyperspot.service.database.tables import Token, now
from hyperspot.service.problems import Problem

PREFIX = "hsp_"
"""Lets people and programs recognize a leaked token."""
NAME = re.compile(r"[^\W_][\w .@+-]{0,63}")
USE_WRITTEN_EVERY = timedelta(minutes=1)
log = logging.getLogger(__name__)


def create_token(
    session: Session, name: str, role: Role, who: str, expires_at: datetime | None = None
) -> tuple[Token, str]:
    """Add a token and return it with its secret, which is shown this once.

    Args:
        session: The transaction of the change.
        name: Stands in the audit log, for example `press 3`.
        role: What the program may do.
        who: For the audit log.
        expires_at: When it stops working; None: when it is revoked.

    Raises:
        Problem: 422 for a name or a time that cannot be used, 409 for a name that is taken.

    Examples:
        >>> from sqlalchemy import create_engine
        >>> from sqlalchemy.orm import Session
        >>> from hyperspot.service.access.tokens import create_token
        >>> from hyperspot.service.database.tables import Base
        >>> engine = create_engine("sqlite://")
        >>> Base.metadata.create_all(engine)
        >>> with Session(engine) as session:
        ...     token, secret = create_token(session, "press 3", "operator", "ann")
        ...     token.name, secret.startswith("hsp_")
        ('press 3', True)

    """
    name = name.strip()
    if not NAME.fullmatch(name):
        raise Problem(
            422,
            "the name of a token has 1 to 64 letters, digits, spaces and . _ @ + - and begins with a letter or digit",
        )
    if expires_at is not None and expires_at <= now():
        raise Problem(422, "the token would have expired already; choose a later time")
    if session.scalar(select(Token.id).where(Token.name == name)) is not None:
        raise Problem(409, f"there is a token '{name}'; revoke it or choose another name")
    secret = PREFIX + secrets.token_urlsafe(32)
    token = Token(name=name, digest=digest(secret), role=role, created_by=who, expires_at=expires_at)
    session.add(token)
    session.flush()
    expires = None if expires_at is None else expires_at.isoformat()
    audit(session, who, "token.create", name, role=role, expires_at=expires)
    return token, secret


def list_tokens(session: Session) -> list[Token]:
    """Return all tokens, by name."""
    return list(session.scalars(select(Token).order_by(Token.name)))


def revoke_token(session: Session, token_id: int, who: str) -> None:
    """Remove a token; it stops working at once. Raises Problem 404 if there is none."""
    name = session.execute(delete(Token).where(Token.id == token_id).returning(Token.name)).scalar()
    if name is None:
        raise Problem(404, "there is no such token; list the tokens")
    audit(session, who, "token.revoke", name)


def identity_of_token(database: Database, secret: str) -> Identity | None:
    """Return who a token belongs to; None if it is unknown or has expired."""
    moment = now()
    query = select(Token.id, Token.name, Token.role, Token.expires_at, Token.last_used_at).where(
        Token.digest == digest(secret)
    )
    with database.engine.connect() as connection:
        row = connection.execute(query).one_or_none()
    if row is None or (row.expires_at is not None and row.expires_at <= moment):
        return None
    if row.last_used_at is None or moment - row.last_used_at >= USE_WRITTEN_EVERY:
        _note_use(database, row.id, moment)
    return Identity(f"token {row.name}", row.role, "token")


def _note_use(database: Database, token_id: int, moment: datetime) -> None:
    unused = or_(Token.last_used_at.is_(None), Token.last_used_at <= moment - USE_WRITTEN_EVERY)
    try:
        with database.engine.begin() as connection:
            connection.execute(update(Token).where(Token.id == token_id, unused).values(last_used_at=moment))
    except OperationalError:
        # A database that does not write still answers who this is.
        log.warning("the last use of a token could not be written")
