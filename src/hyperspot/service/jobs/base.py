"""What every kind of job gets and gives."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy.orm import Session

from hyperspot.service.database import Database
from hyperspot.service.products.models import ModelStore
from hyperspot.service.records.image_store import ImageStore
from hyperspot.service.settings import StationSettings
from hyperspot.utils.progress import Progress

Finish = Callable[[Session], dict[str, Any]]
"""Writes what a job made and returns its result, JSON values; in one transaction with the end of the job, so that a job
that is started again writes nothing twice. It may be called again if the database fails."""


class JobParameters(BaseModel):
    """Base of the parameters of a kind."""

    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True)
class JobContext:
    """What a job works with, in its own process.

    Attributes:
        job_id: Of the job.
        product_id: Of the job.
        who: Who added the job.
        parameters: As the kind declares them.
        settings: Of the station.
        database: Of the station.
        images: Of the station.
        models: Of the station.
        progress: Shown on the pages.
        folder: Empty and temporary.
    """

    job_id: int
    product_id: str
    who: str
    parameters: Any
    settings: StationSettings
    database: Database
    images: ImageStore
    models: ModelStore
    progress: Progress
    folder: Path


@dataclass(frozen=True)
class JobKind:
    """A kind of job.

    Attributes:
        parameters: Their class.
        run: Does the work and returns how to write it; raises HyperspotError or Problem with one sentence.
    """

    parameters: type[JobParameters]
    run: Callable[[JobContext], Finish]
