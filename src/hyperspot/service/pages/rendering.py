"""Renders templates to answers."""

from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hyperspot import __version__
from hyperspot.service.access.identity import Identity
from hyperspot.service.database.tables import Alarm, Inspection, Product
from hyperspot.service.measurements import decision_of
from hyperspot.service.pages.forms import Field
from hyperspot.service.pages.language import LANGUAGES, Translator, choose
from hyperspot.service.products.catalog import list_products

TEMPLATES = Path(__file__).with_name("templates")
THEMES = ("auto", "light", "dark")
PRODUCT_COOKIE, THEME_COOKIE = "hyperspot_product", "hyperspot_theme"
YEAR = 365 * 24 * 3600


def picture(inspection_id: str, kind: str, width: int | None = None) -> str:
    """Return the address of a picture of an inspection."""
    address = f"/pictures/{inspection_id}/{kind}"
    return address if width is None else f"{address}?width={width}"


def when(moment: datetime | None) -> str:
    """Return a time in the zone of the station, or a dash."""
    return "–" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def clock(moment: datetime) -> str:
    """Return the time of day in the zone of the station."""
    return moment.astimezone().strftime("%H:%M:%S")


def query(**values: Any) -> str:
    """Return a query string without empty values."""
    return urlencode({name: value for name, value in values.items() if value not in (None, "")})


def within(address: str) -> str:
    r"""Return a path of the station, whatever was asked for; browsers read `\` as `/` and ignore control characters.

    Examples:
        >>> from hyperspot.service.pages.rendering import within
        >>> [within(address) for address in ("/review?product=bolt", "//evil.example", "/\\evil.example", "https:x")]
        ['/review?product=bolt', '/', '/', '/']

    """
    is_path = address.startswith("/") and not address.startswith(("//", "/\\")) and address.isprintable()
    return address if is_path else "/"


def kind_text(t: Translator, kind: str) -> str:
    """Return the name of a kind of source or output; kinds of plugins go by their own."""
    return t(f"kind.{kind}") if t.has(f"kind.{kind}") else kind


def field_text(t: Translator, kind: str, field: Field, part: str) -> str:
    """Return the title or the description of a setting; settings of plugins go by their own."""
    key = f"form.{kind}.{field.name}.{part}"
    return t(key) if t.has(key) else str(getattr(field, part))


def sentence(text: str) -> str:
    """Return a message with a capital letter: on a page it is a sentence.

    Examples:
        >>> from hyperspot.service.pages.rendering import sentence
        >>> sentence("the camera is gone; check its cable")
        'The camera is gone; check its cable'

    """
    return text[:1].upper() + text[1:]


ENVIRONMENT = Environment(
    loader=FileSystemLoader(TEMPLATES),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.globals.update(
    picture=picture,
    when=when,
    clock=clock,
    decision=decision_of,
    kind_text=kind_text,
    field_text=field_text,
    query=query,
    languages=LANGUAGES,
    themes=THEMES,
    station_version=__version__,
)
ENVIRONMENT.filters["sentence"] = sentence


def translator_of(request: Request, who: Identity | None = None) -> Translator:
    """Return the texts for a request."""
    setting = None if who is None else who.language
    return Translator(choose(setting, request.headers.get("accept-language", "")))


def theme_of(request: Request) -> str:
    """Return the color scheme that was chosen."""
    theme = request.cookies.get(THEME_COOKIE, "")
    return theme if theme in THEMES else THEMES[0]


def fragment(request: Request, who: Identity, template: str, /, **values: Any) -> HTMLResponse:
    """Return a part of a page."""
    return HTMLResponse(_render(request, who, template, **values))


def page(
    request: Request, who: Identity, template: str, session: Session, product: Product | None, /, **values: Any
) -> HTMLResponse:
    """Return a whole page.

    Args:
        request: Of the browser.
        who: Signed in.
        template: Its name; its first part is the section of the navigation.
        session: To read products and alarms.
        product: The chosen one.
        values: Of the template.
    """
    shell = {
        "products": list_products(session),
        "product": product,
        "section": template.partition(".")[0].partition("/")[0],
        "open_alarms": open_alarms(session),
    }
    answer = HTMLResponse(_render(request, who, template, **values | shell))
    if product is not None and request.query_params.get("product") == product.id:
        answer.set_cookie(
            PRODUCT_COOKIE,
            product.id,
            max_age=YEAR,
            samesite="lax",
            httponly=True,
            secure=request.url.scheme == "https",
        )
    return answer


def public_page(request: Request, template: str, /, **values: Any) -> str:
    """Return a page that needs no sign-in."""
    common = {"t": translator_of(request), "theme": theme_of(request)}
    return ENVIRONMENT.get_template(template).render(**common, **values)


def open_alarms(session: Session) -> int:
    """Return the number of alarms that nobody has acknowledged."""
    return session.scalar(select(func.count()).where(Alarm.acknowledged_at.is_(None)).select_from(Alarm)) or 0


def chosen_product(request: Request, session: Session) -> Product | None:
    """Return the product of the address, else the one chosen last, else the first; None if there is none."""
    products = {product.id: product for product in list_products(session)}
    for wanted in (request.query_params.get("product"), request.cookies.get(PRODUCT_COOKIE)):
        if wanted in products:
            return products[wanted]
    return next(iter(products.values()), None)


def places_of(session: Session, product_id: str) -> list[str]:
    """Return the stations that have sent images of a product."""
    rows = session.scalars(
        select(Inspection.station)
        .where(Inspection.product_id == product_id, Inspection.station.is_not(None))
        .distinct()
    )
    return sorted(row for row in rows if row is not None)


def _render(request: Request, who: Identity, template: str, /, **values: Any) -> str:
    t = translator_of(request, who)
    common = {"t": t, "who": who, "theme": theme_of(request), "path": request.url.path}
    return ENVIRONMENT.get_template(template).render(**common, **values)
