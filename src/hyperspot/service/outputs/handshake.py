"""The handshake with a PLC: trigger, busy, result ready, OK or NG or error, acknowledge, with a time-out on each side.

```
             trigger                 result                acknowledge               both low
IDLE (ready) -------> BUSY (busy) -----------> RESULT -------------------> RELEASE -----------> IDLE
                        | time-out: error 5      | time-out: error 6          | time-out: error 7
                        +-----> RESULT           +-----> RELEASE              +-----> stays, until both are low
```
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from hyperspot.service.problems import Problem


class Phase(IntEnum):
    """Where a handshake stands."""

    IDLE = 0
    BUSY = 1
    RESULT = 2
    RELEASE = 3


class Code(IntEnum):
    """What the error code says; 0 if there is no error."""

    NONE = 0
    FAILED = 1
    """The image could not be inspected."""
    SET_UP = 2
    """There is no such recipe or source, or the product has no active model."""
    NO_IMAGE = 3
    """The source is failing, for example the camera is gone."""
    OVERLOADED = 4
    """Too many images wait."""
    TIME_OUT = 5
    """The inspection took too long."""
    NOT_ACKNOWLEDGED = 6
    """The PLC did not acknowledge the last result in time; it was taken back."""
    NOT_RELEASED = 7
    """The PLC keeps trigger or acknowledge set."""
    UNDECIDED = 8
    """The model has no threshold, so that there is neither OK nor NG."""


@dataclass(frozen=True)
class PlcSignals:
    """What the PLC sets.

    Attributes:
        trigger: Rises to ask for an inspection.
        acknowledge: Rises when the result was read.
        recipe: Number of the product, read with the trigger; 0: that of the source.
        serial_number: Of the part, read with the trigger.
    """

    trigger: bool = False
    acknowledge: bool = False
    recipe: int = 0
    serial_number: str = ""


@dataclass(frozen=True)
class StationSignals:
    """What the station sets.

    Attributes:
        ready: A trigger is accepted.
        busy: An image is taken and inspected.
        result_ready: `ok`, `ng`, `error` and the values of the result are valid.
        ok: The part passed.
        ng: The part is anomalous.
        error: There is no verdict; stays after a result that was not acknowledged, until the next trigger.
        error_code: A `Code`.
        counter: Of results, 1 to 65535, then again 1; 0 before the first. It tells the PLC of results that it missed.
        ignored: Triggers that came while the station was not ready, modulo 65536.
    """

    ready: bool = False
    busy: bool = False
    result_ready: bool = False
    ok: bool = False
    ng: bool = False
    error: bool = False
    error_code: int = 0
    counter: int = 0
    ignored: int = 0


class Handshake:
    """The state of a handshake; it takes no images and knows no fieldbus.

    Args:
        inspection_seconds: After which a running inspection is an error.
        acknowledge_seconds: After which a result is taken back.
        release_seconds: After which signals that stay set are an error.
        clock: Monotonic, in seconds.

    Examples:
        >>> from hyperspot.service.outputs.handshake import Handshake, PlcSignals
        >>> handshake = Handshake()
        >>> handshake.update(PlcSignals()), handshake.signals.ready
        (None, True)
        >>> ticket = handshake.update(PlcSignals(trigger=True))
        >>> handshake.signals.busy
        True
        >>> handshake.finish(ticket, is_anomalous=False)
        True
        >>> handshake.signals.result_ready, handshake.signals.ok, handshake.signals.counter
        (True, True, 1)
        >>> handshake.update(PlcSignals(acknowledge=True)), handshake.signals.result_ready
        (None, False)

    """

    def __init__(
        self,
        inspection_seconds: float = 10.0,
        acknowledge_seconds: float = 5.0,
        release_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = {
            Phase.BUSY: inspection_seconds,
            Phase.RESULT: acknowledge_seconds,
            Phase.RELEASE: release_seconds,
        }
        self._clock = clock
        # Signals that are set when the station starts are no request.
        self._last = PlcSignals(trigger=True, acknowledge=True)
        self._ticket = 0
        self._counter = 0
        self._ignored = 0
        self._verdict: bool | None = None
        self._code = Code.NONE
        self.phase = Phase.RELEASE
        self._since = clock()

    @property
    def signals(self) -> StationSignals:
        """What the station sets now."""
        has_result = self.phase == Phase.RESULT
        return StationSignals(
            ready=self.phase == Phase.IDLE,
            busy=self.phase == Phase.BUSY,
            result_ready=has_result,
            ok=has_result and self._verdict is False,
            ng=has_result and self._verdict is True,
            error=self._code != Code.NONE,
            error_code=int(self._code),
            counter=self._counter,
            ignored=self._ignored,
        )

    def update(self, plc: PlcSignals) -> int | None:
        """Follow the signals of the PLC and the time; call it often.

        Returns:
            A ticket if an image has to be taken, for `finish`; else None.
        """
        triggered = plc.trigger and not self._last.trigger
        acknowledged = plc.acknowledge and not self._last.acknowledge
        self._last = plc
        if self.phase == Phase.IDLE and triggered:
            self._ticket += 1
            self._code = Code.NONE
            self._go(Phase.BUSY)
            return self._ticket
        if triggered:
            self._ignored = (self._ignored + 1) % 65536
        if self.phase == Phase.BUSY and self._is_late():
            self._show(None, Code.TIME_OUT)
        elif self.phase == Phase.RESULT and (acknowledged or self._is_late()):
            self._code = Code.NONE if acknowledged else Code.NOT_ACKNOWLEDGED
            self._go(Phase.RELEASE)
        if self.phase == Phase.RELEASE:
            self._release(plc)
        return None

    def is_waiting_for(self, ticket: int) -> bool:
        """Whether the result of this inspection would be shown."""
        return self.phase == Phase.BUSY and ticket == self._ticket

    def finish(self, ticket: int, is_anomalous: bool | None = None, code: Code = Code.NONE) -> bool:
        """Show the result of an inspection; one that comes after the time-out is dropped.

        Returns:
            Whether it is shown.
        """
        if not self.is_waiting_for(ticket):
            return False
        if code == Code.NONE and is_anomalous is None:
            code = Code.UNDECIDED
        self._show(None if code != Code.NONE else is_anomalous, code)
        return True

    def _release(self, plc: PlcSignals) -> None:
        if not plc.trigger and not plc.acknowledge:
            if self._code == Code.NOT_RELEASED:
                self._code = Code.NONE
            self._go(Phase.IDLE)
        elif self._is_late() and self._code == Code.NONE:
            self._code = Code.NOT_RELEASED

    def _is_late(self) -> bool:
        return self._clock() - self._since >= self._limits[self.phase]

    def _show(self, verdict: bool | None, code: Code) -> None:
        self._verdict, self._code = verdict, code
        self._counter = self._counter % 65535 + 1
        self._go(Phase.RESULT)

    def _go(self, phase: Phase) -> None:
        self.phase, self._since = phase, self._clock()


def code_of(problem: Problem) -> Code:
    """Return what the PLC is told about an image that could not be inspected.

    Examples:
        >>> from hyperspot.service.outputs.handshake import code_of
        >>> from hyperspot.service.problems import Problem
        >>> code_of(Problem(503, "the camera is gone")).name
        'NO_IMAGE'

    """
    codes = {404: Code.SET_UP, 409: Code.SET_UP, 503: Code.NO_IMAGE, 429: Code.OVERLOADED, 504: Code.TIME_OUT}
    return codes.get(problem.status, Code.FAILED)
