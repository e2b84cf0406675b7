"""Products and their settings."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hyperspot.service.access.guard import Engineer, Operator
from hyperspot.service.api.base import Body, Json, ProductId, Text, problems
from hyperspot.service.api.dependencies import StationDep
from hyperspot.service.api.inspecting import ProductText
from hyperspot.service.database.tables import ModelVersion, Product, TrainingImage
from hyperspot.service.problems import Problem
from hyperspot.service.products.catalog import change_product, checked_plan, create_product, get_product, list_products
from hyperspot.service.records.summary import API

router = APIRouter(prefix=f"{API}/products", tags=["products"])


class NewProduct(Body):
    """A product to add."""

    id: Annotated[ProductText, Field(description="Lower-case letters, digits, `-`, `_` and `.`.", examples=["bolt"])]
    name: Annotated[Text | None, Field(description="For people; default: the id.", examples=["Bolt M8"])] = None


class ProductChange(Body):
    """What changes of a product; the rest stays."""

    name: Text | None = None
    review_share: Annotated[
        float | None, Field(ge=0, le=1, description="Share of passed parts that go to review at random.")
    ] = None
    near_miss: Annotated[
        float | None,
        Field(
            ge=0,
            le=1e6,
            description="Passed parts whose p-value is at most this many times the promised rate go to review.",
        ),
    ] = None
    is_archived: Annotated[bool | None, Field(description="Archived products inspect nothing.")] = None


class ProductQuery(Body):
    """Which products."""

    archived: Annotated[bool, Field(description="List archived products, too.")] = False


class ProductAnswer(BaseModel):
    """A product."""

    id: str
    name: str
    active_version: int | None = Field(description="Number of the version that inspects; null if none is active.")
    versions: int = Field(description="How many there are.")
    training_images: int
    review_share: float
    near_miss: float
    has_inspection_plan: bool
    is_archived: bool
    created_at: datetime


@router.get("", summary="List products")
def products(who: Operator, here: StationDep, query: Annotated[ProductQuery, Query()]) -> list[ProductAnswer]:
    """List the products by name."""
    del who
    with here.database.session() as session:
        return _answers(session, list_products(session, archived=query.archived))


@router.post("", status_code=201, summary="Add a product", responses=problems(409, 422))
def add_product(who: Engineer, here: StationDep, body: NewProduct) -> ProductAnswer:
    """Add a product; it inspects once it has an active version."""
    with here.database.session() as session:
        return _answer(session, create_product(session, body.id, body.name or body.id, who.name))


@router.get("/{product_id}", summary="Show a product", responses=problems(404))
def show_product(who: Operator, here: StationDep, product_id: ProductId) -> ProductAnswer:
    """Return a product."""
    del who
    with here.database.session() as session:
        return _answer(session, get_product(session, product_id))


@router.patch("/{product_id}", summary="Change a product", responses=problems(404, 422))
def patch_product(who: Engineer, here: StationDep, product_id: ProductId, body: ProductChange) -> ProductAnswer:
    """Rename a product, change its review, archive or restore it."""
    changes = {name: value for name, value in body.model_dump(exclude_unset=True).items() if value is not None}
    with here.database.session() as session:
        return _answer(session, change_product(session, product_id, who.name, **changes))


@router.get("/{product_id}/inspection-plan", summary="Get the inspection plan", responses=problems(404))
def show_plan(who: Operator, here: StationDep, product_id: ProductId) -> dict[str, Any]:
    """Return regions of interest, zones, scale and rules, as `InspectionPlan.from_dict` reads them."""
    del who
    with here.database.session() as session:
        plan = get_product(session, product_id).inspection_plan
    if plan is None:
        raise Problem(404, f"product '{product_id}' has no inspection plan; it inspects whole images")
    return plan


@router.put("/{product_id}/inspection-plan", summary="Set the inspection plan", responses=problems(404, 422))
def put_plan(who: Engineer, here: StationDep, product_id: ProductId, body: Json) -> dict[str, Any]:
    """Set regions of interest, zones, scale and rules; the next training uses them."""
    with here.database.session() as session:
        return change_product(session, product_id, who.name, inspection_plan=checked_plan(body)).inspection_plan or {}


@router.delete(
    "/{product_id}/inspection-plan",
    status_code=204,
    response_model=None,
    summary="Remove the inspection plan",
    responses=problems(404),
)
def delete_plan(who: Engineer, here: StationDep, product_id: ProductId) -> None:
    """Remove the inspection plan; the next training learns whole images."""
    with here.database.session() as session:
        change_product(session, product_id, who.name, inspection_plan=None)


def _answer(session: Session, product: Product) -> ProductAnswer:
    return _answers(session, [product])[0]


def _answers(session: Session, found: list[Product]) -> list[ProductAnswer]:
    ids = [product.id for product in found]
    versions: dict[str, int] = dict(
        session.execute(
            select(ModelVersion.product_id, func.count())
            .where(ModelVersion.product_id.in_(ids))
            .group_by(ModelVersion.product_id)
        ).all()
    )
    images: dict[str, int] = dict(
        session.execute(
            select(TrainingImage.product_id, func.count())
            .where(TrainingImage.product_id.in_(ids))
            .group_by(TrainingImage.product_id)
        ).all()
    )
    active: dict[int, int] = dict(
        session.execute(
            select(ModelVersion.id, ModelVersion.number).where(
                ModelVersion.id.in_([product.active_version_id for product in found])
            )
        ).all()
    )
    return [
        ProductAnswer(
            id=product.id,
            name=product.name,
            active_version=None if product.active_version_id is None else active.get(product.active_version_id),
            versions=versions.get(product.id, 0),
            training_images=images.get(product.id, 0),
            review_share=product.review_share,
            near_miss=product.near_miss,
            has_inspection_plan=product.inspection_plan is not None,
            is_archived=product.is_archived,
            created_at=product.created_at,
        )
        for product in found
    ]
