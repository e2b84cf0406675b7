"""A running station, and a program that speaks with it."""

from contextlib import contextmanager
from types import SimpleNamespace

from hyperspot.service.app import create_app
from hyperspot.service.settings import StationSettings
from hyperspot.service.station import Station
from tests.service.clients import bearer, client_of
from tests.service.conftest import add_active_version

API = "/api/v1"


@contextmanager
def serving(folder, model_file, **changes):
    """Run a station with the product `bolt`; yields the station, its application, and a client for each role."""
    settings = StationSettings(data=folder / "station", port=0, threads=1, **changes)
    settings.data.mkdir(parents=True)
    station = Station(settings)
    station.database.migrate()
    if model_file is not None:
        add_active_version(station, model_file)
    app = create_app(station)
    with client_of(app) as anybody:
        clients = {}
        for role in ("operator", "engineer", "admin"):
            clients[role] = client_of(app)
            # They share the loop in which the station runs.
            clients[role].portal = anybody.portal
            clients[role].headers.update(bearer(station, role))
        yield SimpleNamespace(station=station, app=app, anybody=anybody, **clients)


def inspect(client, image, **query):
    """Inspect an image of a bolt and return the answer."""
    answer = client.post(f"{API}/inspections", params={"product": "bolt", **query}, content=image)
    assert answer.status_code == 200, answer.text
    return answer.json()


def problem(answer, status):
    """Return the sentence of an error, after checks of its form."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    values = answer.json()
    assert values["status"] == status
    assert values["title"]
    return values["detail"]


def run_in(serving, coroutine_function, *arguments):
    """Run a coroutine in the loop of the station."""
    return serving.anybody.portal.call(coroutine_function, *arguments)
