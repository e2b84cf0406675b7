"""Tells whether the scores of passed parts still come from one process, at any time, with a bounded false-alarm chance.

Each new score is ranked among all scores of the run before it: its conformal p-value, with ties broken at random, is
uniform and independent of the others if the scores are exchangeable, however many there are (Vovk, Nouretdinov and
Gammerman, "Testing exchangeability on-line", ICML 2003). A player bets against that: the capital is a martingale, and
the chance that it ever reaches 1 / c is at most c (Ville's inequality). The bets are those of the Simple Jumper (Vovk
et al., "Retrain or not retrain: conformal test martingales for change-point detection", COPA 2021, algorithm 1).

The p-values of the verdicts themselves would not do: their calibration scores stay the same, so that they are uniform
on average over calibrations alone, and any run that is long enough would raise an alarm. Passed parts are taken because
it is not known which alarms are false; given the threshold, their scores and the calibration scores below it are
exchangeable.
"""

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

CHANCE = 1e-3
"""Chance of an alarm in one run of parts that are all alike."""
JUMP = 0.01
"""Share of the capital that changes its bet at each step; J of the paper."""
BETS = (-1.0, 0.0, 1.0)
"""Slopes of the bets: on low p-values, on nothing, on high p-values."""
RUN = 10_000
"""Scores of a run; then a new one begins, so that scores of long ago do not hide a change."""


@dataclass
class SimpleJumper:
    """The capital of a player against uniform p-values.

    Attributes:
        capitals: Logarithm of the capital behind each of `BETS`.

    Examples:
        >>> from hyperspot.service.monitoring.martingale import SimpleJumper
        >>> player = SimpleJumper()
        >>> for _ in range(30):
        ...     player.bet(0.05)
        >>> player.log10 > 3
        True

    """

    capitals: list[float] = field(default_factory=lambda: [math.log(1 / len(BETS))] * len(BETS))

    @property
    def log10(self) -> float:
        """Logarithm of the capital; 0 at the start."""
        return _log_sum(self.capitals) / math.log(10)

    def bet(self, p_value: float) -> None:
        """Bet on the next p-value, in [0, 1]."""
        total = _log_sum(self.capitals)
        moved = math.log(JUMP / len(BETS)) + total
        stayed = math.log1p(-JUMP)
        self.capitals = [
            _log_sum([stayed + capital, moved]) + math.log1p(slope * (p_value - 0.5))
            for slope, capital in zip(BETS, self.capitals, strict=True)
        ]


@dataclass
class ExchangeabilityTest:
    """Tests the scores of one run.

    Attributes:
        scores: All scores of the run and of the calibration, ascending.
        player: Bets on their p-values.
        seen: Scores of the run.
        highest: The highest log10 of the capital in the run.

    Examples:
        >>> import numpy as np
        >>> from hyperspot.service.monitoring.martingale import ExchangeabilityTest
        >>> random = np.random.default_rng(0)
        >>> test = ExchangeabilityTest.start(random.normal(10, 1, 100))
        >>> for score in random.normal(10, 1, 200):
        ...     _ = test.add(score, random.random())
        >>> test.is_alarm
        False
        >>> for score in random.normal(11, 1, 60):
        ...     _ = test.add(score, random.random())
        >>> test.is_alarm
        True

    """

    scores: list[float] = field(default_factory=list)
    player: SimpleJumper = field(default_factory=SimpleJumper)
    seen: int = 0
    highest: float = 0.0

    @classmethod
    def start(cls, calibration: Iterable[float] = ()) -> "ExchangeabilityTest":
        """Begin a run, with the calibration scores below the threshold if new scores are exchangeable with them."""
        return cls(sorted(float(score) for score in calibration))

    def add(self, score: float, tie: float) -> float:
        """Add the next score and return its p-value, in [0, 1].

        Args:
            score: Of a passed part.
            tie: Uniform in [0, 1) and independent of the score; it breaks ties, of which the score itself is one.
        """
        below, upto = bisect_left(self.scores, score), bisect_right(self.scores, score)
        above, equal = len(self.scores) - upto, upto - below
        p_value = (above + tie * (equal + 1)) / (len(self.scores) + 1)
        self.player.bet(p_value)
        insort(self.scores, score)
        self.seen += 1
        self.highest = max(self.highest, self.player.log10)
        return p_value

    @property
    def is_alarm(self) -> bool:
        """Whether the capital has reached 1 / `CHANCE`."""
        return self.highest >= -math.log10(CHANCE)

    @property
    def is_over(self) -> bool:
        """Whether the next score begins a new run."""
        return self.seen >= RUN

    def state(self) -> dict[str, Any]:
        """Return everything but the scores, as JSON values; `restore` takes both."""
        return {"capitals": list(self.player.capitals), "seen": self.seen, "highest": self.highest}

    @classmethod
    def restore(cls, state: dict[str, Any], scores: Iterable[float]) -> "ExchangeabilityTest":
        """Return the test that a state was taken of, given all its scores, in any order."""
        player = SimpleJumper([float(capital) for capital in state["capitals"]])
        return cls(sorted(scores), player, int(state["seen"]), float(state["highest"]))


def _log_sum(logs: list[float]) -> float:
    """Return the logarithm of a sum, given the logarithms of its terms."""
    highest = max(logs)
    return highest + math.log(sum(math.exp(one - highest) for one in logs))
