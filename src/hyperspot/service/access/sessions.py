"""Sessions of browsers: a random secret in a cookie, of which the database keeps the SHA-256."""

import hashlib
import hmac
import logging
import secrets
from datetime import datetime, timedelta

from fastapi import Response
from sqlalchemy import delete, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from hyperspot.service.access.hashing import digest
from hyperspot.service.access.identity import Identity
from hyperspot.service.database import Database
from hyperspot.service.database.tables import SignIn, User, now
from hyperspot.service.settings import StationSettings

COOKIE = "hyperspot_session"
IDLE = timedelta(hours=12)
"""A session ends when it was not used for this long: longer than a shift."""
LONGEST = timedelta(days=7)
USE_WRITTEN_EVERY = timedelta(minutes=1)
log = logging.getLogger(__name__)


def start_session(session: Session, user: User, replaced: str | None = None) -> str:
    """Start a session of a user and return its secret.

    Args:
        session: The transaction of the sign-in.
        user: Who signs in.
        replaced: Secret of the session that the browser had before; it ends.
    """
    moment = now()
    session.execute(delete(SignIn).where(SignIn.expires_at <= moment))
    if replaced is not None:
        end_session(session, replaced)
    secret = secrets.token_urlsafe(32)
    session.add(
        SignIn(
            digest=digest(secret),
            kind="session",
            user_id=user.id,
            created_at=moment,
            last_used_at=moment,
            expires_at=moment + LONGEST,
        )
    )
    return secret


def end_session(session: Session, secret: str) -> None:
    """End a session."""
    session.execute(delete(SignIn).where(SignIn.digest == digest(secret), SignIn.kind == "session"))


def identity_of_session(database: Database, secret: str) -> Identity | None:
    """Return who a session belongs to; None if it has ended or its user was disabled."""
    moment = now()
    key = digest(secret)
    query = (
        select(User.name, User.role, User.language, SignIn.last_used_at)
        .join(User, User.id == SignIn.user_id)
        .where(
            SignIn.digest == key,
            SignIn.kind == "session",
            SignIn.expires_at > moment,
            SignIn.last_used_at > moment - IDLE,
            User.is_disabled.is_(False),
        )
    )
    with database.engine.connect() as connection:
        row = connection.execute(query).one_or_none()
    if row is None:
        return None
    if moment - row.last_used_at >= USE_WRITTEN_EVERY:
        _note_use(database, key, moment)
    return Identity(row.name, row.role, "session", csrf_token(secret), row.language)


def csrf_token(secret: str) -> str:
    """Return the CSRF token of a session, which only pages of this session contain.

    Examples:
        >>> from hyperspot.service.access.sessions import csrf_token
        >>> csrf_token("one") == csrf_token("other")
        False

    """
    return hmac.new(secret.encode(), b"csrf", hashlib.sha256).hexdigest()


def set_cookie(response: Response, secret: str, settings: StationSettings) -> None:
    """Give a browser its session."""
    response.set_cookie(
        COOKIE,
        secret,
        max_age=int(LONGEST.total_seconds()),
        path="/",
        secure=settings.sends_secure_cookies,
        httponly=True,
        samesite="lax",
    )


def delete_cookie(response: Response, settings: StationSettings) -> None:
    """Take the session of a browser away."""
    response.delete_cookie(COOKIE, path="/", secure=settings.sends_secure_cookies, httponly=True, samesite="lax")


def _note_use(database: Database, key: str, moment: datetime) -> None:
    try:
        with database.note() as connection:
            connection.execute(update(SignIn).where(SignIn.digest == key).values(last_used_at=moment))
    except OperationalError:
        # A database that does not write still answers who this is.
        log.warning("the last use of a session could not be written")
