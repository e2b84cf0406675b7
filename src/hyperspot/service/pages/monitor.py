"""*Monitor*: whether the process still is what the model was trained on."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup
from sqlalchemy.orm import Session

from hyperspot.service.api.dependencies import StationDep
from hyperspot.service.database.tables import Product
from hyperspot.service.monitoring.alarms import acknowledge, list_alarms
from hyperspot.service.monitoring.image_checks import CHECKS
from hyperspot.service.monitoring.series import series_of
from hyperspot.service.pages.charts import Axis, Chart, Point, log_axis, number_axis, time_axis
from hyperspot.service.pages.dependencies import Engineer, EngineerPage
from hyperspot.service.pages.language import Translator
from hyperspot.service.pages.rendering import chosen_product, fragment, page, translator_of
from hyperspot.service.products.catalog import get_product, versions

SMALLEST_P = 1e-4
router = APIRouter(include_in_schema=False)


@router.get("/monitor")
def monitor(request: Request, who: EngineerPage, here: StationDep, version: int | None = None) -> HTMLResponse:
    """Show the page."""
    with here.database.session() as session:
        product = chosen_product(request, session)
        if product is None:
            return page(request, who, "monitor.html", session, None)
        values = _values(translator_of(request, who), session, product, version)
        known = versions(session, product.id)
        return page(request, who, "monitor.html", session, product, versions=known, **values)


@router.get("/monitor/panel")
def panel(request: Request, who: Engineer, here: StationDep, product: str, version: int | None = None) -> HTMLResponse:
    """Return the charts."""
    with here.database.session() as session:
        values = _values(translator_of(request, who), session, get_product(session, product), version)
        return fragment(request, who, "monitor/panel.html", **values)


@router.get("/monitor/alarms")
def alarms(request: Request, who: Engineer, here: StationDep) -> HTMLResponse:
    """Return the list of alarms."""
    with here.database.session() as session:
        return fragment(request, who, "monitor/alarms.html", alarms=list_alarms(session, acknowledged=True, limit=30))


@router.post("/monitor/alarms/{alarm_id}")
def acknowledge_alarm(request: Request, who: Engineer, here: StationDep, alarm_id: int) -> HTMLResponse:
    """Note that a person has seen an alarm."""
    with here.database.session() as session:
        acknowledge(session, alarm_id, who.name)
        found = list_alarms(session, acknowledged=True, limit=30)
        answer = fragment(request, who, "monitor/alarms.html", alarms=found)
    here.events.publish("alarm", {"id": alarm_id})
    return answer


def _values(t: Translator, session: Session, product: Product, version: int | None) -> dict[str, Any]:
    found = list_alarms(session, acknowledged=True, limit=30)
    values: dict[str, Any] = {"product": product, "alarms": found, "series": None}
    if version is None and product.active_version_id is None:
        return values
    series = series_of(session, product.id, version)
    return {**values, "series": series, "shown_version": version, "charts": charts_of(t, series)}


def charts_of(t: Translator, series: dict[str, Any]) -> dict[str, Markup]:
    """Return the charts of a version by name; none without inspections."""
    bins = series["bins"]
    if not bins:
        return {}
    times = [datetime.fromisoformat(one["until"]) for one in bins]
    x = time_axis(times)
    at = [one.timestamp() for one in times]
    charts = {
        "scores": _scores(t, series, x, at),
        "p_values": _p_values(t, series, x, at),
        "alarms": _alarm_rate(t, series, x, at),
    }
    for name in CHECKS:
        values = [one[name] for one in bins]
        if any(value is not None for value in values):
            charts[name] = _check(t, name, series["limits"].get(name), x, list(zip(at, values, strict=True)))
    if series["drift"]["points"]:
        charts["drift"] = _drift(t, series["drift"])
    return charts


def _scores(t: Translator, series: dict[str, Any], x: Axis, at: list[float]) -> Markup:
    bins, threshold = series["bins"], series["threshold"]
    names = ("score_low", "score_median", "score_high")
    values = [one[name] for one in bins for name in names]
    y = number_axis(values + ([] if threshold is None else [threshold]), t.number, t("score"))
    lines = [
        (_points(at, [one[name] for one in bins]), "curve" if name == "score_median" else "curve thin")
        for name in names
    ]
    limits = [] if threshold is None else [(threshold, t("threshold"))]
    return Chart(t("monitor.scores"), x, y, lines=lines, limits=limits).svg()


def _p_values(t: Translator, series: dict[str, Any], x: Axis, at: list[float]) -> Markup:
    medians = [one["p_value_median"] for one in series["bins"]]
    lowest = max(SMALLEST_P, min((one for one in medians if one), default=0.1))
    promised = series["promised_false_alarm_rate"]
    y = log_axis(min(lowest, promised or 1.0), t("p_value"))
    limits = [] if promised is None else [(promised, t("learn.promised", rate=t.percent(promised)))]
    return Chart(t("monitor.p_values"), x, y, lines=[(_points(at, medians), "curve")], limits=limits).svg()


def _alarm_rate(t: Translator, series: dict[str, Any], x: Axis, at: list[float]) -> Markup:
    rates = [one["alarm_rate"] for one in series["bins"]]
    promised = series["promised_false_alarm_rate"]
    y = number_axis([*rates, promised or 0.0], lambda value: t.percent(value, 0), zero=True)
    limits = [] if promised is None else [(promised, t("learn.promised", rate=t.percent(promised)))]
    return Chart(t("monitor.alarm_rate"), x, y, lines=[(_points(at, rates), "curve")], limits=limits).svg()


def _check(
    t: Translator, name: str, limits: Sequence[float] | None, x: Axis, points: list[tuple[float, float | None]]
) -> Markup:
    known = [value for _, value in points if value is not None]
    y = number_axis(known + list(limits or ()), t.number)
    lines = [(_points([time for time, _ in points], [value for _, value in points]), "curve")]
    marked = [] if limits is None else [(limit, "") for limit in limits]
    return Chart(t(f"monitor.{name}"), x, y, lines=lines, limits=marked).svg()


def _drift(t: Translator, drift: dict[str, Any]) -> Markup:
    points = [(float(number), float(value)) for number, value in drift["points"]]
    numbers = [number for number, _ in points]
    # At least five wide, so that ticks are whole numbers.
    x = number_axis([*numbers, numbers[0] + 5], lambda value: t.count(round(value)), t("monitor.inspection_number"))
    y = number_axis([value for _, value in points] + [0.0, drift["alarm_at"]], t.number, t("monitor.evidence"))
    limits = [(drift["alarm_at"], t("monitor.drift.alarm"))]
    return Chart(t("monitor.drift"), x, y, lines=[(points, "curve")], limits=limits).svg()


def _points(at: Sequence[float], values: Sequence[float | None]) -> list[Point | None]:
    return [None if value is None else (time, value) for time, value in zip(at, values, strict=True)]
