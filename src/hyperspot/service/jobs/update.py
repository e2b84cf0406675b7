"""Lets the active version learn the training images that it does not know, without those before."""

from typing import Any

from pydantic import Field
from sqlalchemy.orm import Session

from hyperspot.errors import DataError
from hyperspot.service.jobs.base import Finish, JobContext, JobKind, JobParameters
from hyperspot.service.jobs.train import require_model_file, result_of, statistics_of, training_paths
from hyperspot.service.products import catalog
from hyperspot.utils.optional_packages import explain


class UpdateParameters(JobParameters):
    """Parameters of `update`.

    Attributes:
        activate: Make the version active when it is updated.
        note: For people.
    """

    activate: bool = False
    note: str = Field("", max_length=500)


def run(context: JobContext) -> Finish:
    """Update."""
    parameters: UpdateParameters = context.parameters
    with context.database.session() as session:
        before = catalog.active_version(session, context.product_id)
    require_model_file(before)
    digests, paths = training_paths(context)
    learned = set(before.made_by.get("images", ()))
    new = [(digest, path) for digest, path in zip(digests, paths, strict=True) if digest not in learned]
    if not new:
        raise DataError(
            f"version {before.number} knows all {len(digests)} training images; add reviewed good images first"
        )
    try:
        from hyperspot.detector.detector import Detector
    except ModuleNotFoundError as error:
        raise explain(error, "updating a model in the station") from None
    detector = Detector.load(context.models.file(before).path)
    updated = detector.update([path for _, path in new], progress=context.progress)
    file = updated.save(context.folder / "model.safetensors")
    statistics = statistics_of(context, paths)
    assert updated.new_images is not None
    odd = [new[index][0] for index in updated.new_images.odd]
    made_by = {
        "job": context.job_id,
        "updated_from": before.number,
        "settings": updated.settings.model_dump(mode="json"),
        "images": [*before.made_by.get("images", ()), *(digest for digest, _ in new)],
    }
    steadiness = updated.decision_rule.calibration.steadiness()

    def finish(session: Session) -> dict[str, Any]:
        version = context.models.add(
            session,
            context.product_id,
            file,
            "updated",
            context.who,
            made_by=made_by,
            training_statistics=statistics,
            note=parameters.note,
        )
        if parameters.activate:
            catalog.activate(session, context.product_id, version.number, context.who)
        return result_of(version, len(new), steadiness) | {
            "updated_from": before.number,
            "odd_images": odd,
            "is_shifted": updated.new_images.is_shifted if updated.new_images else False,
        }

    return finish


UPDATE = JobKind(UpdateParameters, run)
