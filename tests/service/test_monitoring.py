"""The monitoring: it keeps its chance of false alarms, sees changes, and survives restarts; on both databases."""

import asyncio
import uuid

import numpy as np
import pytest

from hyperspot.decision.calibration import Calibration
from hyperspot.service.database.tables import (
    Alarm,
    AuditEntry,
    Inspection,
    Label,
    ModelVersion,
    MonitorState,
    Product,
    StoredImage,
    now,
)
from hyperspot.service.events import Events
from hyperspot.service.monitoring import monitor as monitor_module
from hyperspot.service.monitoring.alarms import acknowledge, list_alarms
from hyperspot.service.monitoring.image_checks import training_statistics
from hyperspot.service.monitoring.martingale import BETS, JUMP, ExchangeabilityTest, SimpleJumper
from hyperspot.service.monitoring.monitor import Monitor, tie_of
from hyperspot.service.monitoring.series import series_of
from hyperspot.service.problems import Problem
from hyperspot.service.review.labels import add_label


def p_values_at_once(scores, ties):
    """The definition, quadratic: each score among all before it and itself."""
    return [
        (np.sum(scores[:n] > scores[n]) + ties[n] * (1 + np.sum(scores[:n] == scores[n]))) / (n + 1)
        for n in range(len(scores))
    ]


def capital_of(p_values):
    """Algorithm 1 of the Simple Jumper, in float64 without logarithms."""
    shares = np.full(3, 1 / 3)
    for p_value in p_values:
        shares = (1 - JUMP) * shares + JUMP / 3 * shares.sum()
        shares = shares * (1 + np.array(BETS) * (p_value - 0.5))
    return shares.sum()


def test_p_values_and_capital_follow_the_definitions():
    random = np.random.default_rng(0)
    scores, ties = np.round(random.normal(size=150), 1), random.random(150)
    test = ExchangeabilityTest.start()
    given = [test.add(float(score), float(tie)) for score, tie in zip(scores, ties, strict=True)]
    expected = p_values_at_once(scores, ties)
    np.testing.assert_allclose(given, expected)
    assert test.player.log10 == pytest.approx(np.log10(capital_of(expected)))


def test_discrete_p_values_are_uniform():
    random = np.random.default_rng(1)
    found = []
    for _ in range(200):
        test = ExchangeabilityTest.start([float(one) for one in random.integers(0, 4, 10)])
        found += [test.add(float(one), float(random.random())) for one in random.integers(0, 4, 20)]
    counts = np.histogram(found, bins=10, range=(0, 1))[0]
    assert ((counts - 400) ** 2 / 400).sum() < 27.9  # chi-square with 9 degrees of freedom, chance 0.1 %


def test_the_chance_of_a_false_alarm_is_kept():
    """Ville: with a limit of 10 instead of 1000 at most one run in 10 reaches it; 300 runs show it."""
    random = np.random.default_rng(2)
    reached = 0
    for number in range(300):
        test = ExchangeabilityTest.start(random.normal(size=30).tolist() if number % 2 else [])
        for score, tie in zip(random.normal(size=400).tolist(), random.random(400).tolist(), strict=True):
            test.add(score, tie)
        reached += test.highest >= 1
        assert not test.is_alarm
    assert reached <= 300 * 0.1 + 3 * np.sqrt(300 * 0.1 * 0.9)


@pytest.mark.parametrize(("shift", "within"), [(1.0, 150), (-1.0, 150), (0.5, 500)])
def test_a_shift_of_the_scores_is_seen_within_so_many_parts(shift, within):
    random = np.random.default_rng(3)
    for _ in range(10):
        test = ExchangeabilityTest.start(random.normal(size=100).tolist())
        for score in random.normal(size=300).tolist():
            test.add(score, float(random.random()))
        seen = 0
        while not test.is_alarm:
            test.add(float(random.normal() + shift), float(random.random()))
            seen += 1
            assert seen <= within


def test_a_restored_test_goes_on_exactly():
    random = np.random.default_rng(4)
    scores = random.normal(size=80).tolist()
    whole, first = ExchangeabilityTest.start(), ExchangeabilityTest.start()
    for number, score in enumerate(scores):
        whole.add(score, tie_of(str(number)))
        if number < 50:
            first.add(score, tie_of(str(number)))
    second = ExchangeabilityTest.restore(first.state(), scores[:50])
    for number in range(50, 80):
        second.add(scores[number], tie_of(str(number)))
    assert second == whole


def test_ties_are_uniform():
    ties = [tie_of(uuid.UUID(int=number, version=4).hex) for number in range(2000)]
    counts = np.histogram(ties, bins=10, range=(0, 1))[0]
    assert ((counts - 200) ** 2 / 200).sum() < 27.9


def test_the_capital_is_a_fair_game():
    """Its mean over uniform p-values stays 1."""
    means = np.mean([capital_of([p]) for p in (np.arange(1000) + 0.5) / 1000])
    assert means == pytest.approx(1)
    player = SimpleJumper()
    player.bet(0.3)
    assert 10**player.log10 == pytest.approx(capital_of([0.3]))


CHECKS = {"brightness": 100.0, "focus": 0.5, "position_x": 0.5, "position_y": 0.5}


class Line:
    """A product with an active version, and parts that pass it."""

    def __init__(self, database, kind="split", *, grouped=False, rate=0.05):
        self.database, self.random = database, np.random.default_rng(5)
        scores = self.random.normal(10, 1, 199)
        calibration = Calibration.from_scores(kind, rate, scores)
        spread = [
            {name: value * (1 + 0.01 * self.random.normal()) for name, value in CHECKS.items()} for _ in range(99)
        ]
        with database.session() as session:
            session.add(Product(id="bolt", name="Bolt"))
            session.flush()
            self.version = ModelVersion(
                product_id="bolt", number=1, sha256="0" * 64, suffix=".onnx", size=1, origin="trained",
                created_by="tests", false_alarm_rate=rate, threshold=calibration.threshold, calibration_images=199,
                calibration={"kind": kind, "scores": scores.tolist(), "grouped": grouped},
                training_statistics=training_statistics(spread),
            )  # fmt: skip
            session.add(self.version)
            session.flush()
            session.get(Product, "bolt").active_version_id = self.version.id
            session.add(StoredImage(sha256="1" * 64, suffix=".png", size=1, width=8, height=8))
        self.threshold = calibration.threshold

    def inspect(self, scores, checks=CHECKS, **values):
        with self.database.session() as session:
            rows = [
                Inspection(
                    id=uuid.UUID(bytes=self.random.bytes(16), version=4).hex, product_id="bolt",
                    version_id=self.version.id, version_number=1, image_sha256="1" * 64, received_at=now(),
                    score=float(score), p_value=0.5, threshold=self.threshold,
                    is_anomalous=bool(score > self.threshold), milliseconds=1.0, width=8, height=8, result_size=1,
                    verdict={}, rendering={}, checks=checks, **{"source": "rest", **values},
                )
                for score in scores
            ]  # fmt: skip
            session.add_all(rows)
        return rows

    def good(self, count):
        return self.random.normal(10, 1, count)

    def alarms(self):
        with self.database.session() as session:
            return list_alarms(session, "bolt")

    def state(self):
        with self.database.session() as session:
            return session.get(MonitorState, self.version.id)


@pytest.mark.parametrize("kind", ["split", "leave-one-out"])
def test_good_parts_raise_no_alarm_and_a_restart_changes_nothing(database, kind, monkeypatch):
    monkeypatch.setattr(monitor_module, "PER_TRANSACTION", 70)
    line, monitor = Line(database, kind), Monitor(database, Events())
    for _ in range(3):
        line.inspect(line.good(100))
        monitor.step()
    once = line.state().state
    assert line.alarms() == []
    assert once["test"]["seen"] == once["false_alarm_passes"]
    # Again from the beginning, with a new monitor for each part.
    with database.session() as session:
        session.delete(session.get(MonitorState, line.version.id))
        numbers = [number for (number,) in session.query(Inspection.number).order_by(Inspection.number)]
    original = monitor_module._next
    for limit in (*numbers[::90], numbers[-1]):
        monkeypatch.setattr(
            monitor_module, "_next", lambda *given, limit=limit: [row for row in original(*given) if row[0] <= limit]
        )
        Monitor(database, Events()).step()
    assert line.state().state == once
    assert line.state().last_number == numbers[-1]


@pytest.mark.parametrize("kind", ["split", "leave-one-out"])
def test_a_shift_raises_one_alarm_until_it_is_acknowledged(database, kind):
    line, monitor = Line(database, kind), Monitor(database, Events())
    line.inspect(line.good(400))
    monitor.step()
    line.inspect(np.minimum(line.good(300) + 0.8, line.threshold))
    monitor.step()
    (alarm,) = line.alarms()
    assert (alarm.kind, alarm.details["direction"]) == ("drift", "higher")
    assert alarm.details["log10_martingale"] >= 3
    assert "then recalibrate or retrain" in alarm.message
    line.inspect(line.good(50) + 0.8)
    monitor.step()
    assert len(line.alarms()) == 1
    with database.session() as session:
        acknowledge(session, alarm.id, "ann")
        assert session.query(AuditEntry).filter_by(action="alarm.acknowledge", who="ann").count() == 1
    with pytest.raises(Problem, match="by ann already"), database.session() as session:
        acknowledge(session, alarm.id, "bob")
    with pytest.raises(Problem, match="no alarm 99"), database.session() as session:
        acknowledge(session, 99, "bob")
    # The run begins anew: the parts before it are forgotten.
    line.inspect(line.good(60))
    Monitor(database, Events()).step()
    assert line.alarms() == []
    assert line.state().state["test"]["seen"] <= 60


def test_a_change_between_training_and_the_line_is_seen_without_calibration_scores_in_the_test(database):
    line = Line(database, "leave-one-out")
    line.inspect(np.minimum(line.good(80) + 1.2, line.threshold))
    Monitor(database, Events()).step()
    (alarm,) = line.alarms()
    assert "than those of the calibration images" in alarm.message


def test_lower_scores_than_those_of_other_models_mean_nothing(database):
    line = Line(database, "leave-one-out")
    line.inspect(line.good(80) - 1.2)
    Monitor(database, Events()).step()
    assert line.alarms() == []


def test_groups_are_not_tested_and_their_images_are(database):
    line = Line(database, grouped=True)
    line.inspect(line.good(100) + 2)
    line.inspect(line.good(4), CHECKS | {"brightness": 40.0})
    Monitor(database, Events()).step()
    assert line.alarms() == []
    line.inspect(line.good(1), CHECKS | {"brightness": 40.0})
    Monitor(database, Events()).step()
    assert [alarm.kind for alarm in line.alarms()] == ["brightness"]


@pytest.mark.parametrize(
    ("name", "kind"), [("brightness", "brightness"), ("focus", "focus"), ("position_y", "position")]
)
def test_unusual_images_raise_an_alarm_of_their_kind_and_the_event_is_published(database, name, kind):
    line = Line(database)
    line.inspect(line.good(30))
    line.inspect(line.good(10), CHECKS | {name: CHECKS[name] / 2})

    async def main():
        events = Events()
        async with events.follow() as followed:
            await asyncio.to_thread(Monitor(database, events).step)
            return (await anext(followed)).data

    published = asyncio.run(main())
    (alarm,) = line.alarms()
    assert (alarm.kind, alarm.details["check"], published["id"]) == (kind, name, alarm.id)
    assert "differs from that of the training images" in alarm.message
    with database.session() as session:
        acknowledge(session, alarm.id, "ann")
    line.inspect(line.good(20))
    Monitor(database, Events()).step()
    assert line.alarms() == []
    line.inspect(line.good(5), CHECKS | {name: CHECKS[name] / 2})
    Monitor(database, Events()).step()
    assert [one.kind for one in line.alarms()] == [kind]


def test_more_false_alarms_than_promised_are_seen_by_the_labels(database):
    line = Line(database, grouped=True)
    monitor = Monitor(database, Events())
    alarms = line.inspect(np.full(25, line.threshold + 1))
    line.inspect(np.full(90, line.threshold - 1))
    monitor.step()
    assert line.alarms() == []
    with database.session() as session:
        for one in alarms[:6]:
            add_label(session, one, "ann", "good")
    monitor.step()
    # 6 of 81 at 5 % happens by chance.
    assert line.alarms() == []
    with database.session() as session:
        for one in alarms[6:]:
            add_label(session, one, "ann", "good")
    monitor.step()
    (alarm,) = line.alarms()
    assert alarm.kind == "false-alarms"
    assert alarm.details["false_alarms"] == 25
    assert alarm.details["p_value"] < 1e-3
    monitor.step()
    assert len(line.alarms()) == 1
    with database.session() as session:
        acknowledge(session, alarm.id, "ann")
    monitor.step()
    assert line.alarms() == []


def test_a_version_that_keeps_its_promise_raises_no_false_alarm_warning(database):
    """All good alarms of 3200 parts are labeled, and the true rate is the promised one."""
    line = Line(database, grouped=True)
    scores = line.random.normal(10, 1, 3200)
    rows = line.inspect(scores)
    with database.session() as session:
        session.add_all(
            Label(inspection_number=row.number, reviewer="ann", label="good") for row in rows if row.is_anomalous
        )
    Monitor(database, Events()).step()
    assert line.alarms() == []
    assert len(line.state().state["false_alarm_points"]) == 6


def test_imported_images_and_archived_products_are_not_followed(database):
    line = Line(database)
    line.inspect(line.good(200) + 5, source="import")
    Monitor(database, Events()).step()
    assert line.state().last_number == 0
    with database.session() as session:
        session.get(Product, "bolt").is_archived = True
    line.inspect(line.good(200) - 5)
    Monitor(database, Events()).step()
    assert line.state().last_number == 0


def test_a_version_without_calibration_is_followed_by_its_images_alone(database):
    line = Line(database)
    with database.session() as session:
        version = session.get(ModelVersion, line.version.id)
        version.calibration, version.false_alarm_rate, version.threshold = {}, None, None
    line.inspect(line.good(10), CHECKS | {"focus": 0.1})
    Monitor(database, Events()).step()
    assert [alarm.kind for alarm in line.alarms()] == ["focus"]


def test_the_part_follows_by_itself_and_outlives_an_error(tmp_path, monkeypatch):
    from hyperspot.service.database import Database

    monkeypatch.setattr(monitor_module, "POLL_SECONDS", 0.01)
    opened = Database(f"sqlite:///{tmp_path / 'station.sqlite'}")
    opened.migrate()
    line, failures = Line(opened), iter([RuntimeError("once")])
    original = Monitor.step

    def step(self):
        for error in failures:
            raise error
        original(self)

    monkeypatch.setattr(Monitor, "step", step)

    async def main():
        monitor = Monitor(opened, Events())
        await monitor.start()
        line.inspect(line.good(10), CHECKS | {"focus": 0.1})
        async with asyncio.timeout(20):
            while not line.alarms():
                await asyncio.sleep(0.02)
        await monitor.stop()

    asyncio.run(main())
    with opened.session() as session:
        assert session.query(Alarm).count() == 1
    opened.close()


def test_the_series_of_the_page(database):
    line = Line(database)
    line.inspect(line.good(200))
    wrong = line.inspect([line.threshold + 1] * 4)
    line.inspect(line.good(50), source="import")
    with database.session() as session:
        add_label(session, wrong[0], "ann", "good")
        add_label(session, wrong[1], "ann", "defect")
    Monitor(database, Events()).step()
    with database.session() as session:
        series = series_of(session, "bolt", bins=10)
        alarmed = session.query(Inspection).filter_by(is_anomalous=True, source="rest").count()
    assert series["inspections"] == 204
    assert len(series["bins"]) == 10
    assert sum(one["count"] for one in series["bins"]) == 204
    assert sum(one["alarms"] for one in series["bins"]) == alarmed
    assert sum(one["false_alarms"] for one in series["bins"]) == 1
    assert all(one["score_low"] <= one["score_median"] <= one["score_high"] for one in series["bins"])
    assert series["bins"][0]["brightness"] == 100.0
    assert series["limits"]["brightness"][0] < 100 < series["limits"]["brightness"][1]
    false_alarms = series["false_alarms"]
    assert (false_alarms["count"], false_alarms["other_alarms"]) == (1, alarmed - 1)
    assert false_alarms["good_parts"] == 204 - alarmed + 1
    assert false_alarms["low"] < false_alarms["rate"] < false_alarms["high"]
    assert series["drift"]["alarm_at"] == pytest.approx(3)
    assert len(series["drift"]["points"]) == series["drift"]["parts"] == 204 - alarmed
    assert series["alarms"] == []


def test_the_series_of_a_version_that_saw_nothing(database):
    line = Line(database)
    with database.session() as session:
        series = series_of(session, "bolt", line.version.number)
    assert (series["bins"], series["false_alarms"]["rate"], series["drift"]["points"]) == ([], None, [])
