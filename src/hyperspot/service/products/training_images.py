"""The images of good parts that the next training of a product learns."""

from typing import NamedTuple

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session, load_only

from hyperspot.images import read_size
from hyperspot.images.reading import MAX_PIXELS
from hyperspot.service.access.audit import audit
from hyperspot.service.database.tables import Inspection, Label, StoredImage, TrainingImage, now
from hyperspot.service.problems import Problem
from hyperspot.service.products.catalog import get_product
from hyperspot.service.records.image_store import ImageKey, ImageStore
from hyperspot.service.records.receiving import received
from hyperspot.service.review.labels import consensus, labels_of


class Stored(NamedTuple):
    """A training image and the key of its file."""

    image: TrainingImage
    key: ImageKey


def store_image(session: Session, store: ImageStore, content: bytes, *, max_pixels: int = MAX_PIXELS) -> ImageKey:
    """Keep an image, in the store and in the table of images, and return its key.

    Raises:
        ImageError: If it is no image, is damaged at its beginning, or has too many pixels.
    """
    with received(content, max_pixels) as (key, header):
        height, width = read_size(header)
    store.put(key, content)
    known = session.get(StoredImage, key.sha256)
    if known is None:
        session.add(StoredImage(sha256=key.sha256, suffix=key.suffix, size=len(content), width=width, height=height))
    else:
        # Retention counts from now.
        known.removed_at, known.stored_at = None, now()
    session.flush()
    return key


def add(
    session: Session,
    store: ImageStore,
    product_id: str,
    content: bytes,
    who: str,
    *,
    max_pixels: int = MAX_PIXELS,
) -> bool:
    """Add an uploaded image of a good part; return whether it is new.

    Raises:
        ImageError: If it is no image, is damaged at its beginning, or has too many pixels.
        Problem: 404 without the product.
    """
    get_product(session, product_id)
    key = store_image(session, store, content, max_pixels=max_pixels)
    return _add(session, product_id, key.sha256, "uploaded", who)


def addable(session: Session, product_id: str) -> list[Inspection]:
    """Return the inspections that `add_all_reviewed` would add: labeled good by all, and their image is kept."""
    known = select(TrainingImage.image_sha256).where(TrainingImage.product_id == product_id)
    query = (
        select(Inspection)
        .join(StoredImage, StoredImage.sha256 == Inspection.image_sha256)
        .where(
            Inspection.product_id == product_id,
            StoredImage.removed_at.is_(None),
            Inspection.image_sha256.not_in(known),
            Inspection.number.in_(select(Label.inspection_number).where(Label.label == "good")),
        )
        .order_by(Inspection.number)
    )
    found = list(session.scalars(query.options(load_only(Inspection.id, Inspection.image_sha256))))
    labels = labels_of(session, [one.number for one in found])
    good = {one.image_sha256: one for one in found if consensus(labels[one.number]) == "good"}
    return list(good.values())


def add_all_reviewed(session: Session, product_id: str, who: str) -> int:
    """Add the images of all inspections that were labeled good; return how many are new."""
    found = addable(session, product_id)
    # All rows at once: SQLite has one writer, for which the inspections of the line wait.
    for inspection in found:
        image = TrainingImage(
            product_id=product_id, image_sha256=inspection.image_sha256, origin="reviewed", added_by=who
        )
        session.add(image)
        audit(session, who, "training_image.add", product_id, inspection=inspection.id)
    session.flush()
    return len(found)


def of(session: Session, product_id: str) -> list[Stored]:
    """Return the training images of a product, in the order in which they were added."""
    query = (
        select(TrainingImage, StoredImage.suffix)
        .join(StoredImage, StoredImage.sha256 == TrainingImage.image_sha256)
        .where(TrainingImage.product_id == product_id, StoredImage.removed_at.is_(None))
        .order_by(TrainingImage.id)
    )
    return [Stored(image, ImageKey(image.image_sha256, suffix)) for image, suffix in session.execute(query)]


def count(session: Session, product_id: str) -> int:
    """Return the number of training images of a product."""
    query = select(func.count()).select_from(TrainingImage).where(TrainingImage.product_id == product_id)
    return session.scalar(query) or 0


def remove(session: Session, product_id: str, image_sha256: str, who: str) -> None:
    """Take an image out of the training images; its file stays. Raises Problem 404 if it is none of them."""
    found = session.execute(
        delete(TrainingImage)
        .where(TrainingImage.product_id == product_id, TrainingImage.image_sha256 == image_sha256)
        .returning(TrainingImage.id)
    ).all()
    if not found:
        raise unknown(product_id)
    audit(session, who, "training_image.remove", product_id, sha256=image_sha256)


def contains(session: Session, product_id: str, image_sha256: str) -> bool:
    """Whether an image is one of the training images of a product."""
    query = select(TrainingImage.id).where(
        TrainingImage.product_id == product_id, TrainingImage.image_sha256 == image_sha256
    )
    return session.scalar(query) is not None


def unknown(product_id: str) -> Problem:
    """Return the answer about an image that is no training image of a product."""
    return Problem(404, f"product '{product_id}' has no such training image; list them")


def _add(session: Session, product_id: str, image_sha256: str, origin: str, who: str) -> bool:
    if contains(session, product_id, image_sha256):
        return False
    session.add(TrainingImage(product_id=product_id, image_sha256=image_sha256, origin=origin, added_by=who))
    session.flush()
    return True
