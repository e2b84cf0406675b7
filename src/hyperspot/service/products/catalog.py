"""Products, and which version of their model is active."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from hyperspot.decision.inspection_plan import InspectionPlan
from hyperspot.errors import HyperspotError
from hyperspot.service.access.audit import audit
from hyperspot.service.database.tables import AuditEntry, ModelVersion, Product
from hyperspot.service.problems import Problem

ID = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
ACTIVATE = "version.activate"


def check_id(product_id: str) -> str:
    """Return an identifier; raises Problem 422 if it is none.

    Examples:
        >>> from hyperspot.service.products.catalog import check_id
        >>> check_id("bolt-m8")
        'bolt-m8'

    """
    if not ID.fullmatch(product_id):
        raise Problem(
            422,
            "a product id has 1 to 64 lower-case letters, digits, '-', '_' and '.', and begins and ends with a "
            "letter or digit",
        )
    return product_id


def create_product(session: Session, product_id: str, name: str, who: str) -> Product:
    """Create a product without a model; raises Problem 409 if the id is taken."""
    check_id(product_id)
    if session.get(Product, product_id) is not None:
        raise Problem(409, f"there is a product '{product_id}' already; choose another id")
    product = Product(id=product_id, name=name.strip() or product_id)
    session.add(product)
    session.flush()
    audit(session, who, "product.create", product_id, name=product.name)
    return product


def change_product(session: Session, product_id: str, who: str, **values: Any) -> Product:
    """Change columns of a product; the audit log names those that differ."""
    product = get_product(session, product_id)
    changed = {name: value for name, value in values.items() if getattr(product, name) != value}
    for name, value in changed.items():
        setattr(product, name, value)
    if changed:
        audit(session, who, "product.change", product_id, **changed)
    return product


def get_product(session: Session, product_id: str) -> Product:
    """Return a product; raises Problem 404 if there is none."""
    product = session.get(Product, product_id) if ID.fullmatch(product_id) else None
    if product is None:
        raise Problem(404, "there is no such product; create it, or check its id")
    return product


def list_products(session: Session, *, archived: bool = False) -> list[Product]:
    """Return the products by name, with those that are archived if wanted."""
    query = select(Product).order_by(Product.name, Product.id)
    return list(session.scalars(query if archived else query.where(Product.is_archived.is_(False))))


def versions(session: Session, product_id: str) -> list[ModelVersion]:
    """Return the versions of a product, the newest first."""
    query = select(ModelVersion).where(ModelVersion.product_id == product_id).order_by(ModelVersion.number.desc())
    return list(session.scalars(query))


def get_version(session: Session, product_id: str, number: int) -> ModelVersion:
    """Return a version by its number; raises Problem 404 if there is none."""
    query = select(ModelVersion).where(ModelVersion.product_id == product_id, ModelVersion.number == number)
    version = session.scalar(query)
    if version is None:
        raise Problem(404, f"product '{product_id}' has no version {number}; list its versions")
    return version


def active_version(session: Session, product_id: str) -> ModelVersion:
    """Return the active version; raises Problem 404 without the product and 409 without an active version."""
    product = get_product(session, product_id)
    version = None if product.active_version_id is None else session.get(ModelVersion, product.active_version_id)
    if version is None or product.is_archived:
        raise inactive(product)
    return version


def inactive(product: Product) -> Problem:
    """Return why a product cannot inspect."""
    if product.is_archived:
        return Problem(409, f"product '{product.id}' is archived; restore it first")
    return Problem(409, f"product '{product.id}' has no active model; train or upload one and activate it")


@dataclass(frozen=True)
class Recipe:
    """How the active version of a product inspects.

    Attributes:
        version_id, version_number, sha256, suffix, false_alarm_rate: Of the version.
        review_share, near_miss: Of the product.
    """

    version_id: int
    version_number: int
    sha256: str
    suffix: str
    false_alarm_rate: float | None
    review_share: float
    near_miss: float


def recipe_of(session: Session, product_id: str) -> Recipe:
    """Return how a product inspects, by one query of short columns; raises Problem as `active_version` does."""
    query = (
        select(
            ModelVersion.id,
            ModelVersion.number,
            ModelVersion.sha256,
            ModelVersion.suffix,
            ModelVersion.false_alarm_rate,
            Product.review_share,
            Product.near_miss,
        )
        .join(Product, Product.active_version_id == ModelVersion.id)
        .where(Product.id == product_id, Product.is_archived.is_(False))
    )
    row = session.execute(query).one_or_none() if ID.fullmatch(product_id) else None
    if row is None:
        raise inactive(get_product(session, product_id))
    return Recipe(*row)


def activate(session: Session, product_id: str, number: int, who: str) -> ModelVersion:
    """Make a version the one that inspects, from the next request on."""
    product = get_product(session, product_id)
    version = get_version(session, product_id, number)
    before = None if product.active_version_id is None else session.get(ModelVersion, product.active_version_id)
    product.active_version_id = version.id
    audit(session, who, ACTIVATE, product_id, number=version.number, before=None if before is None else before.number)
    return version


def roll_back(session: Session, product_id: str, who: str) -> ModelVersion:
    """Activate the version that was active before the current one; raises Problem 409 if there is none.

    Rolling back twice goes two versions back.
    """
    version = active_version(session, product_id)
    query = (
        select(AuditEntry.details)
        .where(AuditEntry.action == ACTIVATE, AuditEntry.subject == product_id)
        .order_by(AuditEntry.id.desc())
    )
    for details in session.scalars(query):
        if details["number"] == version.number and details["before"] is not None and not details.get("rolled_back"):
            before = get_version(session, product_id, details["before"])
            get_product(session, product_id).active_version_id = before.id
            audit(session, who, ACTIVATE, product_id, number=before.number, before=version.number, rolled_back=True)
            return before
    raise Problem(409, f"product '{product_id}' has no earlier active version; activate one by its number")


def checked_plan(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return an inspection plan as JSON values; raises Problem 422 if it cannot be used.

    Examples:
        >>> from hyperspot.service.products.catalog import checked_plan
        >>> checked_plan({"mm_per_pixel": 0.05})
        {'mm_per_pixel': 0.05}

    """
    try:
        return InspectionPlan.from_dict(values).to_dict()
    except (HyperspotError, TypeError, ValueError, AttributeError, KeyError, IndexError, OverflowError) as error:
        raise Problem(422, f"the inspection plan cannot be used: {error}") from None
