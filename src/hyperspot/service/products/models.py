"""The files of models: content-addressed, checked by opening them, never changed."""

import hashlib
import io
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from hyperspot.decision.planning import has_groups
from hyperspot.errors import ModelFileError
from hyperspot.model_loading import load_model
from hyperspot.runtime.exported_file import SUFFIXES as EXPORTED
from hyperspot.runtime.exported_file import view_files, weights_file
from hyperspot.service.access.audit import audit
from hyperspot.service.database.tables import ModelVersion
from hyperspot.service.problems import Problem
from hyperspot.utils.atomic_files import sync
from hyperspot.utils.zip_damage import DAMAGED, damage_of

MOST_BYTES = 4_000_000_000
"""Of the files of a model; a small archive can unpack to more than the disk holds."""
STEM = "model"


@dataclass(frozen=True)
class ModelFile:
    """What a worker opens.

    Attributes:
        sha256: Of its content; equal models are loaded once.
        path: Of its first file.
    """

    sha256: str
    path: Path


class ModelStore:
    """The models of a station under one folder, `SHA256/model.SUFFIX`.

    Args:
        folder: Created if missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def add(
        self,
        session: Session,
        product_id: str,
        file: Path,
        origin: str,
        who: str,
        *,
        made_by: dict[str, Any] | None = None,
        training_statistics: dict[str, Any] | None = None,
        note: str = "",
    ) -> ModelVersion:
        """Store a model as the next version of a product; it is not activated.

        Args:
            session: The transaction of the change.
            product_id: Of an existing product.
            file: A model file, an exported file with its other files beside it, or a ZIP archive of them.
            origin: `uploaded`, `trained` or `updated`.
            who: For the audit log.
            made_by: How it was made, as JSON values.
            training_statistics: Of the training images, by `monitoring.image_checks`.
            note: For people.

        Raises:
            ModelFileError: If it is no whole model of this version of hyperspot.
            MissingPackageError: If opening it takes a package that is not installed.
        """
        with _unpacked(file) as first:
            predictor = load_model(first)
            files = _files_of(first)
            digest = _digest(files)
            self._keep(files, first, digest)
        calibration = predictor.decision_rule.calibration
        last = session.scalar(select(func.max(ModelVersion.number)).where(ModelVersion.product_id == product_id))
        version = ModelVersion(
            product_id=product_id,
            number=(last or 0) + 1,
            sha256=digest,
            suffix=first.suffix.lower(),
            size=sum(path.stat().st_size for path in self._stored(digest)),
            origin=origin,
            made_by=made_by or {},
            description=predictor.describe(),
            false_alarm_rate=None if calibration.threshold is None else calibration.false_alarm_rate,
            threshold=calibration.threshold,
            calibration_images=len(calibration.scores),
            calibration={
                "kind": calibration.kind,
                "scores": calibration.scores.tolist(),
                "grouped": has_groups(predictor.describe()),
            },
            training_statistics=training_statistics or {},
            note=note,
            created_by=who,
        )
        session.add(version)
        session.flush()
        audit(session, who, "version.add", f"{product_id}/{version.number}", origin=origin, sha256=digest)
        return version

    def file(self, version: ModelVersion) -> ModelFile:
        """Return the file of a version."""
        return self.file_of(version.sha256, version.suffix)

    def file_of(self, sha256: str, suffix: str) -> ModelFile:
        """Return the file with a content."""
        return ModelFile(sha256, self._folder / sha256 / f"{STEM}{suffix}")

    def archive(self, version: ModelVersion) -> tuple[str, Path | bytes]:
        """Return the name and the content of a download: the file itself, or a ZIP archive of several.

        Raises Problem 410 if the files are gone.
        """
        try:
            files = self._stored(version.sha256)
        except FileNotFoundError:
            raise Problem(
                410, f"the files of version {version.number} are gone from the disk; upload the model again"
            ) from None
        name = f"{version.product_id}-{version.number}"
        if len(files) == 1:
            return name + version.suffix, files[0]
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
            for path in files:
                archive.write(path, path.name)
        return f"{name}.zip", content.getvalue()

    def _stored(self, digest: str) -> list[Path]:
        return sorted((self._folder / digest).iterdir())

    def _keep(self, files: list[Path], first: Path, digest: str) -> None:
        """Copy the files into their folder, which appears whole or not at all."""
        folder = self._folder / digest
        if self._is_whole(folder, digest):
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=self._folder))
        try:
            if folder.exists():
                # Damaged on the disk: the same model, uploaded again, mends all versions that use it.
                folder.rename(partial / "damaged")
            whole = partial / "whole"
            whole.mkdir()
            for path in files:
                kept = whole / (STEM + path.name[len(first.stem) :].lower())
                shutil.copyfile(path, kept)
                sync(kept)
            try:
                whole.rename(folder)
            except OSError:
                # Stored by another request meanwhile.
                if not folder.exists():
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    @staticmethod
    def _is_whole(folder: Path, digest: str) -> bool:
        """Whether a folder holds the files of a digest as they were stored."""
        return folder.is_dir() and _digest(sorted(folder.iterdir())) == digest


def _files_of(first: Path) -> list[Path]:
    """Return all files of a model."""
    files = [path for path in view_files(first, 2) if path == first or path.is_file()]
    if first.suffix.lower() not in EXPORTED:
        return [first]
    weights = [weights_file(path) for path in files]
    return files + [path for path in weights if path is not None]


def _digest(files: list[Path]) -> str:
    digests = []
    for path in files:
        with path.open("rb") as stream:
            digests.append(hashlib.file_digest(stream, "sha256").hexdigest())
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(sorted(digests)).encode()).hexdigest()


@contextmanager
def _unpacked(file: Path) -> Iterator[Path]:
    """Yield the first file of a model, unpacked if it lies in a ZIP archive."""
    if file.suffix.lower() != ".zip":
        yield file
        return
    try:
        # Beside the archive: the folder of temporary files may lie in memory.
        unpacked = tempfile.TemporaryDirectory(prefix="unpacked-", dir=file.parent)
        with unpacked as folder, zipfile.ZipFile(file) as archive:
            members = [one for one in archive.infolist() if not one.is_dir()]
            if sum(one.file_size for one in members) > MOST_BYTES:
                raise ModelFileError(
                    f"{file.name} unpacks to more than {MOST_BYTES:,} bytes; upload the files of one model"
                )
            for one in members:
                # The last part of the name only: a path in an archive may lead anywhere.
                target = Path(folder, PurePosixPath(one.filename.replace("\\", "/")).name)
                with archive.open(one) as source, target.open("xb") as sink:
                    shutil.copyfileobj(source, sink)
            firsts = [
                path
                for path in sorted(Path(folder).iterdir())
                if path.suffix.lower() in (".safetensors", *EXPORTED) and not path.stem.endswith(".whole")
            ]
            if len(firsts) != 1:
                raise ModelFileError(f"{file.name} holds {len(firsts)} models; upload an archive of one")
            yield firsts[0]
    except FileExistsError:
        raise ModelFileError(f"{file.name} holds a name twice or one that is none; pack the files again") from None
    except DAMAGED as error:
        if (damage := damage_of(error)) is None:
            raise
        raise ModelFileError(f"{file.name} is no readable ZIP archive ({damage}); pack the files again") from None
