"""Steps that a part of the station repeats as long as it runs."""

import asyncio
import contextlib
import logging
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from hyperspot.service.finishing import in_thread

log = logging.getLogger(__name__)


class Repeating:
    """Calls a blocking function in a thread, again and again, whatever it raises.

    Args:
        step: Called once at the start, then after each pause. It is finished before `stop` returns.
        seconds: Of a pause.
        waits: What does not happen after a failure, for the log: `monitoring waits`.

    Examples:
        >>> import asyncio
        >>> from hyperspot.service.repeating import Repeating
        >>> async def main():
        ...     counted = []
        ...     counting = Repeating(lambda: counted.append(1), 0.001, "counting waits")
        ...     await counting.start()
        ...     while len(counted) < 3:
        ...         await asyncio.sleep(0.001)
        ...     await counting.stop()
        ...     return "stopped"
        >>> asyncio.run(main())
        'stopped'

    """

    def __init__(self, step: Callable[[], object], seconds: float, waits: str) -> None:
        self._step, self._seconds, self._waits = step, seconds, waits
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    async def start(self) -> None:
        """Start to repeat."""
        self._wake = asyncio.Event()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Repeat no more."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def notify(self) -> None:
        """End the pause; called in the loop of the station."""
        self._wake.set()

    async def _run(self) -> None:
        is_away = False
        while True:
            try:
                await in_thread(self._step)
                is_away = False
            except SQLAlchemyError as error:
                if not is_away:
                    log.warning("the database does not answer, %s: %s", self._waits, error)
                is_away = True
            except Exception:
                log.exception("a step failed, %s for %g s", self._waits, self._seconds)
            with contextlib.suppress(TimeoutError):
                # Not `wait_for`, which may lose a cancellation in Python 3.11.
                async with asyncio.timeout(self._seconds):
                    await self._wake.wait()
            self._wake.clear()
