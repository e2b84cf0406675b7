"""Users: who may sign in, with which role. Every change is audited in its transaction."""

import re
import unicodedata

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from hyperspot.service.access.audit import audit
from hyperspot.service.access.hashing import hash_password, is_password
from hyperspot.service.access.identity import Role
from hyperspot.service.database.tables import SignIn, User
from hyperspot.service.problems import Problem

NAME = re.compile(r"[^\W_][\w.@+-]{0,63}")
"""No spaces: `token NAME` in the audit log is never a user."""
RESERVED = frozenset({"station"})
SHORTEST, LONGEST = 8, 128
"""Characters of a password."""


def create_user(session: Session, name: str, password: str | None, role: Role, who: str) -> User:
    """Add a user.

    Args:
        session: The transaction of the change.
        name: Letters, digits and `. _ @ + -`.
        password: At least 8 characters; None: signs in by a one-time link alone, until a password is set.
        role: What the user may do.
        who: For the audit log.

    Raises:
        Problem: 422 for a name or a password that cannot be used, 409 for a name that is taken.

    Examples:
        >>> from sqlalchemy import create_engine
        >>> from sqlalchemy.orm import Session
        >>> from hyperspot.service.access.accounts import create_user, list_users
        >>> from hyperspot.service.database.tables import Base
        >>> engine = create_engine("sqlite://")
        >>> Base.metadata.create_all(engine)
        >>> with Session(engine) as session:
        ...     _ = create_user(session, "ann", "correct horse", "engineer", "station")
        ...     [(user.name, user.role) for user in list_users(session)]
        [('ann', 'engineer')]

    """
    name = check_name(name)
    if find_user(session, name) is not None:
        raise Problem(409, f"there is a user '{name}'; choose another name")
    hashed = "" if password is None else hash_password(check_password(name, password))
    user = User(name=name, password_hash=hashed, role=role)
    session.add(user)
    session.flush()
    audit(session, who, "user.create", name, role=role)
    return user


def check_name(name: str) -> str:
    """Return the normal form of a name; raises Problem 422 if it cannot be one."""
    name = unicodedata.normalize("NFKC", name).strip()
    if not NAME.fullmatch(name) or name.lower() in RESERVED:
        raise Problem(422, "a name has 1 to 64 letters, digits and . _ @ + - and begins with a letter or digit")
    return name


def check_password(name: str, password: str) -> str:
    """Return a password; raises Problem 422 if it cannot be typed, is too short, too long or the name."""
    if not SHORTEST <= len(password) <= LONGEST or not password.isprintable():
        raise Problem(422, f"a password has {SHORTEST} to {LONGEST} printable characters; choose another")
    if password.casefold() == name.casefold():
        raise Problem(422, "the password is the name; choose another")
    return password


def find_user(session: Session, name: str) -> User | None:
    """Return the user with a name."""
    return session.scalar(select(User).where(User.name == unicodedata.normalize("NFKC", name).strip()))


def get_user(session: Session, name: str) -> User:
    """Return the user with a name; raises Problem 404 if there is none."""
    user = find_user(session, name)
    if user is None:
        raise Problem(404, "there is no such user; list the users")
    return user


def list_users(session: Session) -> list[User]:
    """Return all users, by name."""
    return list(session.scalars(select(User).order_by(User.name)))


def set_role(session: Session, name: str, role: Role, who: str) -> User:
    """Change what a user may do, from the next request on; raises Problem 409 for the last admin."""
    user = _locked(session, name)
    if user.role != role:
        audit(session, who, "user.role", user.name, before=user.role, role=role)
        user.role = role
        _keep_an_admin(session)
    return user


def set_disabled(session: Session, name: str, disabled: bool, who: str) -> User:
    """Lock a user out at once, or let the user in again; raises Problem 409 for the last admin."""
    user = _locked(session, name)
    if user.is_disabled != disabled:
        audit(session, who, "user.disable" if disabled else "user.enable", user.name)
        user.is_disabled = disabled
        _keep_an_admin(session)
        if disabled:
            end_sessions(session, user)
    return user


def set_password(session: Session, name: str, password: str, who: str) -> User:
    """Give a user a new password and end all sessions of the user."""
    user = get_user(session, name)
    user.password_hash = hash_password(check_password(user.name, password))
    end_sessions(session, user)
    audit(session, who, "user.password", user.name)
    return user


def change_password(session: Session, name: str, current: str | None, new: str) -> User:
    """Let a user change the own password; all sessions of the user end.

    Raises:
        Problem: 403 if the current one is wrong; a user without a password needs none.
    """
    user = get_user(session, name)
    if user.password_hash and not is_password(user.password_hash, current or ""):
        raise Problem(403, "the current password is wrong; try again, or ask an admin for a new one")
    return set_password(session, name, new, user.name)


def set_language(session: Session, name: str, language: str | None) -> User:
    """Choose the language of the pages for a user; None: as the browser asks."""
    user = get_user(session, name)
    user.language = language
    return user


def end_sessions(session: Session, user: User) -> None:
    """End all sessions and one-time links of a user."""
    session.execute(delete(SignIn).where(SignIn.user_id == user.id))


def _locked(session: Session, name: str) -> User:
    """Return a user; on PostgreSQL changes of admins wait for each other, on SQLite all writers do."""
    session.execute(select(User.id).where(User.role == "admin").order_by(User.id).with_for_update()).all()
    return get_user(session, name)


def _keep_an_admin(session: Session) -> None:
    """Refuse the change that was just made if nobody is left to take it back."""
    session.flush()
    left = session.scalar(select(User.id).where(User.role == "admin", User.is_disabled.is_(False)).limit(1))
    if left is None:
        raise Problem(409, "this is the last admin; make another user an admin first")
