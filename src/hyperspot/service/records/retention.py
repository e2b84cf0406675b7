"""Removes old images, by age and by space: those of good parts first, labeled ones and training images never.

Inspections stay.
"""

import logging
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from pathlib import Path

from sqlalchemy import ColumnElement, Select, exists, func, not_, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute

from hyperspot.service.database import Database
from hyperspot.service.database.tables import Inspection, Label, StoredImage, TrainingImage, now
from hyperspot.service.records.image_store import ImageKey, ImageStore
from hyperspot.service.repeating import Repeating

EVERY_SECONDS = 600.0
ORPHAN_SECONDS = 3600.0
"""Age at which a file without an inspection is removed: its request failed, or the station was killed."""
PER_TRANSACTION = 200
PER_QUERY = 500
"""Files that are looked up together."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What is kept.

    Attributes:
        days: None keeps images of any age.
        gigabytes: Of images and anomaly maps; None keeps all.
    """

    days: float | None
    gigabytes: float | None


class Retention:
    """Applies the limits every ten minutes.

    Args:
        database: Of the station.
        images: Its files.
        limits: What is kept.
    """

    def __init__(self, database: Database, images: ImageStore, limits: Limits) -> None:
        self._database, self._images, self._limits = database, images, limits
        self._repeating = Repeating(self.apply, EVERY_SECONDS, "retention waits")

    async def start(self) -> None:
        """Start to apply the limits."""
        await self._repeating.start()

    async def stop(self) -> None:
        """Stop."""
        await self._repeating.stop()

    def apply(self, at: datetime | None = None) -> int:
        """Remove what the limits do not keep; return the number of images."""
        at = at or now()
        removed = 0
        if self._limits.days is not None:
            old = StoredImage.stored_at < at - timedelta(days=self._limits.days)
            while batch := self._oldest(old):
                removed += self._remove(batch, at)
        if self._limits.gigabytes is not None:
            excess = self._bytes() - self._limits.gigabytes * 1e9
            while excess > 0 and (batch := self._oldest()):
                chosen = []
                for image, size in batch:
                    if excess <= 0:
                        break
                    chosen.append((image, size))
                    excess -= size
                removed += self._remove(chosen, at)
        self._remove_orphans()
        if removed:
            log.info("retention removed %d images", removed)
        return removed

    def _oldest(self, also: ColumnElement[bool] | None = None) -> list[tuple[StoredImage, int]]:
        """Return images that may go with their bytes, those of good parts first, then the oldest."""
        is_anomalous = exists().where(Inspection.image_sha256 == StoredImage.sha256, Inspection.is_anomalous.is_(True))
        results = (
            select(func.coalesce(func.sum(Inspection.result_size), 0))
            .where(Inspection.image_sha256 == StoredImage.sha256)
            .scalar_subquery()
        )
        query = (
            select(StoredImage, StoredImage.size + results)
            .where(StoredImage.removed_at.is_(None), not_(is_kept()))
            .order_by(is_anomalous, StoredImage.stored_at)
            .limit(PER_TRANSACTION)
        )
        with self._database.session() as session:
            return [(row[0], int(row[1])) for row in session.execute(query if also is None else query.where(also))]

    def _bytes(self) -> int:
        kept = StoredImage.removed_at.is_(None)
        images = select(func.coalesce(func.sum(StoredImage.size), 0)).where(kept)
        results = (
            select(func.coalesce(func.sum(Inspection.result_size), 0))
            .join(StoredImage, StoredImage.sha256 == Inspection.image_sha256)
            .where(kept)
        )
        with self._database.session() as session:
            return int(session.scalar(images) or 0) + int(session.scalar(results) or 0)

    def _remove(self, batch: list[tuple[StoredImage, int]], at: datetime) -> int:
        """Note the removal, then remove the files: a crash between leaves files that are removed as orphans."""
        removed = 0
        for image, _ in batch:
            with self._database.session() as session:
                # Unless it was inspected again or labeled meanwhile.
                changed = session.execute(
                    update(StoredImage)
                    .where(
                        StoredImage.sha256 == image.sha256,
                        StoredImage.stored_at == image.stored_at,
                        StoredImage.removed_at.is_(None),
                        not_(is_kept()),
                    )
                    .values(removed_at=at)
                ).rowcount  # type: ignore[attr-defined]
                ids = list(session.scalars(select(Inspection.id).where(Inspection.image_sha256 == image.sha256)))
            if changed and self._images.remove(ImageKey(image.sha256, image.suffix)):
                removed += 1
                for inspection_id in ids:
                    self._images.remove_result(inspection_id)
        return removed

    def _remove_orphans(self) -> None:
        """Remove the files that no row names."""
        images = select(StoredImage.sha256).where(StoredImage.removed_at.is_(None))
        for path in self._unnamed(self._images.files(), images, StoredImage.sha256):
            self._images.remove(ImageKey(path.stem, path.suffix))
        kept = select(Inspection.id).join(StoredImage).where(StoredImage.removed_at.is_(None))
        for path in self._unnamed(self._images.result_files(), kept, Inspection.id):
            self._images.remove_result(path.stem)

    def _unnamed(self, files: Iterator[Path], named: Select[str], name: InstrumentedAttribute[str]) -> Iterator[Path]:
        """Yield the files, old enough to be orphans, whose stems a query does not return."""
        newest = time.time() - ORPHAN_SECONDS
        while some := list(islice(files, PER_QUERY)):
            old = [path for path in some if _modified(path) < newest]
            with self._database.session() as session:
                known = set(session.scalars(named.where(name.in_([path.stem for path in old]))))
            yield from (path for path in old if path.stem not in known)


def _modified(path: Path) -> float:
    """Return when a file was written, in seconds since 1970; infinity if it is gone."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return math.inf


def is_kept() -> ColumnElement[bool]:
    """Return the condition that an image of `images` may never be removed: it is labeled, or trained on."""
    labeled = exists().where(
        Inspection.image_sha256 == StoredImage.sha256, Label.inspection_number == Inspection.number
    )
    trained_on = exists().where(TrainingImage.image_sha256 == StoredImage.sha256)
    return or_(labeled.correlate(StoredImage), trained_on.correlate(StoredImage))
