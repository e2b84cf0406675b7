"""Signing in, sessions, tokens and users, as browsers and programs meet them."""

import json
import re
import time
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from hyperspot.service.access import accounts, links, sessions, tokens
from hyperspot.service.access.guard import CSRF_HEADER
from hyperspot.service.access.sessions import COOKIE
from hyperspot.service.access.sign_in import PER_ADDRESS, PER_NAME, WINDOW, Attempts
from hyperspot.service.app import create_app
from hyperspot.service.database.tables import SignIn, Token, User, now
from hyperspot.service.problems import Problem
from hyperspot.service.settings import StationSettings
from hyperspot.service.station import Station
from tests.service.clients import PASSWORD, audited, bearer, browser_of, client_of, token_of


@pytest.fixture
def station(settings):
    settings.data.mkdir()
    made = Station(settings)
    made.database.migrate()
    yield made
    made.database.close()


@pytest.fixture
def app(station):
    return create_app(station)


@pytest.fixture
def anyone(app):
    return client_of(app)


def test_the_first_admin_signs_in_by_a_link_that_works_once(station, app, anyone):
    with station.database.session() as session:
        assert links.needs_link(session)
        secret = links.make_link(session)
    # A preview that only asks for headers does not use it up.
    assert anyone.head(f"/sign-in/link/{secret}").status_code == 405
    done = anyone.get(f"/sign-in/link/{secret}")
    assert (done.status_code, done.headers["location"]) == (303, "/")
    assert anyone.get("/api/v1/account").json() == {
        "name": "admin", "role": "admin", "kind": "session", "language": None,
    }  # fmt: skip
    again = client_of(app).get(f"/sign-in/link/{secret}")
    assert again.status_code == 401
    assert "was used" in again.text
    assert COOKIE not in again.cookies
    with station.database.session() as session:
        assert links.needs_link(session), "the admin has no password yet"
    anyone.headers[CSRF_HEADER] = sessions.csrf_token(anyone.cookies[COOKIE])
    assert anyone.post("/api/v1/account/password", json={"new": PASSWORD}).status_code == 204
    with station.database.session() as session:
        assert not links.needs_link(session)
    assert client_of(app).post("/sign-in", data={"name": "admin", "password": PASSWORD}).status_code == 303
    assert [action for _, action, _ in audited(station)] == [
        "user.create", "link.create", "sign_in", "user.password", "sign_in",
    ]  # fmt: skip


def test_an_old_link_does_not_work(station, anyone):
    with station.database.session() as session:
        secret = links.make_link(session)
        session.execute(update(SignIn).values(expires_at=now() - timedelta(seconds=1)))
    assert anyone.get(f"/sign-in/link/{secret}").status_code == 401
    assert anyone.get("/sign-in/link/guessed").status_code == 401


def test_a_link_is_no_session(station, anyone):
    with station.database.session() as session:
        secret = links.make_link(session)
    assert anyone.get("/api/v1/account", headers={"Cookie": f"{COOKIE}={secret}"}).status_code == 401


@pytest.mark.parametrize(
    ("name", "password"),
    [("ann", "wrong horse"), ("bob", PASSWORD), ("eve", PASSWORD), ("linked", ""), ("linked", "x")],
)
def test_a_refused_sign_in_does_not_tell_why(station, anyone, name, password):
    with station.database.session() as session:
        accounts.create_user(session, "ann", PASSWORD, "admin", "tests")
        accounts.create_user(session, "eve", PASSWORD, "admin", "tests")
        accounts.set_disabled(session, "eve", True, "tests")
        accounts.create_user(session, "linked", None, "operator", "tests")
    refused = anyone.post("/sign-in", data={"name": name, "password": password or " "})
    assert refused.status_code == 401
    assert "name or the password is wrong" in refused.text
    assert COOKIE not in refused.cookies


def test_a_refused_sign_in_takes_as_long_for_unknown_names(station, monkeypatch):
    """Counted, not timed: each attempt verifies one hash."""
    from hyperspot.service.access import hashing, sign_in

    verified = []

    class Counted:
        def __init__(self, usual):
            self.hash, self._usual = usual.hash, usual

        def verify(self, hashed, password):
            verified.append(hashed)
            return self._usual.verify(hashed, password)

    with station.database.session() as session:
        accounts.create_user(session, "ann", PASSWORD, "admin", "tests")
        hashing._hash_of_nobody.cache_clear()
        monkeypatch.setattr(hashing, "HASHER", Counted(hashing.HASHER))
        for name in ("ann", "bob"):
            assert sign_in.check_sign_in(session, name, "wrong horse") is None
    assert len(verified) == 2
    assert len({hashed.split("$")[3] for hashed in verified}) == 1, "with the same parameters"


def test_a_sign_in_ends_the_session_before(app):
    browser = browser_of(app)
    before = browser.cookies[COOKIE]
    assert browser.post("/sign-in", data={"name": "admin", "password": PASSWORD}).status_code == 303
    assert browser.cookies[COOKIE] != before
    assert client_of(app).get("/api/v1/account", headers={"Cookie": f"{COOKIE}={before}"}).status_code == 401
    assert browser.get("/api/v1/account").status_code == 200


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(app):
    with app.state.station.database.session() as session:
        accounts.create_user(session, "ann", PASSWORD, "admin", "tests")
    set_cookie = client_of(app).post("/sign-in", data={"name": "ann", "password": PASSWORD}).headers["set-cookie"]
    assert {"HttpOnly", "SameSite=lax", "Path=/"} <= set(set_cookie.split("; "))
    assert "Secure" not in set_cookie


def test_the_cookie_is_secure_with_tls(tmp_path, station):
    safe = Station(StationSettings(data=station.settings.data, secure_cookies=True))
    with safe.database.session() as session:
        accounts.create_user(session, "ann", PASSWORD, "admin", "tests")
    answer = client_of(create_app(safe)).post("/sign-in", data={"name": "ann", "password": PASSWORD})
    assert "Secure" in answer.headers["set-cookie"].split("; ")
    safe.database.close()


def test_signing_out_ends_the_session_in_the_database(app):
    browser = browser_of(app)
    stolen = browser.cookies[COOKIE]
    assert browser.post("/sign-out").headers["location"] == "/sign-in"
    assert COOKIE not in browser.cookies
    assert client_of(app).get("/api/v1/account", headers={"Cookie": f"{COOKIE}={stolen}"}).status_code == 401


@pytest.mark.parametrize(
    "change",
    [
        {"last_used_at": now() - sessions.IDLE - timedelta(seconds=1)},
        {"expires_at": now() - timedelta(seconds=1)},
    ],
)
def test_a_stale_session_ends(app, change):
    browser = browser_of(app)
    with app.state.station.database.session() as session:
        session.execute(update(SignIn).values(**change))
    assert browser.get("/api/v1/account").status_code == 401


def test_use_keeps_a_session_alive_and_is_written_once_a_minute(app):
    browser = browser_of(app)
    database = app.state.station.database

    def last_used():
        with database.session() as session:
            return session.scalar(select(SignIn.last_used_at))

    first = last_used()
    browser.get("/api/v1/account")
    assert last_used() == first
    with database.session() as session:
        session.execute(update(SignIn).values(last_used_at=now() - timedelta(minutes=2)))
    browser.get("/api/v1/account")
    assert last_used() > first


def test_only_the_digest_of_secrets_is_kept(app):
    browser = browser_of(app)
    secret = token_of(app.state.station)
    assert secret.startswith("hsp_")
    assert len(secret) >= 4 + 43
    app.state.station.database.close()
    content = b"".join(path.read_bytes() for path in app.state.station.settings.data.glob("station.sqlite*"))
    for hidden in (secret, browser.cookies[COOKIE], PASSWORD, sessions.csrf_token(browser.cookies[COOKIE])):
        assert hidden.encode() not in content


def test_a_disabled_user_is_out_at_once(app):
    admin, operator = browser_of(app), browser_of(app, "operator")
    assert admin.patch("/api/v1/users/operator", json={"is_disabled": True}).json()["is_disabled"]
    assert operator.get("/api/v1/account").status_code == 401
    assert operator.post("/sign-in", data={"name": "operator", "password": PASSWORD}).status_code == 401
    admin.patch("/api/v1/users/operator", json={"is_disabled": False})
    assert operator.get("/api/v1/account").status_code == 401, "the old session stays ended"
    assert operator.post("/sign-in", data={"name": "operator", "password": PASSWORD}).status_code == 303


def test_a_role_counts_from_the_next_request_on(app):
    admin, operator = browser_of(app), browser_of(app, "operator")
    assert operator.get("/api/v1/users").status_code == 403
    assert admin.patch("/api/v1/users/operator", json={"role": "admin"}).status_code == 200
    assert operator.get("/api/v1/users").status_code == 200


@pytest.mark.parametrize("change", [{"role": "engineer"}, {"is_disabled": True}])
def test_the_last_admin_stays(app, change):
    admin = browser_of(app)
    refused = admin.patch("/api/v1/users/admin", json=change)
    assert refused.status_code == 409
    assert "last admin" in refused.json()["detail"]
    assert admin.get("/api/v1/account").json()["role"] == "admin"
    browser_of(app, "admin", "second")
    assert admin.patch("/api/v1/users/admin", json=change).status_code == 200


def test_two_admins_cannot_remove_each_other_at_once(database):
    """On both databases: the second one waits, then sees that it would be the last."""
    import threading

    with database.session() as session:
        for name in ("ann", "bob"):
            accounts.create_user(session, name, None, "admin", "tests")
    both = threading.Barrier(2)
    refused = []

    def demote(name):
        both.wait()
        try:
            with database.session() as session:
                accounts.set_role(session, name, "operator", "tests")
                time.sleep(0.1)
        except Problem as problem:
            refused.append(problem.status)

    threads = [threading.Thread(target=demote, args=(name,)) for name in ("ann", "bob")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with database.session() as session:
        assert session.scalars(select(User.role)).all().count("admin") == 1
    assert refused == [409]


def test_a_new_password_ends_other_sessions_and_renews_the_own(app):
    browser, elsewhere = browser_of(app), client_of(app)
    elsewhere.post("/sign-in", data={"name": "admin", "password": PASSWORD})
    before = browser.cookies[COOKIE]
    assert (
        browser.post("/api/v1/account/password", json={"current": "wrong", "new": "battery staple"}).status_code == 403
    )
    changed = browser.post("/api/v1/account/password", json={"current": PASSWORD, "new": "battery staple"})
    assert changed.status_code == 204
    assert browser.cookies[COOKIE] != before
    assert browser.get("/api/v1/account").status_code == 200
    assert elsewhere.get("/api/v1/account").status_code == 401
    assert elsewhere.post("/sign-in", data={"name": "admin", "password": PASSWORD}).status_code == 401


@pytest.mark.parametrize("password", ["short", "x" * 129, "operator", "line\nbreak", "half \ud800 pair"])
def test_weak_passwords_are_refused(app, password):
    admin = browser_of(app)
    body = json.dumps({"name": "Operator", "password": password, "role": "operator"})
    refused = admin.post("/api/v1/users", content=body, headers={"Content-Type": "application/json"})
    assert refused.status_code == 422
    assert password not in refused.text


@pytest.mark.parametrize("path", ["/api/v1/account/password", "/setup/account"])
def test_a_session_cannot_guess_the_password_either(app, path):
    browser = browser_of(app)
    wrong = {"current": "wrong", "new": "battery staple"}
    for _ in range(PER_NAME):
        answer = browser.post(path, json=wrong) if path.startswith("/api") else browser.post(path, data=wrong)
        assert answer.status_code == 403
    right = {"current": PASSWORD, "new": "battery staple"}
    answer = browser.post(path, json=right) if path.startswith("/api") else browser.post(path, data=right)
    assert answer.status_code == 429


@pytest.mark.parametrize("name", ["", "two words", "<b>", "../x", "station", "Station", "a" * 65, "-x", "a\n", "a;b"])
def test_names_that_cannot_be_used(station, name):
    with pytest.raises(Problem) as refused, station.database.session() as session:
        accounts.create_user(session, name if name != "a\n" else "a\nb", PASSWORD, "operator", "tests")
    assert refused.value.status == 422


def test_users_over_the_api(app):
    admin = browser_of(app)
    made = admin.post("/api/v1/users", json={"name": "Jürgen", "password": PASSWORD, "role": "engineer"})
    assert made.status_code == 201
    assert made.json()["name"] == "Jürgen"
    assert admin.post("/api/v1/users", json={"name": "Jürgen", "password": PASSWORD}).status_code == 409
    assert {user["name"] for user in admin.get("/api/v1/users").json()} == {"admin", "Jürgen"}
    assert "argon2" not in admin.get("/api/v1/users").text
    assert admin.patch("/api/v1/users/nobody", json={"role": "admin"}).status_code == 404
    assert admin.patch("/api/v1/users/Jürgen", json={"role": "king"}).status_code == 422
    assert admin.patch("/api/v1/users/Jürgen", json={"password": "battery staple"}).json()["has_password"]
    assert ("admin", "user.password", "Jürgen") in audited(app.state.station)


def test_tokens_over_the_api(app, anyone):
    admin = browser_of(app)
    made = admin.post("/api/v1/tokens", json={"name": "press 3", "role": "operator"}).json()
    headers = {"Authorization": f"Bearer {made['token']}"}
    assert anyone.get("/api/v1/account", headers=headers).json() == {
        "name": "token press 3", "role": "operator", "kind": "token", "language": None,
    }  # fmt: skip
    (listed,) = admin.get("/api/v1/tokens").json()
    assert listed["last_used_at"] is not None
    assert "token" not in listed
    assert admin.post("/api/v1/tokens", json={"name": "press 3"}).status_code == 409
    assert admin.delete(f"/api/v1/tokens/{made['id']}").status_code == 204
    assert admin.delete(f"/api/v1/tokens/{made['id']}").status_code == 404
    assert anyone.get("/api/v1/account", headers=headers).status_code == 401
    for body in ({"name": "<b>"}, {"name": "old", "expires_at": "2020-01-01T00:00:00Z"}, {"name": "x", "role": "root"}):
        assert admin.post("/api/v1/tokens", json=body).status_code == 422


def test_an_expired_token_does_not_work(station, anyone):
    with station.database.session() as session:
        _, secret = tokens.create_token(session, "press", "admin", "tests", now() + timedelta(hours=1))
    headers = {"Authorization": f"Bearer {secret}"}
    assert anyone.get("/api/v1/account", headers=headers).status_code == 200
    with station.database.session() as session:
        session.execute(update(Token).values(expires_at=now()))
    assert anyone.get("/api/v1/account", headers=headers).status_code == 401


def test_the_use_of_a_token_is_written_once_a_minute(station, anyone):
    headers = bearer(station)
    moments = []
    for back in (timedelta(0), timedelta(0), timedelta(minutes=2)):
        with station.database.session() as session:
            session.execute(update(Token).values(last_used_at=Token.last_used_at)) if not back else session.execute(
                update(Token).values(last_used_at=now() - back)
            )
        anyone.get("/api/v1/account", headers=headers)
        with station.database.session() as session:
            moments.append(session.scalar(select(Token.last_used_at)))
    assert moments[0] == moments[1] < moments[2]


def test_who_reads_does_not_wait_for_a_writer(app, station, anyone):
    browser, headers = browser_of(app), bearer(station)
    with station.database.session() as session:
        session.execute(update(SignIn).values(last_used_at=now() - timedelta(minutes=2)))
    with station.database.engine.connect() as writer:
        writer.exec_driver_sql("BEGIN IMMEDIATE")
        began = time.monotonic()
        assert anyone.get("/api/v1/account", headers=headers).status_code == 200
        assert browser.get("/api/v1/account").status_code == 200
        assert time.monotonic() - began < 5
        writer.rollback()
    with station.database.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA busy_timeout").scalar() == 30_000
    assert browser.get("/api/v1/account").status_code == 200
    with station.database.session() as session:
        assert session.scalar(select(SignIn.last_used_at)) > now() - timedelta(minutes=1), "noted when it is possible"


@pytest.mark.parametrize("sent", ["Bearer hsp_wrong", "Bearer", "Basic YWRtaW46YWRtaW4=", "hsp_wrong"])
def test_a_wrong_token_is_not_replaced_by_the_session(app, sent):
    refused = browser_of(app).get("/api/v1/account", headers={"Authorization": sent})
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Bearer"
    assert refused.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("sent", [None, "", "wrong", "ä"])
def test_a_session_needs_its_csrf_token(app, sent):
    browser = browser_of(app)
    del browser.headers[CSRF_HEADER]
    headers = {} if sent is None else {CSRF_HEADER: sent.encode()}
    refused = browser.post("/api/v1/tokens", json={"name": "press"}, headers=headers)
    assert refused.status_code == 403
    assert "CSRF" in refused.json()["detail"]
    assert browser.get("/api/v1/tokens").json() == []


def test_the_csrf_token_of_another_session_does_not_work(app):
    browser, other = browser_of(app), browser_of(app, "engineer")
    headers = {CSRF_HEADER: other.headers[CSRF_HEADER]}
    assert browser.post("/api/v1/tokens", json={"name": "press"}, headers=headers).status_code == 403


def test_forms_carry_the_csrf_token_as_a_field(app):
    browser = browser_of(app)
    good = browser.headers.pop(CSRF_HEADER)
    assert browser.post("/sign-out", data={"csrf_token": "wrong"}).status_code == 403
    assert browser.post("/sign-out", files={"csrf_token": ("x", b"wrong")}).status_code == 403
    assert browser.post("/sign-out", data={"csrf_token": good}).status_code == 303


def test_the_audit_log_is_filtered_and_paged(app):
    admin = browser_of(app)
    for name in ("one", "two", "three"):
        admin.post("/api/v1/tokens", json={"name": name})
    entries = admin.get("/api/v1/audit", params={"action": "token.create", "limit": 2}).json()
    assert [entry["subject"] for entry in entries] == ["three", "two"]
    rest = admin.get("/api/v1/audit", params={"action": "token.create", "before": entries[-1]["id"]}).json()
    assert [entry["subject"] for entry in rest] == ["one"]
    assert admin.get("/api/v1/audit", params={"by": "x' OR '1'='1"}).json() == []
    assert admin.get("/api/v1/audit", params={"since": (now() + timedelta(hours=1)).isoformat()}).json() == []
    assert len(admin.get("/api/v1/audit", params={"until": now().isoformat(), "by": "admin"}).json()) == 4
    assert admin.get("/api/v1/audit", params={"subject": "one"}).json()[0]["details"]["role"] == "operator"
    assert "hsp_" not in admin.get("/api/v1/audit").text


def test_guessing_is_limited_by_name_and_told_in_seconds(app, anyone):
    for _ in range(PER_NAME):
        assert anyone.post("/sign-in", data={"name": "Ann", "password": "guess"}).status_code == 401
    refused = anyone.post("/sign-in", data={"name": "ann ", "password": "guess"})
    assert refused.status_code == 429
    assert 0 < int(refused.headers["retry-after"]) <= WINDOW
    assert anyone.post("/sign-in", data={"name": "bob", "password": "guess"}).status_code == 401


def test_attempts_count_per_address_and_are_forgotten():
    moment = 0.0
    attempts = Attempts(clock=lambda: moment)
    for number in range(PER_ADDRESS):
        attempts.begin(f"name{number}", f"2001:db8::{number:x}")
    with pytest.raises(Problem, match="wait 300 s"):
        attempts.begin("another", "2001:db8::ffff")
    attempts.begin("another", "2001:db8:1::1")
    moment = WINDOW
    attempts.begin("another", "2001:db8::ffff")


def test_success_forgets_the_attempts_of_the_name_alone():
    attempts = Attempts(clock=lambda: 0.0)
    for _ in range(3 * PER_ADDRESS):
        attempts.begin("ann", "192.0.2.1")
        attempts.succeed("ann", "192.0.2.1")
    for number in range(PER_ADDRESS):
        attempts.begin(f"name{number}", "192.0.2.1")
        attempts.succeed("ann", "192.0.2.9")
    with pytest.raises(Problem):
        attempts.begin("ann", "192.0.2.1")


def test_attempts_take_bounded_memory(monkeypatch):
    from hyperspot.service.access import sign_in

    monkeypatch.setattr(sign_in, "MOST_KEYS", 10)
    attempts = Attempts(clock=lambda: 0.0)
    for number in range(100):
        attempts.begin(f"name{number}", f"192.0.2.{number}")
    assert len(attempts._times) == 10


def test_the_form_leads_back_within_the_station_alone(app, anyone):
    page = anyone.get("/sign-in", params={"next": '/review?product=a"><script>'}).text
    assert '"><script>' not in page
    with app.state.station.database.session() as session:
        accounts.create_user(session, "ann", PASSWORD, "admin", "tests")
    for wanted, reached in (("/review?x=1", "/review?x=1"), ("https://evil.example", "/"), ("//evil.example", "/")):
        done = anyone.post("/sign-in", data={"name": "ann", "password": PASSWORD, "next": wanted})
        assert done.headers["location"] == reached
    assert not re.search(r"<script|style=", anyone.get("/sign-in").text)
