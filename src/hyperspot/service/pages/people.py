"""*Set-up* of users and tokens, the audit log, and what each user sets for themselves."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from sqlalchemy import select
from sqlalchemy.orm import Session

from hyperspot.service.access import accounts, tokens
from hyperspot.service.access.identity import ROLES, Role
from hyperspot.service.access.sign_in import Attempts, address_of
from hyperspot.service.api.dependencies import StationDep
from hyperspot.service.database.tables import AuditEntry
from hyperspot.service.pages.dependencies import Admin, AdminPage, Operator, OperatorPage
from hyperspot.service.pages.language import LANGUAGES
from hyperspot.service.pages.rendering import chosen_product, fragment, page, within
from hyperspot.service.pages.setup import go_to
from hyperspot.service.problems import Problem

ENTRIES = 100
router = APIRouter(include_in_schema=False)


@router.get("/setup/users")
def users(request: Request, who: AdminPage, here: StationDep) -> HTMLResponse:
    """Show all users."""
    with here.database.session() as session:
        product = chosen_product(request, session)
        return page(request, who, "setup/users.html", session, product, tab="users", **_user_values(session))


@router.post("/setup/users")
def create_user(
    who: Admin,
    here: StationDep,
    name: Annotated[str, Form()],
    password: Annotated[str, Form()],
    role: Annotated[Role, Form()],
) -> Response:
    """Add a user."""
    with here.database.session() as session:
        accounts.create_user(session, name, password, role, who.name)
    return go_to("/setup/users")


@router.post("/setup/users/{name}")
def change_user(
    request: Request,
    who: Admin,
    here: StationDep,
    name: str,
    role: Annotated[Role | None, Form()] = None,
    disabled: Annotated[bool | None, Form()] = None,
    password: Annotated[str | None, Form()] = None,
) -> HTMLResponse:
    """Change the role of a user, lock the user out or in, or set a new password."""
    with here.database.session() as session:
        if role is not None:
            accounts.set_role(session, name, role, who.name)
        if disabled is not None:
            accounts.set_disabled(session, name, disabled, who.name)
        if password:
            accounts.set_password(session, name, password, who.name)
        return fragment(request, who, "setup/user_list.html", **_user_values(session))


@router.get("/setup/tokens")
def show_tokens(request: Request, who: AdminPage, here: StationDep) -> HTMLResponse:
    """Show all tokens."""
    with here.database.session() as session:
        product = chosen_product(request, session)
        return page(request, who, "setup/tokens.html", session, product, tab="tokens", **_token_values(session))


@router.post("/setup/tokens")
def create_token(
    request: Request,
    who: Admin,
    here: StationDep,
    name: Annotated[str, Form()],
    role: Annotated[Role, Form()],
    days: Annotated[int | None, Form(ge=1, le=3650)] = None,
) -> HTMLResponse:
    """Add a token and show its secret, this once."""
    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
    with here.database.session() as session:
        token, secret = tokens.create_token(session, name, role, who.name, expires_at)
        values = {"new": token, "secret": secret, **_token_values(session)}
        answer = fragment(request, who, "setup/token_list.html", **values)
    answer.headers["Cache-Control"] = "no-store"
    return answer


@router.post("/setup/tokens/{token_id}/revoke")
def revoke_token(request: Request, who: Admin, here: StationDep, token_id: int) -> HTMLResponse:
    """Remove a token."""
    with here.database.session() as session:
        tokens.revoke_token(session, token_id, who.name)
        return fragment(request, who, "setup/token_list.html", **_token_values(session))


@router.get("/setup/audit")
def audit_log(request: Request, who: AdminPage, here: StationDep, before: int | None = None) -> HTMLResponse:
    """Show who changed what, the newest first."""
    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(ENTRIES)
    if before is not None:
        query = query.where(AuditEntry.id < before)
    with here.database.session() as session:
        entries = list(session.scalars(query))
        product = chosen_product(request, session)
        return page(
            request,
            who,
            "setup/audit.html",
            session,
            product,
            tab="audit",
            entries=entries,
            most=ENTRIES,
            before=before,
        )


@router.get("/setup/account")
def account(request: Request, who: OperatorPage, here: StationDep) -> HTMLResponse:
    """Show the form for a new own password."""
    with here.database.session() as session:
        user = accounts.get_user(session, who.name)
        product = chosen_product(request, session)
        has_password = bool(user.password_hash)
        return page(request, who, "setup/account.html", session, product, tab="account", has_password=has_password)


@router.post("/setup/account")
def change_password(
    request: Request,
    who: Operator,
    here: StationDep,
    new: Annotated[str, Form()],
    current: Annotated[str, Form()] = "",
) -> Response:
    """Change the own password; all sessions end."""
    if who.kind != "session":
        raise Problem(403, "a token has no password; sign in as a user")
    attempts: Attempts = request.app.state.attempts
    with attempts.trying(who.name, address_of(request)), here.database.session() as session:
        accounts.change_password(session, who.name, current, new)
    return go_to("/sign-in")


@router.post("/me/language")
def language(
    who: Operator,
    here: StationDep,
    language: Annotated[str, Form()],
    next: Annotated[str, Form()] = "/",  # noqa: A002 - as in the sign-in
) -> RedirectResponse:
    """Choose the language of the pages."""
    if language not in LANGUAGES:
        raise Problem(422, f"there is no such language; choose one of {', '.join(LANGUAGES)}")
    with here.database.session() as session:
        accounts.set_language(session, who.name, language)
    return RedirectResponse(within(next), 303)


def _user_values(session: Session) -> dict[str, Any]:
    return {"users": accounts.list_users(session), "roles": ROLES}


def _token_values(session: Session) -> dict[str, Any]:
    return {"tokens": tokens.list_tokens(session), "roles": ROLES}
