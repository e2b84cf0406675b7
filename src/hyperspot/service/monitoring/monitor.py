"""Follows the inspections of the active versions and raises alarms about the process.

What it has seen is kept in the database with the alarms, in one transaction, so that a restart continues exactly.
"""

import hashlib
import logging
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session, undefer

from hyperspot.decision.calibration import Calibration
from hyperspot.decision.drift import FALSE_WARNINGS, MOST_RECENT, detect_drift
from hyperspot.errors import CalibrationError
from hyperspot.service.database import Database
from hyperspot.service.database.tables import Alarm, Inspection, Label, ModelVersion, MonitorState, Product
from hyperspot.service.events import Events
from hyperspot.service.monitoring.alarms import describe, raise_alarm
from hyperspot.service.monitoring.false_alarms import count_inspection, too_many_false_alarms
from hyperspot.service.monitoring.image_checks import limits_of, unusual
from hyperspot.service.monitoring.martingale import BETS, CHANCE, ExchangeabilityTest
from hyperspot.service.repeating import Repeating
from hyperspot.service.review.learning import IMPORTED

POLL_SECONDS = 2.0
PER_TRANSACTION = 1000
RECENT, UNUSUAL = 20, 5
"""An alarm is raised if at least UNUSUAL of the RECENT last images are unusual. With a chance of `image_checks.CHANCE`
for each of two checks, that happens in fewer than 1 of 10**9 windows."""
KINDS = {"brightness": "brightness", "focus": "focus", "position_x": "position", "position_y": "position"}
"""Of alarms, by the check."""
MOST_POINTS = 400
"""Of the history of the capital; beyond it every other point is dropped."""
log = logging.getLogger(__name__)


class _Inspection(NamedTuple):
    number: int
    id: str
    score: float
    is_anomalous: bool | None
    checks: dict[str, Any]


@dataclass
class _Followed:
    """A version that is followed, in memory."""

    version: ModelVersion
    calibration: Calibration | None
    grouped: bool
    test: ExchangeabilityTest | None = None
    newest_label: int | None = None


class Monitor:
    """Watches all active versions.

    Args:
        database: Of the station.
        events: Publishes `alarm`.
    """

    def __init__(self, database: Database, events: Events) -> None:
        self._database, self._events = database, events
        self._followed: dict[int, _Followed] = {}
        self._following = Repeating(self.step, POLL_SECONDS, "monitoring waits")

    async def start(self) -> None:
        """Start to follow."""
        await self._following.start()

    async def stop(self) -> None:
        """Stop."""
        await self._following.stop()

    def step(self) -> None:
        """Look at everything that is new."""
        with self._database.session() as session:
            query = select(Product.active_version_id).where(
                Product.is_archived.is_(False), Product.active_version_id.is_not(None)
            )
            active = [one for one in session.scalars(query) if one is not None]
        for version_id in active:
            while self._advance(version_id):
                pass
        self._followed = {one: self._followed[one] for one in active if one in self._followed}

    def _advance(self, version_id: int) -> bool:
        """Look at the next inspections of a version; return whether there may be more."""
        try:
            with self._database.session() as session:
                row = session.get(MonitorState, version_id)
                if row is None:
                    row = MonitorState(version_id=version_id, last_number=0, state={})
                    session.add(row)
                state = _whole(row.state)
                followed = self._follow(session, version_id, state, row.last_number)
                raised = _Alarms(session, followed.version, state)
                raised.forget_acknowledged(row.last_number)
                if state["drift_alarm"] is None and followed.test is None:
                    _new_run(followed, state, row.last_number)
                inspections = _next(session, version_id, row.last_number)
                for inspection in inspections:
                    _see(followed, state, raised, inspection)
                    row.last_number = inspection.number
                newest = session.scalar(select(func.max(Label.id)))
                if inspections or newest != followed.newest_label:
                    raised.false_alarms(followed.calibration)
                    followed.newest_label = newest
                if followed.test is not None:
                    state["test"] = followed.test.state()
                row.state = state
                session.flush()
                alarms = [describe(alarm) for alarm in raised.new]
        except BaseException:
            # What is in memory may be ahead of the database.
            self._followed.pop(version_id, None)
            raise
        for alarm in alarms:
            self._events.publish("alarm", alarm)
        return len(inspections) == PER_TRANSACTION

    def _follow(self, session: Session, version_id: int, state: dict[str, Any], last_number: int) -> _Followed:
        """Return a version as it was left, from the database if this process has not seen it."""
        followed = self._followed.get(version_id)
        if followed is None:
            version = session.get_one(ModelVersion, version_id, options=[undefer(ModelVersion.calibration)])
            followed = _Followed(version, calibration_of(version), bool(version.calibration.get("grouped")))
            if state["test"] is not None and state["drift_alarm"] is None:
                scores = _scores_of_run(session, version, state["run_start"], last_number)
                followed.test = ExchangeabilityTest.restore(state["test"], [*_usual(followed), *scores])
            self._followed[version_id] = followed
        return followed


def calibration_of(version: ModelVersion) -> Calibration | None:
    """Return the calibration of a version; None if it decides nothing."""
    kept = version.calibration
    if version.false_alarm_rate is None or not kept.get("scores"):
        return None
    try:
        return Calibration.from_scores(kept["kind"], version.false_alarm_rate, kept["scores"])
    except CalibrationError as error:
        log.warning("version %s cannot be monitored: %s", version.id, error)
        return None


def _whole(state: dict[str, Any]) -> dict[str, Any]:
    """Return a copy of a state with all its members."""
    empty: dict[str, Any] = {
        "run_start": 0,
        "test": None,
        "drift_alarm": None,
        "history": [],
        "history_step": 1,
        "recent": {},
        "check_alarms": {},
        "false_alarm_base": 0,
        "false_alarm_seen": 0,
        "false_alarm_passes": 0,
        "false_alarm_points": [],
        "false_alarm": None,
    }
    return empty | {name: value.copy() if isinstance(value, list | dict) else value for name, value in state.items()}


def _next(session: Session, version_id: int, last_number: int) -> list[_Inspection]:
    query = (
        select(
            Inspection.number,
            Inspection.id,
            Inspection.score,
            Inspection.is_anomalous,
            Inspection.checks,
        )
        .where(Inspection.version_id == version_id, Inspection.number > last_number, Inspection.source != IMPORTED)
        .order_by(Inspection.number)
        .limit(PER_TRANSACTION)
    )
    return [_Inspection(*row) for row in session.execute(query)]


def _scores_of_run(session: Session, version: ModelVersion, after: int, until: int) -> list[float]:
    query = select(Inspection.score).where(
        Inspection.version_id == version.id,
        Inspection.number > after,
        Inspection.number <= until,
        Inspection.source != IMPORTED,
        Inspection.score <= version.threshold,
    )
    return list(session.scalars(query))


def _usual(followed: _Followed) -> list[float]:
    """Return the calibration scores that the scores of passed parts are exchangeable with.

    Those of `cross` and `leave-one-out` come from other models, and are slightly higher than new ones.
    """
    calibration = followed.calibration
    if calibration is None or calibration.threshold is None or calibration.kind != "split":
        return []
    return [float(score) for score in calibration.scores if score < calibration.threshold]


def _new_run(followed: _Followed, state: dict[str, Any], last_number: int) -> None:
    # Images of one group are alike, so that new groups look like drift.
    if followed.calibration is not None and not followed.grouped:
        followed.test = ExchangeabilityTest.start(_usual(followed))
        state |= {"run_start": last_number, "test": followed.test.state(), "history": [], "history_step": 1}


def _see(followed: _Followed, state: dict[str, Any], raised: "_Alarms", inspection: _Inspection) -> None:
    """Look at one inspection."""
    raised.checks(inspection)
    if inspection.is_anomalous is not None:
        count_inspection(state, inspection.number, is_alarm=inspection.is_anomalous)
    version, test = followed.version, followed.test
    if test is None or version.threshold is None or inspection.score > version.threshold:
        return
    test.add(float(inspection.score), tie_of(inspection.id))
    if test.seen % state["history_step"] == 0:
        state["history"].append([inspection.number, round(test.player.log10, 3)])
        if len(state["history"]) > MOST_POINTS:
            state["history"] = state["history"][1::2]
            state["history_step"] *= 2
    raised.drift(followed, inspection.number)
    if state["drift_alarm"] is not None:
        followed.test = None
    elif test.is_over:
        _new_run(followed, state, inspection.number)


def tie_of(inspection_id: str) -> float:
    """Return a number in [0, 1) that follows from the random id of an inspection, and from nothing else of it.

    Examples:
        >>> from hyperspot.service.monitoring.monitor import tie_of
        >>> 0 <= tie_of("a1") < 1, tie_of("a1") == tie_of("a1"), tie_of("a1") == tie_of("a2")
        (True, True, False)

    """
    return int.from_bytes(hashlib.sha256(inspection_id.encode()).digest()[:6], "big") / 2**48


class _Alarms:
    """Raises the alarms of one version, in the transaction of its state."""

    def __init__(self, session: Session, version: ModelVersion, state: dict[str, Any]) -> None:
        self._session, self._version, self._state = session, version, state
        self.new: list[Alarm] = []

    def forget_acknowledged(self, last_number: int) -> None:
        """Start again what a person has acknowledged."""
        state = self._state
        if self._is_closed(state["drift_alarm"]):
            state |= {"drift_alarm": None, "test": None}
        if self._is_closed(state["false_alarm"]):
            state |= {"false_alarm": None, "false_alarm_base": last_number, "false_alarm_points": []}
            state |= {"false_alarm_seen": 0, "false_alarm_passes": 0}
        for kind, alarm_id in list(state["check_alarms"].items()):
            if self._is_closed(alarm_id):
                del state["check_alarms"][kind]
                state["recent"].pop(kind, None)

    def checks(self, inspection: _Inspection) -> None:
        """Raise an alarm if too many of the last images are unusual."""
        statistics = self._version.training_statistics
        if not statistics or not inspection.checks:
            return
        found = unusual(inspection.checks, statistics)
        odd_kinds = {KINDS[name] for name in found}
        for kind in dict.fromkeys(KINDS.values()):
            recent = [*self._state["recent"].get(kind, ()), int(kind in odd_kinds)][-RECENT:]
            self._state["recent"][kind] = recent
            if sum(recent) < UNUSUAL or kind in self._state["check_alarms"]:
                continue
            name = next(one for one in found if KINDS[one] == kind) if kind in odd_kinds else kind
            limits = limits_of(name, statistics)
            value = inspection.checks.get(name)
            shown = (
                "" if limits is None or value is None else f" ({value:.3g}; usual {limits[0]:.3g} to {limits[1]:.3g})"
            )
            alarm = self._raise(
                kind,
                f"the {kind} of {sum(recent)} of the last {len(recent)} images differs from that of the training "
                f"images{shown}; check camera, lens, light and fixture",
                check=name,
                value=value,
                limits=None if limits is None else list(limits),
                number=inspection.number,
            )
            self._state["check_alarms"][kind] = alarm

    def drift(self, followed: _Followed, number: int) -> None:
        """Raise an alarm if the scores of passed parts are not those of one process."""
        test, calibration = followed.test, followed.calibration
        if test is None or calibration is None:
            return
        if test.is_alarm:
            capitals = dict(zip(test.player.capitals, BETS, strict=True))
            way = "higher" if capitals[max(capitals)] < 0 else "lower"
            message = (
                f"the scores of passed parts are {way} than before (martingale {10**test.player.log10:,.0f} after "
                f"{test.seen} parts; by chance in at most {CHANCE:.1%} of the runs)"
            )
        elif test.seen == MOST_RECENT and not _usual(followed):
            # The calibration scores are not in the test, so that it does not see a change before its start.
            drift = detect_drift(calibration, test.scores, grouped=followed.grouped)
            # Those scores come from other models and are higher than new ones, so that lower ones mean nothing.
            if drift is None or not drift.is_significant or not drift.is_higher:
                return
            way = "higher"
            message = (
                f"the scores of the first {test.seen} passed parts are {way} than those of the calibration images "
                f"(p = {drift.p_value:.1g}; by chance in at most {FALSE_WARNINGS:.1%} of the runs)"
            )
        else:
            return
        mend = "light, focus, position or the parts have changed; look at the last images, then recalibrate or retrain"
        if way == "lower":
            mend = "images may be blurred or dark and hide defects; check focus and light, then recalibrate or retrain"
        self._state["drift_alarm"] = self._raise(
            "drift",
            f"{message}: {mend}",
            log10_martingale=test.player.log10,
            parts=test.seen,
            direction=way,
            number=number,
        )

    def false_alarms(self, calibration: Calibration | None) -> None:
        """Raise an alarm if reviewers found more false alarms than promised."""
        if calibration is None or self._state["false_alarm"] is not None:
            return
        found = too_many_false_alarms(self._session, self._version, calibration, self._state)
        if found is not None:
            self._state["false_alarm"] = self._raise("false-alarms", found.message, **found.details)

    def _raise(self, kind: str, message: str, **details: Any) -> int:
        alarm = raise_alarm(
            self._session,
            kind,
            message,
            product_id=self._version.product_id,
            version_id=self._version.id,
            details=details,
        )
        self.new.append(alarm)
        return alarm.id

    def _is_closed(self, alarm_id: int | None) -> bool:
        if alarm_id is None:
            return False
        alarm = self._session.get(Alarm, alarm_id)
        return alarm is None or alarm.acknowledged_at is not None
