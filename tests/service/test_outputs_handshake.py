"""The handshake with a PLC: all orders of signals and times, with a clock that is set by hand."""

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hyperspot.service.outputs.handshake import Code, Handshake, Phase, PlcSignals, code_of
from hyperspot.service.problems import Problem

LIMITS = (10.0, 5.0, 4.0)


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def handshake(clock):
    handshake = Handshake(*LIMITS, clock=clock)
    handshake.update(PlcSignals())
    return handshake


def lit(handshake):
    """Return the names of the bits that are set."""
    return {name for name, value in vars(handshake.signals).items() if value is True}


def test_a_part_that_passes(handshake):
    assert lit(handshake) == {"ready"}
    ticket = handshake.update(PlcSignals(trigger=True))
    assert lit(handshake) == {"busy"}
    assert handshake.update(PlcSignals(trigger=True)) is None
    assert handshake.finish(ticket, is_anomalous=False)
    assert lit(handshake) == {"result_ready", "ok"}
    assert handshake.signals.counter == 1
    handshake.update(PlcSignals(trigger=True, acknowledge=True))
    assert lit(handshake) == set()
    handshake.update(PlcSignals(acknowledge=True))
    assert lit(handshake) == set()
    handshake.update(PlcSignals())
    assert lit(handshake) == {"ready"}


@pytest.mark.parametrize(
    ("result", "shown", "code"),
    [
        ({"is_anomalous": True}, {"ng"}, 0),
        ({"is_anomalous": None}, {"error"}, 8),
        ({"code": Code.NO_IMAGE}, {"error"}, 3),
        # A verdict beside an error does not count.
        ({"is_anomalous": False, "code": Code.FAILED}, {"error"}, 1),
    ],
)
def test_other_results(handshake, result, shown, code):
    ticket = handshake.update(PlcSignals(trigger=True))
    handshake.finish(ticket, **result)
    assert lit(handshake) == {"result_ready"} | shown
    assert handshake.signals.error_code == code
    handshake.update(PlcSignals(acknowledge=True))
    assert handshake.signals.error_code == 0


def test_a_slow_inspection_is_an_error_and_its_late_result_is_dropped(handshake, clock):
    ticket = handshake.update(PlcSignals(trigger=True))
    clock.now += 9.9
    handshake.update(PlcSignals())
    assert lit(handshake) == {"busy"}
    clock.now += 0.1
    handshake.update(PlcSignals())
    assert lit(handshake) == {"result_ready", "error"}
    assert handshake.signals.error_code == Code.TIME_OUT
    assert not handshake.finish(ticket, is_anomalous=False)
    handshake.update(PlcSignals(acknowledge=True))
    handshake.update(PlcSignals())
    second = handshake.update(PlcSignals(trigger=True))
    assert not handshake.finish(ticket, is_anomalous=False)
    assert lit(handshake) == {"busy"}
    assert handshake.finish(second, is_anomalous=True)
    assert (handshake.signals.counter, handshake.signals.ng) == (2, True)


def test_a_result_that_is_not_acknowledged_is_taken_back_and_counted(handshake, clock):
    handshake.finish(handshake.update(PlcSignals(trigger=True)), is_anomalous=False)
    handshake.update(PlcSignals())
    clock.now += 5
    handshake.update(PlcSignals())
    # The error stays for a PLC that comes back, and the counter tells it of the result that it missed.
    assert lit(handshake) == {"ready", "error"}
    assert (handshake.signals.error_code, handshake.signals.counter) == (Code.NOT_ACKNOWLEDGED, 1)
    handshake.update(PlcSignals(trigger=True))
    assert lit(handshake) == {"busy"}
    assert handshake.signals.error_code == 0


def test_signals_that_stay_set_are_an_error_until_they_fall(handshake, clock):
    handshake.finish(handshake.update(PlcSignals(trigger=True)), is_anomalous=False)
    handshake.update(PlcSignals(trigger=True, acknowledge=True))
    clock.now += 4
    handshake.update(PlcSignals(trigger=True, acknowledge=True))
    assert (lit(handshake), handshake.signals.error_code) == ({"error"}, Code.NOT_RELEASED)
    handshake.update(PlcSignals())
    assert (lit(handshake), handshake.signals.error_code) == ({"ready"}, 0)


def test_an_acknowledgement_that_was_set_before_the_result_does_not_count(handshake, clock):
    ticket = handshake.update(PlcSignals(trigger=True))
    handshake.update(PlcSignals(acknowledge=True))
    handshake.finish(ticket, is_anomalous=False)
    handshake.update(PlcSignals(acknowledge=True))
    assert lit(handshake) == {"result_ready", "ok"}


def test_signals_that_are_set_at_the_start_ask_for_nothing(clock):
    handshake = Handshake(*LIMITS, clock=clock)
    assert handshake.update(PlcSignals(trigger=True)) is None
    assert not handshake.signals.ready
    handshake.update(PlcSignals())
    assert handshake.update(PlcSignals(trigger=True)) == 1


def test_triggers_at_the_wrong_time_are_counted(handshake):
    ticket = handshake.update(PlcSignals(trigger=True))
    handshake.update(PlcSignals())
    assert handshake.update(PlcSignals(trigger=True)) is None
    assert handshake.signals.ignored == 1
    assert handshake.finish(ticket, is_anomalous=False)


def test_the_counter_starts_again_at_one(handshake):
    handshake._counter = 65535
    handshake.finish(handshake.update(PlcSignals(trigger=True)), is_anomalous=False)
    assert handshake.signals.counter == 1


@pytest.mark.parametrize(
    ("status", "code"), [(404, 2), (409, 2), (503, 3), (429, 4), (504, 5), (422, 1), (413, 1), (500, 1)]
)
def test_the_code_of_a_problem(status, code):
    assert code_of(Problem(status, "no")) == code


class AnyOrder(RuleBasedStateMachine):
    """Every order of signals, results and time; the specification is the set of invariants."""

    def __init__(self):
        super().__init__()
        self.clock = Clock()
        self.handshake = Handshake(*LIMITS, clock=self.clock)
        self.plc = PlcSignals()
        self.tickets = []
        self.shown = 0
        self.trigger_was_low = False
        self.before = self.handshake.signals

    def update(self):
        self.before = self.handshake.signals
        was_low = self.trigger_was_low
        ticket = self.handshake.update(self.plc)
        if ticket is not None:
            assert self.before.ready
            assert was_low, "one edge, one image"
            assert ticket not in self.tickets
            self.tickets.append(ticket)
        self.trigger_was_low = not self.plc.trigger
        self.count(self.before)

    def count(self, before):
        if self.handshake.signals.result_ready and not before.result_ready:
            self.shown += 1

    @rule(trigger=st.booleans(), acknowledge=st.booleans())
    def set_signals(self, trigger, acknowledge):
        self.plc = PlcSignals(trigger, acknowledge)
        self.update()

    @rule(seconds=st.sampled_from([0.01, 3.9, 4.0, 5.0, 10.0, 100.0]))
    def wait(self, seconds):
        self.clock.now += seconds
        self.update()

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), is_anomalous=st.sampled_from([True, False, None]), code=st.sampled_from(list(Code)[:5]))
    def finish(self, data, is_anomalous, code):
        ticket = data.draw(st.sampled_from(self.tickets))
        before = self.handshake.signals
        shown = self.handshake.finish(ticket, is_anomalous, code)
        assert shown == (before.busy and ticket == self.tickets[-1])
        if not shown:
            assert self.handshake.signals == before
        elif code == Code.NONE and is_anomalous is not None:
            assert (self.handshake.signals.ok, self.handshake.signals.ng) == (not is_anomalous, is_anomalous)
        self.count(before)

    @rule()
    def a_patient_plc_gets_ready(self):
        """Whatever happened, a PLC that lets go of its signals is served again."""
        self.plc = PlcSignals()
        for _ in range(3):
            self.clock.now += 11
            self.update()
        assert self.handshake.signals.ready

    @invariant()
    def signals_fit(self):
        signals = self.handshake.signals
        assert signals.ready + signals.busy + signals.result_ready <= 1
        assert signals.error == (signals.error_code != 0)
        if signals.result_ready:
            assert signals.ok + signals.ng + signals.error == 1
        else:
            assert not signals.ok
            assert not signals.ng
        # No result is lost silently, and none is shown twice.
        assert signals.counter == self.shown
        assert self.shown in (len(self.tickets), len(self.tickets) - 1)
        assert signals.busy == (self.shown == len(self.tickets) - 1)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = hypothesis_settings(max_examples=150, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("phase", list(Phase))
def test_phases_have_distinct_signals(phase, handshake):
    handshake.phase = phase
    assert (handshake.signals.ready, handshake.signals.busy, handshake.signals.result_ready) == (
        phase == Phase.IDLE,
        phase == Phase.BUSY,
        phase == Phase.RESULT,
    )
