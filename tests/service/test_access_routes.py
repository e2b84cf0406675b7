"""Every route of the station, without and with each role: a new one has to enter the table."""

import re

import pytest

from hyperspot.service.access.identity import ROLES
from hyperspot.service.app import create_app
from hyperspot.service.settings import StationSettings
from hyperspot.service.station import Station
from tests.service.clients import browser_of, client_of, token_of

PUBLIC = """
GET /api/v1/openapi.json
GET /health/live
GET /health/ready
GET /sign-in
GET /sign-in/link/{secret}
POST /sign-in
"""
OPERATOR = """
GET /
GET /alarms/badge
GET /api/v1/account
GET /api/v1/alarms
GET /api/v1/inspections
GET /api/v1/inspections/export
GET /api/v1/inspections/{inspection_id}
GET /api/v1/inspections/{inspection_id}/heatmap
GET /api/v1/inspections/{inspection_id}/image
GET /api/v1/inspections/{inspection_id}/labels
GET /api/v1/inspections/{inspection_id}/labels/{label_id}/mask
GET /api/v1/inspections/{inspection_id}/mask
GET /api/v1/inspections/{inspection_id}/overlay
GET /api/v1/jobs
GET /api/v1/jobs/{job_id}
GET /api/v1/outputs
GET /api/v1/outputs/kinds
GET /api/v1/outputs/{name}
GET /api/v1/products
GET /api/v1/products/{product_id}
GET /api/v1/products/{product_id}/inspection-plan
GET /api/v1/products/{product_id}/monitor
GET /api/v1/products/{product_id}/training-images
GET /api/v1/products/{product_id}/training-images/{sha256}
GET /api/v1/products/{product_id}/versions
GET /api/v1/products/{product_id}/versions/{number}
GET /api/v1/products/{product_id}/versions/{number}/figures
GET /api/v1/review
GET /api/v1/sources
GET /api/v1/sources/kinds
GET /api/v1/sources/{name}
GET /events
GET /inspections
GET /inspections/{inspection_id}
GET /live
GET /live/panel
GET /metrics
GET /pictures/{inspection_id}/{kind}
GET /review
GET /review/panel
GET /review/{inspection_id}/mask
GET /setup/account
POST /2020-11-20/projects/{project}/models/{version}/detect
POST /api/v1/account/password
POST /api/v1/inspections
POST /api/v1/inspections/batch
POST /api/v1/inspections/{inspection_id}/labels
POST /api/v1/sources/{name}/trigger
POST /inspections/{inspection_id}/labels
POST /live/wrong/{inspection_id}
POST /me/language
POST /review/undo
POST /review/{inspection_id}
POST /setup/account
POST /sign-out
"""
ENGINEER = """
DELETE /api/v1/outputs/{name}
DELETE /api/v1/products/{product_id}/inspection-plan
DELETE /api/v1/products/{product_id}/training-images/{sha256}
DELETE /api/v1/sources/{name}
DELETE /setup/products/{product_id}/images/{sha256}
GET /api/v1/products/{product_id}/versions/{number}/file
GET /learn
GET /learn/comparison/{job_id}
GET /learn/jobs
GET /learn/versions
GET /monitor
GET /monitor/alarms
GET /monitor/panel
GET /setup
GET /setup/products/{product_id}
GET /setup/products/{product_id}/images
GET /setup/products/{product_id}/images/{sha256}
GET /setup/products/{product_id}/plan/
GET /setup/products/{product_id}/plan/image
GET /setup/products/{product_id}/plan/plan
GET /setup/{group}
GET /setup/{group}/new
GET /setup/{group}/status
GET /setup/{group}/{row_id}
PATCH /api/v1/outputs/{name}
PATCH /api/v1/products/{product_id}
PATCH /api/v1/sources/{name}
POST /api/v1/alarms/{alarm_id}/acknowledge
POST /api/v1/jobs
POST /api/v1/jobs/{job_id}/cancel
POST /api/v1/outputs
POST /api/v1/outputs/{name}/retry
POST /api/v1/products
POST /api/v1/products/{product_id}/roll-back
POST /api/v1/products/{product_id}/training-images
POST /api/v1/products/{product_id}/versions
POST /api/v1/products/{product_id}/versions/{number}/activate
POST /api/v1/sources
POST /api/v1/uploads
POST /learn/add-reviewed
POST /learn/cancel/{job_id}
POST /learn/promote
POST /learn/roll-back
POST /learn/start
POST /monitor/alarms/{alarm_id}
POST /setup/products
POST /setup/products/{product_id}
POST /setup/products/{product_id}/images
POST /setup/products/{product_id}/models
POST /setup/products/{product_id}/plan/save
POST /setup/sources/{row_id}/trigger
POST /setup/{group}/new
POST /setup/{group}/{row_id}
POST /setup/{group}/{row_id}/enabled
POST /setup/{group}/{row_id}/remove
PUT /api/v1/products/{product_id}/inspection-plan
"""
ADMIN = """
DELETE /api/v1/tokens/{token_id}
GET /api/v1/audit
GET /api/v1/tokens
GET /api/v1/users
GET /setup/audit
GET /setup/tokens
GET /setup/users
PATCH /api/v1/users/{name}
POST /api/v1/tokens
POST /api/v1/users
POST /setup/tokens
POST /setup/tokens/{token_id}/revoke
POST /setup/users
POST /setup/users/{name}
"""
EXPECTED = {
    route: role
    for role, routes in ((None, PUBLIC), ("operator", OPERATOR), ("engineer", ENGINEER), ("admin", ADMIN))
    for route in routes.strip().splitlines()
}
"""The least role of each route."""
ENDLESS = ("GET /events",)
"""Answers without an end, tested with the pages."""
AS_LOOKOUT = ("POST /2020-11-20/projects/{project}/models/{version}/detect",)
"""Answers 403 without a sign-in, as Amazon Lookout for Vision does."""
OF_USERS = ("POST /api/v1/account/password", "GET /setup/account", "POST /setup/account", "POST /me/language")
"""Of a user's own account: a token has none."""
PARAMETER = re.compile(r"\{(\w+)(:\w+)?\}")
NUMBERS = {"alarm_id", "job_id", "label_id", "number", "row_id", "token_id", "version"}


def routes_of(app):
    """Yield method and path of every route, those of included routers too."""

    def walk(routes):
        for route in routes:
            if hasattr(route, "original_router"):
                yield from walk(route.original_router.routes)
            elif getattr(route, "methods", None):
                yield from (f"{method} {route.path}" for method in route.methods - {"HEAD"})
            else:
                # Files that everybody may see: the sign-in needs them.
                assert route.path == "/static"

    yield from walk(app.routes)


def address(route):
    """Return method and path with values that name nothing."""
    method, path = route.split(" ")
    return method, PARAMETER.sub(lambda found: "999999" if found[1] in NUMBERS else "nothing", path)


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    station = Station(StationSettings(data=tmp_path_factory.mktemp("routes"), port=0))
    station.database.migrate()
    yield create_app(station)
    station.database.close()


def test_every_route_has_a_role(app):
    routes = set(routes_of(app))
    assert routes - set(EXPECTED) == set(), "enter new routes with the least role that needs them"
    assert set(EXPECTED) - routes == set(), "these are gone"
    documented = {f"{method.upper()} {path}" for path, methods in app.openapi()["paths"].items() for method in methods}
    assert documented <= routes


def test_without_a_sign_in_nothing_is_answered(app):
    client = client_of(app)
    wrong = []
    for route, least in sorted(EXPECTED.items()):
        method, path = address(route)
        answer = client.request(method, path)
        if least is None:
            is_right = answer.status_code in (200, 401, 422, 503)
        elif answer.status_code == 303:
            # A page: the browser is led to the sign-in, and then back.
            is_right = method == "GET" and answer.headers["location"].startswith("/sign-in?next=")
        else:
            is_right = answer.status_code == (403 if route in AS_LOOKOUT else 401)
        if not is_right:
            wrong.append((route, answer.status_code, answer.text[:300]))
    assert wrong == []


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("kind", ["token", "session"])
def test_each_role_may_do_what_the_table_says(app, role, kind):
    if kind == "token":
        client = client_of(app)
        client.headers["Authorization"] = f"Bearer {token_of(app.state.station, role)}"
    else:
        client = browser_of(app, role, f"{role}.{kind}")
    wrong = []
    # The session ends with the last one.
    for route, least in sorted(EXPECTED.items(), key=lambda pair: (pair[0] == "POST /sign-out", pair[0])):
        if least is None or route in ENDLESS:
            continue
        method, path = address(route)
        answer = client.request(method, path)
        if ROLES.index(role) < ROLES.index(least):
            is_right = answer.status_code == 403 and f"takes the role {least}" in answer.text
        elif kind == "token" and answer.status_code == 403:
            is_right = route in OF_USERS
        else:
            is_right = answer.status_code not in (401, 403, 500)
        if not is_right:
            wrong.append((route, answer.status_code, answer.text[:300]))
    assert wrong == []


@pytest.mark.parametrize("role", ROLES)
def test_no_change_by_a_session_goes_without_its_csrf_token(app, role):
    client = browser_of(app, role, f"{role}.csrf")
    del client.headers["X-CSRF-Token"]
    for route, least in EXPECTED.items():
        method, path = address(route)
        if least is not None and method != "GET" and ROLES.index(role) >= ROLES.index(least):
            answer = client.request(method, path)
            assert answer.status_code == 403, (route, answer.text)
            assert "CSRF" in answer.text, route
