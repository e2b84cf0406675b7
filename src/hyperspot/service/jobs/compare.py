"""Compares a candidate with the active version on all labeled inspections."""

from typing import Any, NamedTuple

from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from hyperspot.errors import DataError, ImageError
from hyperspot.model_loading import load_model
from hyperspot.service.database.tables import Inspection, Label, ModelVersion, StoredImage
from hyperspot.service.jobs.base import Finish, JobContext, JobKind, JobParameters
from hyperspot.service.products import catalog
from hyperspot.service.records.image_store import ImageKey
from hyperspot.service.review.comparison import Compared, Decision, compare
from hyperspot.service.review.learning import decided


class CompareParameters(JobParameters):
    """Parameters of `compare`.

    Attributes:
        candidate: Number of the version.
        active: Number of the version to compare with; default: the active one.
    """

    candidate: int = Field(ge=1)
    active: int | None = Field(None, ge=1)


class _Image(NamedTuple):
    number: int
    inspection_id: str
    is_defect: bool
    key: ImageKey


def run(context: JobContext) -> Finish:
    """Compare."""
    parameters: CompareParameters = context.parameters
    product_id = context.product_id
    with context.database.session() as session:
        candidate = catalog.get_version(session, product_id, parameters.candidate)
        if parameters.active is None:
            active = catalog.active_version(session, product_id)
        else:
            active = catalog.get_version(session, product_id, parameters.active)
        if active.id == candidate.id:
            raise DataError(f"version {active.number} would be compared with itself; choose another candidate")
        labeled = _labeled(session, product_id)
    if not labeled:
        raise DataError("no inspection has a label that decides; review some first")
    learned = {digest for version in (active, candidate) for digest in version.made_by.get("images", ())}
    fresh = [image for image in labeled if image.key.sha256 not in learned]
    kept = [image for image in fresh if context.images.path(image.key).exists()]
    by_active = _predict(context, active, kept, "predicting with the active version")
    by_candidate = _predict(context, candidate, kept, "predicting with the candidate")
    rows = [
        Compared(
            image.inspection_id, image.number, image.is_defect, by_active[image.number], by_candidate[image.number]
        )
        for image in kept
        if image.number in by_active and image.number in by_candidate
    ]
    result: dict[str, Any] = {
        "active": active.number,
        "candidate": candidate.number,
        "left_out_as_learned": len(labeled) - len(fresh),
        "left_out_as_unreadable": len(fresh) - len(rows),
        **compare(rows),
    }

    def finish(session: Session) -> dict[str, Any]:
        version = catalog.get_version(session, product_id, candidate.number)
        summary = {name: value for name, value in result.items() if name != "differences"}
        version.figures = {**version.figures, "comparison": {"job": context.job_id, **summary}}
        session.flush()
        return result

    return finish


def _labeled(session: Session, product_id: str) -> list[_Image]:
    """Return the images whose label decides; of several inspections of one image the newest."""
    query = (
        select(Inspection.number, Inspection.id, Inspection.image_sha256, StoredImage.suffix)
        .join(StoredImage, StoredImage.sha256 == Inspection.image_sha256)
        .where(
            Inspection.product_id == product_id,
            StoredImage.removed_at.is_(None),
            Inspection.number.in_(select(Label.inspection_number)),
        )
        .order_by(Inspection.number)
    )
    rows = session.execute(query).all()
    decisions = decided(session, [row.number for row in rows])
    newest = {
        row.image_sha256: _Image(row.number, row.id, decisions[row.number], ImageKey(row.image_sha256, row.suffix))
        for row in rows
        if row.number in decisions
    }
    return list(newest.values())


def _predict(context: JobContext, version: ModelVersion, images: list[_Image], stage: str) -> dict[int, Decision]:
    """Return the decisions of a version on the images that can be read."""
    if version.threshold is None:
        raise DataError(f"version {version.number} has no calibration and decides nothing; recalibrate it")
    predictor = load_model(context.models.file(version).path)
    paths = [context.images.path(image.key) for image in images]
    verdicts = predictor.predict_many(paths, errors="return")
    tracked = context.progress.track(verdicts, stage, len(images))
    return {
        image.number: Decision(verdict.score, verdict.p_value, bool(verdict.is_anomalous))
        for image, verdict in zip(images, tracked, strict=True)
        if not isinstance(verdict, ImageError)
    }


COMPARE = JobKind(CompareParameters, run)
