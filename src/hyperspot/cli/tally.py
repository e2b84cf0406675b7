"""Counts what a run of predictions found, and ends it: warning of drift, exit code."""

from collections import deque

import typer

from hyperspot.cli import console
from hyperspot.decision.calibration import Calibration
from hyperspot.decision.drift import MOST_RECENT, detect_drift

FOUND_ANOMALIES = 3


class Tally:
    """Verdicts of a run.

    Attributes:
        failed: Images or parts without a verdict.
    """

    def __init__(self) -> None:
        self.failed = 0
        self._anomalies = 0
        self._passed: deque[float] = deque(maxlen=MOST_RECENT)

    def add(self, is_anomalous: bool | None, score: float) -> None:
        """Count a verdict."""
        if is_anomalous:
            self._anomalies += 1
        elif is_anomalous is False:
            self._passed.append(score)

    def end(self, calibration: Calibration, things: str, *, grouped: bool, fail_on_anomaly: bool) -> None:
        """Warn if the passed images or parts differ from the calibration images; exit if the code is not 0."""
        drift = detect_drift(calibration, list(self._passed), grouped=grouped)
        if drift is not None and drift.is_significant:
            console.print_warning(drift.describe(f"the last {drift.images} passed {things}"))
        if self.failed:
            raise typer.Exit(1)
        if fail_on_anomaly and self._anomalies:
            raise typer.Exit(FOUND_ANOMALIES)
