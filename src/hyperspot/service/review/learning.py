"""What the labels say about a version: its detection rate and its false-alarm rate.

All alarms go to review, but only a sample of the passed parts. Each labeled inspection therefore stands for all
inspections of its group (alarms, near misses, other passes): it counts N / n times, where N is the number of
inspections in the group and n the number of those that were labeled (Horvitz and Thompson, JASA 47, 1952). Its interval
joins the exact intervals of the groups (Clopper and Pearson), each at a higher confidence (Bonferroni). Labels that a
reviewer gave on own initiative to passed parts are no random sample, and are left out of these rates.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session, defer

from hyperspot.metrics.intervals import exact_interval
from hyperspot.service.database.tables import Inspection, Label, ModelVersion
from hyperspot.service.review.labels import consensus, labels_of

CONFIDENCE = 0.95
NEEDED_DEFECTS = 5
"""Labeled defects without which no detection rate is stated."""
NEEDED_GOOD = 20
"""Labeled good parts without which no false-alarm rate is stated."""
NEEDED_SAMPLE = 20
"""Labeled passes of the random sample without which missed defects are not estimated."""
MOST_POINTS = 200
IMPORTED = "import"
"""The source of inspections that came with their labels."""


@dataclass(frozen=True)
class Labeled:
    """A labeled inspection.

    Attributes:
        score: Of the version.
        is_defect: What the reviewers say.
        is_alarm: What the version said.
        weight: How many inspections it stands for.
    """

    score: float
    is_defect: bool
    is_alarm: bool
    weight: float = 1.0


@dataclass(frozen=True)
class Rate:
    """A rate, or why there is none yet.

    Attributes:
        value: In 0..1; None if there are too few labels.
        low, high: Of its interval, at 95 % confidence; None if nothing was labeled.
        count, total: Labels behind it: hits, and all.
        missing: One sentence that says what is missing; empty with a value.
    """

    value: float | None
    low: float | None
    high: float | None
    count: int
    total: int
    missing: str = ""


@dataclass(frozen=True)
class Group:
    """Inspections that are labeled with the same chance.

    Attributes:
        inspections: All of them.
        good, defect: Labels.
    """

    inspections: int
    good: int = 0
    defect: int = 0

    @property
    def labeled(self) -> int:
        """Labels that decide."""
        return self.good + self.defect

    def share(self, confidence: float) -> tuple[float, float]:
        """Return the interval of the share of defects; nothing is known without labels."""
        return exact_interval(self.defect, self.labeled, confidence) or (0.0, 1.0)


@dataclass(frozen=True)
class LearningFigures:
    """What the labels say about one version.

    Attributes:
        detection_rate, false_alarm_rate: Of the parts on the line, estimated from the review of alarms, near misses and
            the random sample of passes.
        imported_detection_rate, imported_false_alarm_rate: Of the images that were imported with their labels.
        promised_false_alarm_rate: Of the version.
        groups: By `alarm`, `near-miss` and `sample` (all other passes).
        disagreements, unsure: Inspections whose label is open.
        own_choice: Labeled passes that reviewers chose themselves: no random sample, and in none of the rates.
        trade_off: Detection rate and false-alarm rate at each threshold, the highest first, of all labels that decide,
            weighted likewise; each point a dict of `threshold`, `detection_rate` and `false_alarm_rate`.
        sentence: How the rates were estimated.
    """

    detection_rate: Rate
    false_alarm_rate: Rate
    imported_detection_rate: Rate
    imported_false_alarm_rate: Rate
    promised_false_alarm_rate: float | None
    groups: dict[str, Group]
    disagreements: int
    unsure: int
    own_choice: int
    trade_off: list[dict[str, float]]
    sentence: str

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def figures_of(session: Session, version: ModelVersion) -> LearningFigures:
    """Return what the labels say about a version."""
    counts = _counts(session, version)
    rows, undecided = _labeled(session, version)
    line = [row for row in rows if row[0] in counts]
    groups = {
        name: Group(
            inspections,
            good=sum(not one.is_defect for reason, one in line if reason == name),
            defect=sum(one.is_defect for reason, one in line if reason == name),
        )
        for name, inspections in counts.items()
    }
    weighted = [
        Labeled(one.score, one.is_defect, one.is_alarm, groups[reason].inspections / groups[reason].labeled)
        for reason, one in line
    ]
    imported = [one for reason, one in rows if reason == IMPORTED]
    sample = groups["sample"]
    return LearningFigures(
        detection_rate=detection_rate(groups),
        false_alarm_rate=false_alarm_rate(groups),
        imported_detection_rate=_plain([one.is_alarm for one in imported if one.is_defect], NEEDED_DEFECTS, "defects"),
        imported_false_alarm_rate=_plain(
            [one.is_alarm for one in imported if not one.is_defect], NEEDED_GOOD, "good images"
        ),
        promised_false_alarm_rate=version.false_alarm_rate,
        groups=groups,
        disagreements=undecided["disagreement"],
        unsure=undecided["unsure"],
        own_choice=undecided["own choice"],
        trade_off=trade_off(weighted + imported),
        sentence=(
            f"each labeled pass of the random sample, {sample.labeled} in all, stands for "
            f"{sample.inspections / sample.labeled:.1f} passed parts"
            if sample.labeled
            else "no pass of the random sample is labeled yet, so that missed defects are unknown"
        ),
    )


def detection_rate(groups: dict[str, Group]) -> Rate:
    """Return the share of defects that raise an alarm.

    Args:
        groups: `alarm`, `near-miss` and `sample`.

    Examples:
        >>> from hyperspot.service.review.learning import Group, detection_rate
        >>> rate = detection_rate({"alarm": Group(10, 2, 8), "near-miss": Group(4, 3, 1), "sample": Group(900, 90)})
        >>> round(rate.value, 2), rate.count, rate.total
        (0.89, 8, 9)

    """
    found, total = groups["alarm"].defect, sum(group.defect for group in groups.values())
    low, high = _interval(groups, defects=True)
    missing = _too_few(total, NEEDED_DEFECTS, "defects") or _unsampled(groups)
    return Rate(None if missing else _share(groups, defects=True), low, high, found, total, missing)


def false_alarm_rate(groups: dict[str, Group]) -> Rate:
    """Return the share of good parts that raise an alarm.

    Args:
        groups: `alarm`, `near-miss` and `sample`.

    Examples:
        >>> from hyperspot.service.review.learning import Group, false_alarm_rate
        >>> rate = false_alarm_rate({"alarm": Group(10, 2, 8), "near-miss": Group(4, 3, 1), "sample": Group(900, 90)})
        >>> f"{rate.value:.4f}"
        '0.0022'

    """
    wrong, total = groups["alarm"].good, sum(group.good for group in groups.values())
    low, high = _interval(groups, defects=False)
    missing = _too_few(total, NEEDED_GOOD, "good parts") or _unsampled(groups)
    return Rate(None if missing else _share(groups, defects=False), low, high, wrong, total, missing)


def trade_off(labeled: Sequence[Labeled]) -> list[dict[str, float]]:
    """Return detection rate and false-alarm rate at each threshold, the highest first; empty without both classes.

    Examples:
        >>> from hyperspot.service.review.learning import Labeled, trade_off
        >>> points = trade_off([Labeled(3.0, True, True), Labeled(2.0, False, True), Labeled(1.0, True, False)])
        >>> [(one["detection_rate"], one["false_alarm_rate"]) for one in points]
        [(0.5, 0.0), (0.5, 1.0), (1.0, 1.0)]

    """
    defects = sum(one.weight for one in labeled if one.is_defect)
    good = sum(one.weight for one in labeled if not one.is_defect)
    if not (defects and good):
        return []
    points: list[dict[str, float]] = []
    found = wrong = 0.0
    for one in sorted(labeled, key=lambda one: -one.score):
        found, wrong = (found + one.weight, wrong) if one.is_defect else (found, wrong + one.weight)
        point = {"threshold": one.score, "detection_rate": found / defects, "false_alarm_rate": wrong / good}
        if points and points[-1]["threshold"] == one.score:
            points[-1] = point
        else:
            points.append(point)
    if len(points) > MOST_POINTS:
        step = (len(points) - 1) / (MOST_POINTS - 1)
        points = [points[round(number * step)] for number in range(MOST_POINTS)]
    return points


def _share(groups: dict[str, Group], *, defects: bool) -> float | None:
    """Return the estimated share of alarms among defects, or among good parts; None if there are none."""

    def estimate(group: Group) -> float:
        if group.inspections == 0 or group.labeled == 0:
            return 0.0
        return group.inspections * (group.defect if defects else group.good) / group.labeled

    total = sum(estimate(group) for group in groups.values())
    return estimate(groups["alarm"]) / total if total else None


def _interval(groups: dict[str, Group], *, defects: bool) -> tuple[float | None, float | None]:
    present = {name: group for name, group in groups.items() if group.inspections}
    if "alarm" not in present or not any(group.labeled for group in present.values()):
        return None, None
    if all(group.labeled == group.inspections for group in present.values()):
        # Nothing was sampled: the plain count.
        counts = {name: group.defect if defects else group.good for name, group in present.items()}
        return exact_interval(counts["alarm"], sum(counts.values()), CONFIDENCE) or (None, None)
    confidence = 1 - (1 - CONFIDENCE) / len(present)
    low, high = {}, {}
    for name, group in present.items():
        ends = group.share(confidence)
        ends = ends if defects else (1 - ends[1], 1 - ends[0])
        low[name], high[name] = group.inspections * ends[0], group.inspections * ends[1]

    def share(alarms: float, others: float) -> float:
        return alarms / (alarms + others) if alarms + others > 0 else 0.0

    others = present.keys() - {"alarm"}
    return (
        share(low["alarm"], sum(high[name] for name in others)),
        share(high["alarm"], sum(low[name] for name in others)),
    )


def _unsampled(groups: dict[str, Group]) -> str:
    sample = groups["sample"]
    needed = min(NEEDED_SAMPLE, sample.inspections)
    if sample.labeled < needed:
        return f"the random sample of passes has {sample.labeled} labels, and {needed} are needed; review more of it"
    unlabeled = [name for name in ("alarm", "near-miss") if groups[name].inspections and not groups[name].labeled]
    return f"no {' and no '.join(unlabeled)} is labeled yet; review some" if unlabeled else ""


def _too_few(count: int, needed: int, what: str) -> str:
    return "" if count >= needed else f"{count} {what} are labeled, and {needed} are needed"


def _plain(alarms: Sequence[bool], needed: int, what: str) -> Rate:
    count, total = sum(alarms), len(alarms)
    missing = _too_few(total, needed, what)
    low, high = exact_interval(count, total, CONFIDENCE) or (None, None)
    return Rate(None if missing else count / total, low, high, count, total, missing)


def _group_of() -> Any:
    """Return the group of an inspection; other passes are those that the random sample was drawn from."""
    return case(
        (Inspection.source == IMPORTED, IMPORTED),
        (Inspection.is_anomalous.is_(True), "alarm"),
        (Inspection.review_reason == "near-miss", "near-miss"),
        else_="sample",
    )


def _counts(session: Session, version: ModelVersion) -> dict[str, int]:
    # A subquery, because PostgreSQL does not see that an expression with parameters is grouped by.
    each = (
        select(_group_of().label("name"))
        .where(Inspection.version_id == version.id, Inspection.is_anomalous.is_not(None))
        .subquery()
    )
    query = select(each.c.name, func.count()).group_by(each.c.name)
    found: dict[str, int] = dict(session.execute(query).all())
    return {name: found.get(name, 0) for name in ("alarm", "near-miss", "sample")}


def _labeled(session: Session, version: ModelVersion) -> tuple[list[tuple[str, Labeled]], dict[str, int]]:
    """Return the labeled inspections with their groups, and how many count in no rate."""
    query = (
        select(Label, Inspection.score, Inspection.is_anomalous, Inspection.review_reason, _group_of())
        .options(defer(Label.mask))
        .join(Inspection, Inspection.number == Label.inspection_number)
        .where(Inspection.version_id == version.id, Inspection.is_anomalous.is_not(None))
        .order_by(Label.id)
    )
    labels: dict[int, list[Label]] = {}
    about: dict[int, tuple[float, bool, str | None, str]] = {}
    for label, score, is_alarm, reason, group in session.execute(query):
        labels.setdefault(label.inspection_number, []).append(label)
        about[label.inspection_number] = score, is_alarm, reason, group
    rows: list[tuple[str, Labeled]] = []
    undecided = {"disagreement": 0, "unsure": 0, "own choice": 0}
    for number, said in labels.items():
        decision = consensus(said)
        score, is_alarm, reason, group = about[number]
        if decision in undecided:
            undecided[str(decision)] += 1
        elif group != "sample" or reason == "sample":
            rows.append((group, Labeled(score, decision == "defect", bool(is_alarm))))
        else:
            undecided["own choice"] += 1
    return rows, undecided


def decided(session: Session, numbers: Iterable[int]) -> dict[int, bool]:
    """Return whether each inspection shows a defect, of those whose reviewers agree."""
    said = {number: consensus(labels) for number, labels in labels_of(session, list(numbers)).items()}
    return {number: one == "defect" for number, one in said.items() if one in ("defect", "good")}
