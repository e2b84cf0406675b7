"""Browsers and programs that speak with a station in the process of a test, without a network."""

from starlette.testclient import TestClient

from hyperspot.service.access.accounts import create_user
from hyperspot.service.access.guard import CSRF_HEADER
from hyperspot.service.access.sessions import COOKIE, csrf_token
from hyperspot.service.access.tokens import create_token
from hyperspot.service.database.tables import now

ADDRESS = "http://localhost"
PASSWORD = "correct horse"


def client_of(app) -> TestClient:
    """Return who is not signed in."""
    return TestClient(app, ADDRESS, follow_redirects=False, raise_server_exceptions=False)


def token_of(station, role="admin", name=None) -> str:
    """Return the secret of a new token."""
    with station.database.session() as session:
        return create_token(session, name or f"{role} {now().timestamp()}", role, "tests")[1]


def bearer(station, role="admin") -> dict[str, str]:
    """Return the headers of a program."""
    return {"Authorization": f"Bearer {token_of(station, role)}"}


def browser_of(app, role="admin", name=None) -> TestClient:
    """Return a signed-in browser, whose scripts send the CSRF token."""
    name = name or role
    with app.state.station.database.session() as session:
        create_user(session, name, PASSWORD, role, "tests")
    client = client_of(app)
    assert client.post("/sign-in", data={"name": name, "password": PASSWORD}).status_code == 303
    client.headers[CSRF_HEADER] = csrf_token(client.cookies[COOKIE])
    return client


def audited(station) -> list[tuple[str, str, str]]:
    """Return who did what, oldest first."""
    from sqlalchemy import select

    from hyperspot.service.database.tables import AuditEntry

    with station.database.session() as session:
        rows = session.scalars(select(AuditEntry).order_by(AuditEntry.id)).all()
        return [(row.who, row.action, row.subject) for row in rows]
