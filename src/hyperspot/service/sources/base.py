"""What a source of images is."""

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar, Literal

from hyperspot.errors import HyperspotError
from hyperspot.service.database import Database
from hyperspot.service.database.tables import Inspection, now
from hyperspot.service.form_settings import FormSettings
from hyperspot.service.problems import Problem

State = Literal["stopped", "starting", "running", "failing", "ended"]


class SourceError(HyperspotError):
    """A source cannot take images now; it is started again after a while."""


@dataclass(frozen=True)
class Capture:
    """An image that a source took.

    Attributes:
        image: Encoded, as a file holds it.
        serial_number: Of the part.
        product_id: Whose model inspects; None: the product of the source.
        idempotency_key: The same for each attempt to inspect the image.
        received_at: In UTC.
    """

    image: bytes
    serial_number: str | None = None
    product_id: str | None = None
    idempotency_key: str | None = None
    received_at: datetime = field(default_factory=now)


Inspect = Callable[[Capture], Awaitable[Inspection]]
"""Inspects an image; raises Problem."""


@dataclass
class SourceStatus:
    """The status of a source.

    Attributes:
        kind: Of the source.
        state: `failing` sources are started again; `ended` ones have no more images.
        can_trigger: Whether it takes an image on request.
        images: Inspected since the station started.
        failed: Images that could not be inspected since then.
        last_image_at: When the last one was inspected.
        last_error: One sentence; stays after the error is over.
        last_error_at: When it happened.
    """

    kind: str
    state: State = "stopped"
    can_trigger: bool = False
    images: int = 0
    failed: int = 0
    last_image_at: datetime | None = None
    last_error: str | None = None
    last_error_at: datetime | None = None

    def note_error(self, error: str) -> None:
        """Note an error."""
        self.last_error, self.last_error_at = error, now()

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        times = {name: getattr(self, name) for name in ("last_image_at", "last_error_at")}
        return vars(self) | {name: None if at is None else at.isoformat() for name, at in times.items()}


@dataclass(frozen=True)
class SourceContext:
    """Where a source runs.

    Attributes:
        id: Of its row in the table `sources`.
        name: Of the source.
        database: Of the station.
        status: The source counts images that fail without stopping it.
        ready: Called by the source when it can take images.
    """

    id: int
    name: str
    database: Database
    status: SourceStatus
    ready: Callable[[], None] = lambda: None


class Source(ABC):
    """Takes images and has them inspected.

    A source that fails raises an exception from `run`, and is made and started again; it need not try again itself.
    Add one by `SOURCES.register(kind, class)` or by an entry point in the group `hyperspot.sources`.

    Attributes:
        form: Model of its settings.
        can_trigger: Whether `trigger` takes an image.
    """

    form: ClassVar[type[FormSettings]]
    can_trigger: ClassVar[bool] = False

    def __init__(self, settings: Any, context: SourceContext) -> None:
        self.settings, self.context = settings, context

    @abstractmethod
    async def run(self, inspect: Inspect) -> None:
        """Take images until canceled; a return means that there are no more.

        Raises:
            SourceError: No images can be taken.
        """

    async def trigger(self, serial_number: str | None = None, product_id: str | None = None) -> Inspection:
        """Take one image now and return its inspection; raises Problem."""
        del serial_number, product_id
        raise Problem(409, f"source '{self.context.name}' takes no images on request; it inspects those it finds")
