"""Sources of images and outputs of verdicts."""

import contextlib
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from hyperspot.errors import SettingsError
from hyperspot.service.access.guard import Engineer, Operator
from hyperspot.service.api.answers import InspectionAnswer, answer_of
from hyperspot.service.api.base import Body, Json, ShortText, Text, problems
from hyperspot.service.api.dependencies import StationDep
from hyperspot.service.api.inspecting import ProductText
from hyperspot.service.connection_rows import add_row, change_row, list_rows, named_row, remove_row, set_enabled
from hyperspot.service.connections import public_settings
from hyperspot.service.database.tables import Output, Source
from hyperspot.service.finishing import in_thread
from hyperspot.service.outputs import OUTPUTS
from hyperspot.service.problems import Problem
from hyperspot.service.records.summary import API
from hyperspot.service.sources import SOURCES
from hyperspot.service.station import Station

Name = Annotated[str, Path(max_length=100, description="Of the source or output.", examples=["camera 1"])]
ForSettings = Field(description="By the kind, see `/kinds`; a secret is answered as `********`, and kept if sent so.")


class NewConnection(Body):
    """A source or an output to add."""

    name: Annotated[ShortText, Field(examples=["camera 1"])]
    kind: ShortText
    product: Annotated[ProductText | None, Field(description="Id; null for outputs of all products.")] = None
    settings: Annotated[Json, ForSettings] = {}  # noqa: RUF012 - pydantic copies it
    is_enabled: bool = True


class ConnectionChange(Body):
    """What changes of a source or an output; the rest stays."""

    product: Annotated[ProductText | None, Field(description="Id; null for outputs of all products.")] = None
    settings: Annotated[Json | None, ForSettings] = None
    is_enabled: bool | None = None


class ConnectionAnswer(BaseModel):
    """A source or an output."""

    name: str
    kind: str
    product: str | None
    settings: dict[str, Any]
    is_enabled: bool
    status: dict[str, Any] | None = Field(description="`state`, `last_error` and counts; null if it is disabled.")
    created_at: datetime


class TriggerBody(Body):
    """About the part in front of the camera."""

    serial_number: Text | None = None
    product: Annotated[ProductText | None, Field(description="Default: the product of the source.")] = None


@contextlib.contextmanager
def _settings_checked() -> Iterator[None]:
    try:
        yield
    except SettingsError as error:
        raise Problem(422, str(error)) from None


def _router(table: type[Source] | type[Output], word: str, status: Callable[[Station], dict[str, Any]]) -> APIRouter:
    """Return the routes that sources and outputs have in common."""
    router = APIRouter(prefix=f"{API}/{word}s", tags=[f"{word}s"])
    kinds = SOURCES if table is Source else OUTPUTS

    def answer(here: Station, row: Source | Output) -> ConnectionAnswer:
        return ConnectionAnswer(
            name=row.name,
            kind=row.kind,
            product=row.product_id,
            settings=public_settings(row.kind, row.settings),
            is_enabled=row.is_enabled,
            status=status(here).get(row.name),
            created_at=row.created_at,
        )

    async def reload(here: Station, name: str) -> None:
        await (here.sources if table is Source else here.outputs).reload(name)

    @router.get(
        "",
        summary=f"List {word}s",
        description=f"List all {word}s by name, with their status.",
        operation_id=f"list_{word}s",
    )
    def list_all(who: Operator, here: StationDep) -> list[ConnectionAnswer]:
        del who
        with here.database.session() as session:
            rows = list_rows(session, table)
        return [answer(here, row) for row in rows]

    @router.get(
        "/kinds",
        summary=f"List kinds of {word}s",
        description=f"Return the JSON schema of the settings of each kind of {word}.",
        operation_id=f"list_{word}_kinds",
    )
    def list_kinds(who: Operator) -> dict[str, dict[str, Any]]:
        del who
        return {kind: kinds[kind].form.model_json_schema() for kind in kinds}

    @router.post(
        "",
        status_code=201,
        summary=f"Add a {word}",
        description=f"Add a {word}; it starts at once if it is enabled.",
        operation_id=f"add_{word}",
        responses=problems(404, 409, 422),
    )
    async def add(who: Engineer, here: StationDep, body: NewConnection) -> ConnectionAnswer:
        def write() -> Source | Output:
            with here.database.session() as session, _settings_checked():
                return add_row(
                    session,
                    table,
                    body.name,
                    body.kind,
                    body.product,
                    body.settings,
                    who.name,
                    is_enabled=body.is_enabled,
                )

        row = await in_thread(write)
        await reload(here, row.name)
        return await in_thread(answer, here, row)

    @router.get(
        "/{name}",
        summary=f"Show a {word}",
        description=f"Return a {word} with its status.",
        operation_id=f"show_{word}",
        responses=problems(404, 422),
    )
    def show(who: Operator, here: StationDep, name: Name) -> ConnectionAnswer:
        del who
        with here.database.session() as session:
            row = named_row(session, table, name)
        return answer(here, row)

    @router.patch(
        "/{name}",
        summary=f"Change a {word}",
        description=f"Change product or settings of a {word}, start or stop it.",
        operation_id=f"change_{word}",
        responses=problems(404, 422),
    )
    async def change(who: Engineer, here: StationDep, name: Name, body: ConnectionChange) -> ConnectionAnswer:
        def write() -> Source | Output:
            with here.database.session() as session, _settings_checked():
                row = named_row(session, table, name)
                if body.settings is not None or "product" in body.model_fields_set:
                    product = body.product if "product" in body.model_fields_set else row.product_id
                    settings = row.settings if body.settings is None else body.settings
                    change_row(session, row, who.name, settings=settings, product_id=product)
                if body.is_enabled is not None and body.is_enabled != row.is_enabled:
                    set_enabled(session, row, body.is_enabled, who.name)
                return row

        row = await in_thread(write)
        await reload(here, row.name)
        return await in_thread(answer, here, row)

    @router.delete(
        "/{name}",
        status_code=204,
        response_model=None,
        summary=f"Remove a {word}",
        description=f"Remove a {word}; an output with the verdicts that wait for it.",
        operation_id=f"remove_{word}",
        responses=problems(404, 422),
    )
    async def remove(who: Engineer, here: StationDep, name: Name) -> None:
        def write() -> None:
            with here.database.session() as session:
                remove_row(session, named_row(session, table, name), who.name)

        await in_thread(write)
        await reload(here, name)

    return router


sources = _router(Source, "source", lambda here: here.sources.status())
outputs = _router(Output, "output", lambda here: here.outputs.status())


@sources.post(
    "/{name}/trigger",
    summary="Take an image and inspect it",
    responses=problems(404, 409, 413, 415, 422, 429, 503, 504),
)
async def trigger(who: Operator, here: StationDep, name: Name, body: TriggerBody | None = None) -> InspectionAnswer:
    """Have a source take one image now, and inspect it."""
    del who
    asked = body or TriggerBody()
    return answer_of(await here.sources.trigger(name, asked.serial_number, asked.product))


@outputs.post(
    "/{name}/retry",
    status_code=204,
    response_model=None,
    summary="Send refused verdicts again",
    responses=problems(404),
)
async def retry(who: Engineer, here: StationDep, name: Name) -> None:
    """Send the verdicts again that were set aside because the receiver refused them."""
    del who

    def check() -> None:
        with here.database.session() as session:
            named_row(session, Output, name)

    await in_thread(check)
    await here.outputs.retry_refused(name)
