"""The API of users, tokens and the audit log."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from sqlalchemy import select

from hyperspot.service.access import accounts, sessions, tokens
from hyperspot.service.access.guard import Admin, Operator
from hyperspot.service.access.identity import Role
from hyperspot.service.access.sign_in import Attempts, address_of
from hyperspot.service.api.base import LARGEST, Id, Moment
from hyperspot.service.database.tables import AuditEntry, Token, User
from hyperspot.service.problems import Problem
from hyperspot.service.records.summary import API
from hyperspot.service.station import Station

router = APIRouter(prefix=API, tags=["access"])


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewUser(_Body):
    """A user to add."""

    name: str = Field(description="Letters, digits and . _ @ + -", max_length=64)
    password: str = Field(description="At least 8 characters.", max_length=accounts.LONGEST)
    role: Role = "operator"


class UserChange(_Body):
    """What changes of a user; the rest stays."""

    role: Role | None = None
    is_disabled: bool | None = Field(None, description="True locks the user out at once.")
    password: str | None = Field(None, description="Ends all sessions of the user.", max_length=accounts.LONGEST)


class NewPassword(_Body):
    """A change of the own password."""

    current: str | None = Field(None, description="Not needed by who has none yet.", max_length=accounts.LONGEST)
    new: str = Field(description="At least 8 characters.", max_length=accounts.LONGEST)


class NewToken(_Body):
    """A token to add."""

    name: str = Field(description="Stands in the audit log, for example `press 3`.", max_length=64)
    role: Role = "operator"
    expires_at: AwareDatetime | None = Field(None, description="None: it works until it is revoked.")


def user_of(user: User) -> dict[str, Any]:
    """Return a user as JSON values, without the password."""
    return {
        "name": user.name,
        "role": user.role,
        "language": user.language,
        "is_disabled": user.is_disabled,
        "has_password": bool(user.password_hash),
        "created_at": user.created_at.isoformat(),
    }


def token_of(token: Token) -> dict[str, Any]:
    """Return a token as JSON values, without its secret."""
    return {
        "id": token.id,
        "name": token.name,
        "role": token.role,
        "created_by": token.created_by,
        "created_at": token.created_at.isoformat(),
        "expires_at": None if token.expires_at is None else token.expires_at.isoformat(),
        "last_used_at": None if token.last_used_at is None else token.last_used_at.isoformat(),
    }


@router.get("/account")
def account(who: Operator) -> dict[str, Any]:
    """Tell who sends the request."""
    return {"name": who.name, "role": who.role, "kind": who.kind, "language": who.language}


@router.post("/account/password", status_code=204)
def change_own_password(request: Request, response: Response, who: Operator, body: NewPassword) -> None:
    """Change the own password; all other sessions of the user end."""
    if who.kind != "session":
        raise Problem(403, "a token has no password; sign in as a user")
    station: Station = request.app.state.station
    attempts: Attempts = request.app.state.attempts
    with attempts.trying(who.name, address_of(request)), station.database.session() as session:
        user = accounts.change_password(session, who.name, body.current, body.new)
        secret = sessions.start_session(session, user)
    sessions.set_cookie(response, secret, station.settings)


@router.get("/users")
def users(request: Request, who: Admin) -> list[dict[str, Any]]:
    """List the users."""
    del who
    with request.app.state.station.database.session() as session:
        return [user_of(user) for user in accounts.list_users(session)]


@router.post("/users", status_code=201)
def create_user(request: Request, who: Admin, body: NewUser) -> dict[str, Any]:
    """Add a user."""
    with request.app.state.station.database.session() as session:
        return user_of(accounts.create_user(session, body.name, body.password, body.role, who.name))


@router.patch("/users/{name}")
def change_user(request: Request, who: Admin, name: str, body: UserChange) -> dict[str, Any]:
    """Change the role or the password of a user, or lock the user out; the last admin stays one."""
    with request.app.state.station.database.session() as session:
        user = accounts.get_user(session, name)
        if body.role is not None:
            accounts.set_role(session, name, body.role, who.name)
        if body.is_disabled is not None:
            accounts.set_disabled(session, name, body.is_disabled, who.name)
        if body.password is not None:
            accounts.set_password(session, name, body.password, who.name)
        return user_of(user)


@router.get("/tokens")
def list_tokens(request: Request, who: Admin) -> list[dict[str, Any]]:
    """List the tokens, without their secrets."""
    del who
    with request.app.state.station.database.session() as session:
        return [token_of(token) for token in tokens.list_tokens(session)]


@router.post("/tokens", status_code=201)
def create_token(request: Request, who: Admin, body: NewToken) -> dict[str, Any]:
    """Add a token; the answer has its secret in `token`, which is shown this once."""
    with request.app.state.station.database.session() as session:
        token, secret = tokens.create_token(session, body.name, body.role, who.name, body.expires_at)
        return token_of(token) | {"token": secret}


@router.delete("/tokens/{token_id}", status_code=204)
def revoke_token(request: Request, who: Admin, token_id: Id) -> None:
    """Revoke a token; it stops working at once."""
    with request.app.state.station.database.session() as session:
        tokens.revoke_token(session, token_id, who.name)


@router.get("/audit")
def audit_log(
    request: Request,
    who: Admin,
    by: Annotated[str | None, Query(description="Name of a user, or `token NAME`.", max_length=100)] = None,
    action: Annotated[str | None, Query(description="For example `version.activate`.", max_length=64)] = None,
    subject: Annotated[str | None, Query(description="What was changed.", max_length=200)] = None,
    since: Annotated[Moment | None, Query(description="The earliest time.")] = None,
    until: Annotated[Moment | None, Query(description="Entries before this time.")] = None,
    before: Annotated[
        int | None, Query(ge=1, le=LARGEST, description="Entries before the one with this id: the next page.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> list[dict[str, Any]]:
    """List who changed what, the newest first."""
    del who
    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
    conditions = [
        None if by is None else AuditEntry.who == by,
        None if action is None else AuditEntry.action == action,
        None if subject is None else AuditEntry.subject == subject,
        None if since is None else AuditEntry.at >= since,
        None if until is None else AuditEntry.at < until,
        None if before is None else AuditEntry.id < before,
    ]
    query = query.where(*(condition for condition in conditions if condition is not None))
    with request.app.state.station.database.session() as session:
        return [
            {
                "id": entry.id,
                "at": entry.at.isoformat(),
                "who": entry.who,
                "action": entry.action,
                "subject": entry.subject,
                "details": entry.details,
            }
            for entry in session.scalars(query)
        ]
