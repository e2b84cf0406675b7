"""*Learn*: what the labels say about the models, and new versions."""

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, Response
from markupsafe import Markup
from sqlalchemy.orm import Session

from hyperspot.service.api.dependencies import StationDep
from hyperspot.service.database.tables import ModelVersion, Product
from hyperspot.service.jobs.queue import cancel, enqueue, get_job, list_jobs
from hyperspot.service.pages.charts import Axis, Chart
from hyperspot.service.pages.dependencies import Engineer, EngineerPage
from hyperspot.service.pages.language import Translator
from hyperspot.service.pages.rendering import chosen_product, fragment, page, translator_of
from hyperspot.service.problems import Problem
from hyperspot.service.products import training_images
from hyperspot.service.products.catalog import activate, get_product, roll_back, versions
from hyperspot.service.review.learning import LearningFigures, figures_of

JOBS_SHOWN = 8
RELOAD = Response(status_code=204, headers={"HX-Refresh": "true"})
"""Lets HTMX load the page again."""
router = APIRouter(include_in_schema=False)


@router.get("/learn")
def learn(request: Request, who: EngineerPage, here: StationDep) -> HTMLResponse:
    """Show the page."""
    with here.database.session() as session:
        product = chosen_product(request, session)
        values = {} if product is None else _values(request, session, product)
        return page(request, who, "learn.html", session, product, **values)


@router.get("/learn/jobs")
def jobs(request: Request, who: Engineer, here: StationDep, product: str) -> HTMLResponse:
    """Return the jobs and their progress."""
    with here.database.session() as session:
        values = _job_values(session, get_product(session, product))
        return fragment(request, who, "learn/jobs.html", **values)


@router.get("/learn/versions")
def show_versions(request: Request, who: Engineer, here: StationDep, product: str) -> HTMLResponse:
    """Return the history of versions."""
    with here.database.session() as session:
        chosen = get_product(session, product)
        return fragment(request, who, "learn/versions.html", **_version_values(session, chosen))


@router.post("/learn/start")
def start(
    request: Request,
    who: Engineer,
    here: StationDep,
    product: Annotated[str, Form()],
    kind: Annotated[str, Form()],
    candidate: Annotated[int | None, Form()] = None,
    note: Annotated[str, Form()] = "",
    percent: Annotated[float | None, Form(gt=0, lt=100)] = None,
    short_side: Annotated[int | None, Form(ge=32, le=4096)] = None,
) -> HTMLResponse:
    """Add a job to the queue."""
    parameters: dict[str, Any] = {"candidate": candidate} if kind == "compare" else {"note": note}
    if kind == "train":
        given = {"false_alarm_rate": None if percent is None else percent / 100, "short_side": short_side}
        parameters["settings"] = {name: value for name, value in given.items() if value is not None}
    with here.database.session() as session:
        enqueue(session, kind, product, parameters, who.name)
        values = _job_values(session, get_product(session, product))
    return fragment(request, who, "learn/jobs.html", **values)


@router.post("/learn/cancel/{job_id}")
def cancel_job(request: Request, who: Engineer, here: StationDep, job_id: int, product: str) -> HTMLResponse:
    """Cancel a job."""
    with here.database.session() as session:
        cancel(session, job_id, who.name)
        return fragment(request, who, "learn/jobs.html", **_job_values(session, get_product(session, product)))


@router.post("/learn/add-reviewed")
def add_reviewed(request: Request, who: Engineer, here: StationDep, product: Annotated[str, Form()]) -> HTMLResponse:
    """Add the images of all inspections that were labeled good to the training images."""
    with here.database.session() as session:
        added = training_images.add_all_reviewed(session, product, who.name)
        chosen = get_product(session, product)
        return fragment(request, who, "learn/training.html", added=added, **_training_values(session, chosen))


@router.post("/learn/promote")
async def promote(
    who: Engineer, here: StationDep, product: Annotated[str, Form()], number: Annotated[int, Form()]
) -> Response:
    """Make a version the active one."""
    await here.switch(lambda session: activate(session, product, number, who.name))
    return RELOAD


@router.post("/learn/roll-back")
async def back(who: Engineer, here: StationDep, product: Annotated[str, Form()]) -> Response:
    """Make the version active that was active before."""
    await here.switch(lambda session: roll_back(session, product, who.name))
    return RELOAD


@router.get("/learn/comparison/{job_id}")
def comparison(request: Request, who: EngineerPage, here: StationDep, job_id: int) -> HTMLResponse:
    """Show two versions side by side."""
    with here.database.session() as session:
        job = get_job(session, job_id)
        if job.kind != "compare" or job.state != "done":
            raise Problem(404, f"job {job_id} compared no versions; choose another one")
        product = get_product(session, str(job.product_id))
        return page(request, who, "learn/comparison.html", session, product, job=job, result=job.result)


def _values(request: Request, session: Session, product: Product) -> dict[str, Any]:
    active = None if product.active_version_id is None else session.get(ModelVersion, product.active_version_id)
    figures = None if active is None else figures_of(session, active)
    return {
        "active": active,
        "figures": figures,
        "curve": None if figures is None else trade_off(translator_of(request), figures),
        **_job_values(session, product),
        **_version_values(session, product),
        **_training_values(session, product),
    }


def _job_values(session: Session, product: Product) -> dict[str, Any]:
    return {"product": product, "jobs": list_jobs(session, product.id, JOBS_SHOWN)}


def _version_values(session: Session, product: Product) -> dict[str, Any]:
    return {"product": product, "versions": versions(session, product.id)}


def _training_values(session: Session, product: Product) -> dict[str, Any]:
    return {
        "product": product,
        "training_count": training_images.count(session, product.id),
        "addable": len(training_images.addable(session, product.id)),
    }


def trade_off(t: Translator, figures: LearningFigures) -> Markup | None:
    """Return the chart of detection rate against false-alarm rate; None without labels of both kinds."""
    points = [(one["false_alarm_rate"], one["detection_rate"]) for one in figures.trade_off]
    if not points:
        return None
    shares = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0)
    x = Axis(0.0, 1.0, [(one, t.percent(one, 0)) for one in shares], t("learn.false_alarm_rate"), "root")
    y = Axis(0.0, 1.0, [(one / 4, t.percent(one / 4, 0)) for one in range(5)], t("learn.detection_rate"))
    # Steps: between two thresholds nothing changes.
    steps = [(0.0, 0.0)]
    for rate, detection in points:
        steps += [(rate, steps[-1][1]), (rate, detection)]
    promised = figures.promised_false_alarm_rate
    marks = [] if promised is None else [(promised, t("learn.promised", rate=t.percent(promised)))]
    return Chart(t("learn.curve"), x, y, lines=[(steps, "curve")], marks=marks).svg()
