"""The pages: what people see and do in a browser."""

from pathlib import Path

from hyperspot.service.pages import (
    events,
    inspections,
    learn,
    live,
    monitor,
    people,
    pictures,
    review,
    setup,
    setup_connections,
)

STATIC = Path(__file__).with_name("static")
# Before connections, whose addresses have a name in the same place.
MODULES = (live, inspections, review, learn, monitor, setup, people, setup_connections, pictures, events)
ROUTERS = tuple(module.router for module in MODULES)
