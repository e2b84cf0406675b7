"""Imports an uploaded archive: good training images to learn, labeled images as labeled inspections."""

import io
import uuid
import warnings
from pathlib import Path
from typing import Any

from PIL import Image
from pydantic import Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from hyperspot.data import Dataset, Sample, load_mask, open_dataset
from hyperspot.errors import DataError, HyperspotError, ImageError
from hyperspot.model_loading import load_model
from hyperspot.predictor import Predictor
from hyperspot.service.access.audit import audit
from hyperspot.service.database.tables import Inspection, ModelVersion, Product, now
from hyperspot.service.inference.outcome import outcome_of
from hyperspot.service.jobs.archives import archive_path, unpack
from hyperspot.service.jobs.base import Finish, JobContext, JobKind, JobParameters
from hyperspot.service.monitoring.image_checks import checks_of
from hyperspot.service.products import training_images
from hyperspot.service.records.image_store import result_content
from hyperspot.service.records.receiving import received
from hyperspot.service.review.labels import add_label
from hyperspot.service.review.learning import IMPORTED

TABLE_COLUMNS = {"path", "split", "label"}
NAMED = 20
"""Problems that the result lists at most."""


class ImportParameters(JobParameters):
    """Parameters of `import`.

    Attributes:
        upload: SHA-256 of an archive, by `archives.keep_archive`.
        layout: Of the data set in it; `auto` recognizes it.
        category: The product, if it holds several.
    """

    upload: str = Field(pattern="^[0-9a-f]{64}$")
    layout: str = "auto"
    category: str | None = None


def run(context: JobContext) -> Finish:
    """Import; every image is kept as it comes, so that a job that is started again goes on."""
    parameters: ImportParameters = context.parameters
    archive = archive_path(context.settings.data, parameters.upload)
    if not archive.exists():
        raise DataError("the uploaded archive is not there any more; upload it again")
    folder = context.folder / "images"
    unpack(archive, folder, track=lambda files: list(context.progress.track(files, "unpacking", len(files))))
    try:
        dataset = open_dataset(_table_in(folder, parameters.layout) or folder, parameters.layout, parameters.category)
    except DataError as error:
        raise DataError(_without(folder, str(error))) from None
    _require_inside(folder, dataset)
    problems = [_without(folder, problem) for problem in dataset.problems]
    learned = _add_training_images(context, dataset, problems)
    labeled, skipped = _add_labeled(context, dataset, problems)
    result: dict[str, Any] = {
        "layout": dataset.layout,
        "training_images": learned,
        "labeled_inspections": labeled,
        "labeled_without_a_model": skipped,
        "problems": problems[:NAMED],
        "more_problems": max(0, len(problems) - NAMED),
    }

    def finish(session: Session) -> dict[str, Any]:
        audit(session, context.who, "images.import", context.product_id, upload=parameters.upload, **_counts(result))
        return result

    return finish


def _table_in(folder: Path, layout: str) -> Path | None:
    """Return the CSV table that lists the images, if there is one: `open_dataset` takes the file, not its folder."""
    if layout not in ("auto", "csv"):
        return None
    inner = list(folder.iterdir())
    while len(inner) == 1 and inner[0].is_dir():
        inner = list(inner[0].iterdir())
    tables = [path for path in inner if path.suffix.lower() == ".csv"]
    if layout == "auto":
        tables = [table for table in tables if TABLE_COLUMNS.issubset(_columns(table))]
    return tables[0] if len(tables) == 1 else None


def _columns(table: Path) -> list[str]:
    with table.open(encoding="utf-8-sig", errors="replace") as file:
        return [name.strip().strip('"').lower() for name in file.readline().replace(";", ",").split(",")]


def _require_inside(folder: Path, dataset: Dataset) -> None:
    """Raise DataError if a table or manifest of the archive names a file of the station."""
    root = folder.resolve()
    for sample in dataset.samples:
        for path in (sample.path, *sample.masks):
            if not path.resolve().is_relative_to(root):
                raise DataError("a table in the archive names a file outside of the archive; name its own files alone")


def _counts(result: dict[str, Any]) -> dict[str, int]:
    return {name: value for name, value in result.items() if isinstance(value, int)}


def _add_training_images(context: JobContext, dataset: Dataset, problems: list[str]) -> int:
    """Add the good training images and return how many are new."""
    added = 0
    for sample in context.progress.track(dataset.train, "adding training images", len(dataset.train)):
        try:
            with context.database.session() as session:
                content = sample.path.read_bytes()
                added += training_images.add(
                    session,
                    context.images,
                    context.product_id,
                    content,
                    context.who,
                    max_pixels=context.settings.max_pixels,
                )
        except ImageError as error:
            problems.append(f"{_name(dataset, sample)}: {error}")
    return added


def _add_labeled(context: JobContext, dataset: Dataset, problems: list[str]) -> tuple[int, int]:
    """Inspect the labeled images; return how many are new, and how many there were without an active version."""
    samples = dataset.test
    with context.database.session() as session:
        product = session.get(Product, context.product_id)
        active = None if product is None else product.active_version_id
        version = None if active is None else session.get(ModelVersion, active)
    if not samples or version is None:
        return 0, len(samples)
    predictor = load_model(context.models.file(version).path)
    added = 0
    for sample in context.progress.track(samples, "inspecting labeled images", len(samples)):
        try:
            added += _inspect(context, predictor, version, sample)
        except HyperspotError as error:
            problems.append(f"{_name(dataset, sample)}: {_without(dataset.root, str(error))}")
    return added, 0


def _inspect(context: JobContext, predictor: Predictor, version: ModelVersion, sample: Sample) -> bool:
    """Record an inspection with its label; return whether it is new."""
    content = sample.path.read_bytes()
    with received(content, context.settings.max_pixels) as (key, _):
        pass
    idempotency_key = f"import:{version.number}:{key.sha256}"
    known = select(Inspection.id).where(
        Inspection.product_id == context.product_id, Inspection.idempotency_key == idempotency_key
    )
    with context.database.session() as session:
        if session.scalar(known) is not None:
            return False
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        verdict = predictor.predict(content)
    outcome = outcome_of(verdict, checks_of(verdict.image))
    mask = load_mask(sample, outcome.height, outcome.width) if sample.label == 1 else None
    inspection_id = uuid.uuid4().hex
    result = result_content(outcome)
    context.images.put_result(inspection_id, result)
    with context.database.session() as session:
        training_images.store_image(session, context.images, content, max_pixels=context.settings.max_pixels)
        inspection = Inspection(
            id=inspection_id,
            product_id=context.product_id,
            version_id=version.id,
            version_number=version.number,
            image_sha256=key.sha256,
            idempotency_key=idempotency_key,
            source=IMPORTED,
            received_at=now(),
            result_size=len(result),
            **outcome.columns(),
        )
        session.add(inspection)
        session.flush()
        drawn = None
        if mask is not None and mask.any():
            png = io.BytesIO()
            Image.fromarray(mask).save(png, format="PNG")
            drawn = png.getvalue()
        label = "good" if sample.label == 0 else "defect"
        add_label(session, inspection, context.who, label, drawn, "" if label == "good" else sample.defect)
    return True


def _name(dataset: Dataset, sample: Sample) -> str:
    return sample.path.relative_to(dataset.root if dataset.root.is_dir() else dataset.root.parent).as_posix()


def _without(folder: Path, message: str) -> str:
    """Return a message without the temporary folder."""
    for one in (folder, folder.resolve()):
        message = message.replace(f"{one}/", "").replace(str(one), "the archive")
    return message


IMPORT = JobKind(ImportParameters, run)
