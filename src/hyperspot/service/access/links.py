"""One-time links: how the first admin signs in, and one who forgot the password."""

import secrets
from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from hyperspot.service.access.accounts import create_user
from hyperspot.service.access.audit import audit
from hyperspot.service.access.hashing import digest
from hyperspot.service.database.tables import SignIn, User, now

FIRST_ADMIN = "admin"
LIFE = timedelta(minutes=10)


def needs_link(session: Session) -> bool:
    """Whether no admin can sign in with a password."""
    admins = select(User.id).where(User.role == "admin", User.is_disabled.is_(False), User.password_hash != "")
    return session.scalar(admins.limit(1)) is None


def make_link(session: Session) -> str:
    """Return the secret of a link that signs an admin in once, within ten minutes; creates the first admin.

    Examples:
        >>> from sqlalchemy import create_engine
        >>> from sqlalchemy.orm import Session
        >>> from hyperspot.service.access.links import make_link, use_link
        >>> from hyperspot.service.database.tables import Base
        >>> engine = create_engine("sqlite://")
        >>> Base.metadata.create_all(engine)
        >>> with Session(engine) as session:
        ...     secret = make_link(session)
        ...     use_link(session, secret).name, use_link(session, secret)
        ('admin', None)

    """
    user = session.scalar(
        select(User).where(User.role == "admin", User.is_disabled.is_(False)).order_by(User.id).limit(1)
    )
    if user is None:
        user = create_user(session, _free_name(session), None, "admin", "station")
    secret, moment = secrets.token_urlsafe(24), now()
    session.add(
        SignIn(
            digest=digest(secret),
            kind="link",
            user_id=user.id,
            created_at=moment,
            last_used_at=moment,
            expires_at=moment + LIFE,
        )
    )
    audit(session, "station", "link.create", user.name)
    return secret


def use_link(session: Session, secret: str) -> User | None:
    """Return the user whom a link signs in, and remove the link; None if it was used or is too old."""
    used = delete(SignIn).where(SignIn.digest == digest(secret), SignIn.kind == "link", SignIn.expires_at > now())
    user_id = session.execute(used.returning(SignIn.user_id)).scalar()
    user = None if user_id is None else session.get(User, user_id)
    if user is None or user.is_disabled:
        return None
    audit(session, user.name, "sign_in", user.name, by="link")
    return user


def _free_name(session: Session) -> str:
    """Return a name for the admin; a disabled user may have the first one."""
    names, number = set(session.scalars(select(User.name))), 1
    while (name := FIRST_ADMIN if number == 1 else f"{FIRST_ADMIN}{number}") in names:
        number += 1
    return name
