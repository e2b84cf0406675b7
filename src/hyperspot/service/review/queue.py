"""Which inspections a reviewer looks at next."""

from sqlalchemy import ColumnElement, and_, case, exists, func, select
from sqlalchemy.orm import Session, aliased

from hyperspot.service.database.tables import Inspection, Label, StoredImage

REASONS = ("alarm", "near-miss", "sample")
"""In the order of review."""


def next_inspections(session: Session, product_id: str | None, reviewer: str, limit: int = 20) -> list[Inspection]:
    """Return inspections for review: alarms, then near misses, then the random sample of passes; the newest first.

    What nobody has labeled comes before second opinions, and a disagreement before other second opinions. Inspections
    that this reviewer has labeled, and those whose image is not kept, are left out.

    Args:
        session: To read with.
        product_id: None takes all products.
        reviewer: Name of the user.
        limit: Inspections at most.
    """
    seen = exists().where(Label.inspection_number == Inspection.number)
    order = case({reason: rank for rank, reason in enumerate(REASONS)}, value=Inspection.review_reason, else_=9)
    opinion = case((~seen, 0), (_is_disputed(), 1), else_=2)
    query = (
        select(Inspection)
        .join(StoredImage, StoredImage.sha256 == Inspection.image_sha256)
        .where(*_waiting(product_id, reviewer))
        .order_by(opinion, order, Inspection.number.desc())
        .limit(limit)
    )
    return list(session.scalars(query))


def count_waiting(session: Session, product_id: str | None, reviewer: str) -> dict[str, int]:
    """Return how many inspections without any label wait for review, by their reason."""
    seen = exists().where(Label.inspection_number == Inspection.number)
    query = (
        select(Inspection.review_reason, func.count())
        .join(StoredImage, StoredImage.sha256 == Inspection.image_sha256)
        .where(*_waiting(product_id, reviewer), ~seen)
        .group_by(Inspection.review_reason)
    )
    counts = dict(session.execute(query).all())
    return {reason: counts.get(reason, 0) for reason in REASONS}


def _waiting(product_id: str | None, reviewer: str) -> list[ColumnElement[bool]]:
    mine = exists().where(Label.inspection_number == Inspection.number, Label.reviewer == reviewer)
    conditions = [Inspection.review_reason.in_(REASONS), StoredImage.removed_at.is_(None), ~mine]
    return conditions if product_id is None else [*conditions, Inspection.product_id == product_id]


def _is_disputed() -> ColumnElement[bool]:
    """Whether the newest labels of other reviewers contradict each other."""
    return and_(says("defect"), says("good"))


def says(label: str) -> ColumnElement[bool]:
    """Return the condition that the newest label of some reviewer of an inspection is this one."""
    said, later = aliased(Label), aliased(Label)
    changed = exists().where(
        later.inspection_number == said.inspection_number, later.reviewer == said.reviewer, later.id > said.id
    )
    return exists().where(said.inspection_number == Inspection.number, said.label == label, ~changed)
