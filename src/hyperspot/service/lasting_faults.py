"""Alarms for faults that last: short ones mend themselves and disturb nobody."""

import time
from collections.abc import Callable
from typing import Any, Literal

from sqlalchemy.exc import SQLAlchemyError

from hyperspot.service.database import Database
from hyperspot.service.events import Events
from hyperspot.service.finishing import in_thread
from hyperspot.service.monitoring.alarms import describe, raise_alarm


class LastingFault:
    """Raises one alarm when a fault of a source or an output lasts; the next one only after it worked again.

    Args:
        database: Where alarms are.
        events: Where they are published.
        kind: Of the alarm.
        name: Of the source or output.
        product_id: Which it belongs to, if to one.
        after: Seconds.
        clock: Monotonic, in seconds, which a change of the time does not move.
    """

    def __init__(
        self,
        database: Database,
        events: Events,
        kind: Literal["source", "output"],
        name: str,
        product_id: str | None,
        *,
        after: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database, self._events = database, events
        self._kind, self._name, self._product_id = kind, name, product_id
        self._after, self._clock = after, clock
        self._since: float | None = None
        self._is_raised = False

    def over(self) -> None:
        """Note that it works."""
        self._since, self._is_raised = None, False

    async def note(self, error: str) -> None:
        """Note a failure; raises the alarm if they last."""
        at = self._clock()
        self._since = at if self._since is None else self._since
        if not self._is_raised and at - self._since >= self._after:
            # The database may be what fails; then the next failure tries again.
            self._is_raised = await self.raise_alarm(
                f"{self._kind} '{self._name}' has not worked for {self._after / 60:g} minutes: {error}"
            )

    async def raise_alarm(self, message: str) -> bool:
        """Raise an alarm at once; returns whether that was possible."""
        try:
            alarm = await in_thread(self._record, message)
        except SQLAlchemyError:
            return False
        self._events.publish("alarm", alarm)
        return True

    def _record(self, message: str) -> dict[str, Any]:
        with self._database.session() as session:
            details: dict[str, Any] = {self._kind: self._name}
            alarm = raise_alarm(
                session, self._kind, message, product_id=self._product_id, version_id=None, details=details
            )
            return describe(alarm)
