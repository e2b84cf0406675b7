"""*Set-up* of sources and outputs: their forms come from the models of their settings."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, Response
from starlette.concurrency import run_in_threadpool

from hyperspot.errors import HyperspotError
from hyperspot.service.access.identity import Identity
from hyperspot.service.api.dependencies import StationDep
from hyperspot.service.connection_rows import (
    add_row,
    change_row,
    get_row,
    list_rows,
    remove_row,
    set_enabled,
)
from hyperspot.service.connections import form_of, public_settings
from hyperspot.service.database.tables import Output, Source
from hyperspot.service.outputs.registry import OUTPUTS
from hyperspot.service.pages.dependencies import Engineer, EngineerPage
from hyperspot.service.pages.forms import fields_of, values_of
from hyperspot.service.pages.rendering import chosen_product, fragment, page
from hyperspot.service.pages.setup import go_to
from hyperspot.service.problems import Problem
from hyperspot.service.products.catalog import list_products
from hyperspot.service.sources.registry import SOURCES
from hyperspot.service.station import Station

Group = Literal["sources", "outputs"]
Row = Source | Output
Table = type[Source] | type[Output]
router = APIRouter(include_in_schema=False)


def table_of(group: Group) -> Table:
    """Return the table of a group."""
    return Source if group == "sources" else Output


@router.get("/setup/{group}")
def connections(request: Request, who: EngineerPage, here: StationDep, group: Group) -> HTMLResponse:
    """Show all sources or all outputs with their status."""
    with here.database.session() as session:
        kinds = list(SOURCES if group == "sources" else OUTPUTS)
        product = chosen_product(request, session)
        values = {"tab": group, "kinds": kinds, **_status_values(here, group)}
        return page(request, who, "setup/connections.html", session, product, **values)


@router.get("/setup/{group}/status")
def status(request: Request, who: Engineer, here: StationDep, group: Group) -> HTMLResponse:
    """Return the list of sources or outputs."""
    return fragment(request, who, "setup/connection_list.html", **_status_values(here, group))


@router.get("/setup/{group}/new")
def new(request: Request, who: EngineerPage, here: StationDep, group: Group, kind: str) -> HTMLResponse:
    """Show the form for a new source or output."""
    return _form_page(request, who, here, group, kind, None)


@router.get("/setup/{group}/{row_id}")
def edit(request: Request, who: EngineerPage, here: StationDep, group: Group, row_id: int) -> HTMLResponse:
    """Show the form of a source or an output."""
    with here.database.session() as session:
        row = get_row(session, table_of(group), row_id)
    return _form_page(request, who, here, group, row.kind, row)


@router.post("/setup/{group}/new")
async def create(request: Request, who: Engineer, here: StationDep, group: Group, kind: str) -> Response:
    """Add a source or an output."""
    settings, product_id, name = await _sent(request, kind)

    def write() -> None:
        with here.database.session() as session:
            add_row(session, table_of(group), name, kind, product_id, settings, who.name)

    await run_in_threadpool(write)
    await _manager(here, group).reload(name.strip())
    return go_to(f"/setup/{group}")


@router.post("/setup/{group}/{row_id}")
async def change(request: Request, who: Engineer, here: StationDep, group: Group, row_id: int) -> Response:
    """Change the settings of a source or an output."""
    row = await run_in_threadpool(_row, here, group, row_id)
    settings, product_id, _ = await _sent(request, row.kind)

    def write() -> None:
        with here.database.session() as session:
            change_row(
                session,
                get_row(session, table_of(group), row_id),
                who.name,
                settings=settings,
                product_id=product_id,
            )

    await run_in_threadpool(write)
    await _manager(here, group).reload(row.name)
    return go_to(f"/setup/{group}")


@router.post("/setup/{group}/{row_id}/enabled")
async def enable(
    request: Request,
    who: Engineer,
    here: StationDep,
    group: Group,
    row_id: int,
    enabled: Annotated[bool, Form()],
) -> HTMLResponse:
    """Start or stop a source or an output."""
    row = await run_in_threadpool(_row, here, group, row_id)

    def write() -> None:
        with here.database.session() as session:
            set_enabled(session, get_row(session, table_of(group), row_id), enabled, who.name)

    await run_in_threadpool(write)
    await _manager(here, group).reload(row.name)
    values = await run_in_threadpool(_status_values, here, group)
    return fragment(request, who, "setup/connection_list.html", **values)


@router.post("/setup/{group}/{row_id}/remove")
async def remove(who: Engineer, here: StationDep, group: Group, row_id: int) -> Response:
    """Remove a source or an output."""
    row = await run_in_threadpool(_row, here, group, row_id)

    def write() -> None:
        with here.database.session() as session:
            remove_row(session, get_row(session, table_of(group), row_id), who.name)

    await run_in_threadpool(write)
    await _manager(here, group).reload(row.name)
    return go_to(f"/setup/{group}")


@router.post("/setup/sources/{row_id}/trigger")
async def trigger(who: Engineer, here: StationDep, row_id: int) -> Response:
    """Let a source take one image, and show its inspection."""
    del who
    row = await run_in_threadpool(_row, here, "sources", row_id)
    inspection = await here.sources.trigger(row.name)
    return go_to(f"/inspections/{inspection.id}")


async def _sent(request: Request, kind: str) -> tuple[dict[str, Any], str | None, str]:
    form = await request.form()
    return values_of(_form_of(kind), form), str(form.get("product", "")) or None, str(form.get("name", ""))


def _form_page(
    request: Request, who: Identity, here: Station, group: Group, kind: str, row: Row | None
) -> HTMLResponse:
    if kind not in (SOURCES if group == "sources" else OUTPUTS):
        raise Problem(404, f"there is no such kind in {group}; choose one that the page offers")
    values = None if row is None else public_settings(kind, row.settings)
    with here.database.session() as session:
        return page(
            request,
            who,
            "setup/connection.html",
            session,
            chosen_product(request, session),
            tab=group,
            kind=kind,
            row=row,
            fields=fields_of(_form_of(kind), values),
            choices=list_products(session),
        )


def _form_of(kind: str) -> Any:
    try:
        return form_of(kind)
    except HyperspotError as error:
        raise Problem(404, str(error)) from None


def _row(here: Station, group: Group, row_id: int) -> Row:
    with here.database.session() as session:
        return get_row(session, table_of(group), row_id)


def _manager(here: Station, group: Group) -> Any:
    return here.sources if group == "sources" else here.outputs


def _status_values(here: Station, group: Group) -> dict[str, Any]:
    states = _manager(here, group).status()
    with here.database.session() as session:
        rows = list_rows(session, table_of(group))
    return {"tab": group, "rows": [(row, states.get(row.name)) for row in rows]}
