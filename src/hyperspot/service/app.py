"""The web application of a station."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from hyperspot import __version__
from hyperspot.service import api, pages
from hyperspot.service.access import routes, sign_in_routes
from hyperspot.service.access.middleware import Gate
from hyperspot.service.access.sign_in import Attempts
from hyperspot.service.api.openapi import complete_openapi
from hyperspot.service.problems import handle_problems
from hyperspot.service.request_log import RequestLog
from hyperspot.service.station import Station


def create_app(station: Station) -> FastAPI:
    """Return the application that serves a station; it starts and stops the station with itself."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        del app
        await station.start()
        try:
            yield
        finally:
            await station.stop()

    app = FastAPI(
        title="hyperspot station",
        version=__version__,
        lifespan=lifespan,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.station = station
    app.state.attempts = Attempts()
    handle_problems(app)
    app.include_router(routes.router)
    app.include_router(sign_in_routes.router)
    for router in (*api.ROUTERS, *pages.ROUTERS):
        app.include_router(router)
    app.mount("/static", StaticFiles(directory=pages.STATIC), name="static")
    complete_openapi(app)
    app.add_middleware(Gate, settings=station.settings)
    # Added last, it is the outermost: refused requests are logged as well.
    app.add_middleware(RequestLog)
    return app
