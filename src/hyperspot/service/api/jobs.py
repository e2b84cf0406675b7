"""Jobs: training, updates, imports and comparisons."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from hyperspot.errors import DataError
from hyperspot.service.access.guard import Engineer, Operator
from hyperspot.service.api.base import Body, Id, Json, ShortText, problems
from hyperspot.service.api.dependencies import StationDep
from hyperspot.service.api.forms import BINARY, files_of, form_body, require_form
from hyperspot.service.api.inspecting import ProductText
from hyperspot.service.database.tables import Job
from hyperspot.service.finishing import in_thread
from hyperspot.service.jobs.archives import keep_archive
from hyperspot.service.jobs.queue import cancel, describe, enqueue, get_job, list_jobs
from hyperspot.service.problems import Problem
from hyperspot.service.products.catalog import get_product
from hyperspot.service.records.summary import API

router = APIRouter(prefix=API, tags=["jobs"])


class NewJob(Body):
    """A job to start."""

    kind: Annotated[ShortText, Field(description="`train`, `update`, `compare` or `import`.", examples=["train"])]
    product: Annotated[ProductText, Field(description="Id of the product.", examples=["bolt"])]
    parameters: Annotated[
        Json,
        Field(
            description="`train`: `settings`, `register_images`, `activate`, `note`. `update`: `activate`, `note`. "
            "`compare`: `candidate`, `active` (numbers of versions). `import`: `upload`, `layout`, `category`.",
            examples=[{"settings": {"false_alarm_rate": 0.01}}],
        ),
    ] = {}  # noqa: RUF012 - pydantic copies it


class JobQuery(Body):
    """Which jobs."""

    product: ProductText | None = None
    limit: Annotated[int, Field(ge=1, le=500)] = 50


class JobAnswer(BaseModel):
    """A job."""

    id: int
    kind: str
    product: str | None
    parameters: dict[str, Any]
    state: str = Field(description="`queued`, `running`, `done`, `failed` or `canceled`.")
    progress: dict[str, Any] = Field(description="`stage`, `done`, `total` and `seconds_left` while it runs.")
    result: dict[str, Any] = Field(description="Of a job that is done, by its kind.")
    error: str | None = Field(description="One sentence, of a job that failed.")
    attempts: int
    cancel_requested: bool
    created_by: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class Upload(BaseModel):
    """An uploaded archive."""

    upload: str = Field(description="SHA-256; the parameter `upload` of a job `import`.")


@router.get("/jobs", summary="List jobs", responses=problems(404))
def jobs(who: Operator, here: StationDep, query: Annotated[JobQuery, Query()]) -> list[JobAnswer]:
    """List jobs, the newest first."""
    del who
    with here.database.session() as session:
        if query.product is not None:
            get_product(session, query.product)
        return [_answer(job) for job in list_jobs(session, query.product, query.limit)]


@router.post("/jobs", status_code=201, summary="Start a job", responses=problems(404, 422, 429))
async def start_job(who: Engineer, here: StationDep, body: NewJob) -> JobAnswer:
    """Add a job to the queue; jobs run one after the other, in processes of their own."""

    def add() -> JobAnswer:
        with here.database.session() as session:
            return _answer(enqueue(session, body.kind, body.product, body.parameters, who.name))

    answer = await in_thread(add)
    here.jobs.notify()
    return answer


@router.get("/jobs/{job_id}", summary="Show a job", responses=problems(404, 422))
def show_job(who: Operator, here: StationDep, job_id: Id) -> JobAnswer:
    """Return a job with its progress, or its result."""
    del who
    with here.database.session() as session:
        return _answer(get_job(session, job_id))


@router.post("/jobs/{job_id}/cancel", summary="Cancel a job", responses=problems(404, 409, 422))
async def cancel_job(who: Engineer, here: StationDep, job_id: Id) -> JobAnswer:
    """Cancel a job: at once if it waits, within seconds if it runs."""

    def change() -> JobAnswer:
        with here.database.session() as session:
            return _answer(cancel(session, job_id, who.name))

    answer = await in_thread(change)
    here.jobs.notify()
    return answer


@router.post(
    "/uploads",
    status_code=201,
    summary="Upload an archive of images",
    responses=problems(400, 413, 415, 422),
    openapi_extra=form_body({"archive": BINARY}, ["archive"], text="A ZIP archive of a data set."),
)
async def upload_archive(request: Request, who: Engineer, here: StationDep) -> Upload:
    """Upload a ZIP archive of images, in any layout of data sets that hyperspot reads; the job `import` takes it."""
    del who
    require_form(request)
    async with request.form(max_files=1, max_fields=10) as form:
        file = files_of(form, "archive")[0].file
        try:
            digest = await in_thread(keep_archive, here.settings.data, file, here.settings.max_upload)
        except DataError as error:
            raise Problem(422, str(error)) from None
    return Upload(upload=digest)


def _answer(job: Job) -> JobAnswer:
    return JobAnswer(**describe(job))
