"""Trains a new version on the training images of a product."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field
from sqlalchemy.orm import Session

from hyperspot.decision.inspection_plan import InspectionPlan
from hyperspot.errors import DataError, SettingsError
from hyperspot.images import read_image
from hyperspot.service.database.tables import ModelVersion
from hyperspot.service.jobs.base import Finish, JobContext, JobKind, JobParameters
from hyperspot.service.monitoring.image_checks import checks_of, training_statistics
from hyperspot.service.products import catalog, training_images
from hyperspot.utils.optional_packages import explain


class TrainParameters(JobParameters):
    """Parameters of `train`.

    Attributes:
        settings: Of the detector, by name; see `hyperspot.Settings`.
        register_images: Align images to the reference of the inspection plan, or to the first image.
        activate: Make the version active when it is trained.
        note: For people.
    """

    settings: dict[str, Any] = Field(default_factory=dict)
    register_images: bool = False
    activate: bool = False
    note: str = Field("", max_length=500)


def run(context: JobContext) -> Finish:
    """Train."""
    parameters: TrainParameters = context.parameters
    digests, paths = training_paths(context)
    with context.database.session() as session:
        plan = catalog.get_product(session, context.product_id).inspection_plan
    try:
        from hyperspot.detector.detector import Detector
    except ModuleNotFoundError as error:
        raise explain(error, "training in the station") from None
    from hyperspot.detector.settings import make_settings

    detector = Detector.fit(
        paths,
        settings=make_settings(parameters.settings),
        progress=context.progress,
        inspection=None if plan is None else InspectionPlan.from_dict(plan),
        register=parameters.register_images,
    )
    statistics = statistics_of(context, paths)
    file = detector.save(context.folder / "model.safetensors")
    calibration = detector.decision_rule.calibration
    made_by = {
        "job": context.job_id,
        "settings": detector.settings.model_dump(mode="json"),
        "images": digests,
        "register_images": parameters.register_images,
    }

    def finish(session: Session) -> dict[str, Any]:
        version = context.models.add(
            session,
            context.product_id,
            file,
            "trained",
            context.who,
            made_by=made_by,
            training_statistics=statistics,
            note=parameters.note,
        )
        if parameters.activate:
            catalog.activate(session, context.product_id, version.number, context.who)
        return result_of(version, len(digests), calibration.steadiness())

    return finish


def training_paths(context: JobContext) -> tuple[list[str], list[Path]]:
    """Return SHA-256 and file of each training image; raises DataError if there is none, or one is missing."""
    with context.database.session() as session:
        stored = training_images.of(session, context.product_id)
    if not stored:
        raise DataError(f"product '{context.product_id}' has no training image; add images of good parts")
    paths = [context.images.path(one.key) for one in stored]
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        raise DataError(
            f"{len(missing)} training images are missing on the disk, for example {missing[0]}; restore the backup or "
            "remove them from the training images"
        )
    return [one.key.sha256 for one in stored], paths


def statistics_of(context: JobContext, paths: Sequence[Path]) -> dict[str, Any]:
    """Return brightness, focus and position of images, for the monitoring."""
    tracked = context.progress.track(paths, "checking light, focus and position", len(paths))
    return training_statistics([checks_of(read_image(path)) for path in tracked])


def result_of(version: ModelVersion, images: int, steadiness: str) -> dict[str, Any]:
    """Return the result of a job that made a version."""
    return {
        "version": version.number,
        "images": images,
        "calibration_images": version.calibration_images,
        "false_alarm_rate": version.false_alarm_rate,
        "steadiness": steadiness,
    }


def require_model_file(version: ModelVersion) -> None:
    """Raise SettingsError if a version cannot be trained further."""
    if version.suffix != ".safetensors":
        raise SettingsError(
            f"version {version.number} is an exported file, which cannot learn; train a new version, or upload and "
            "activate its model file (.safetensors)"
        )


TRAIN = JobKind(TrainParameters, run)
