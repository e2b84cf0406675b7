"""Ranking metrics from one pass over sorted scores: ROC, precision-recall and F1, ties counted exactly.

All that matters happens at the distinct scores of the positives: between two of them a curve is flat. So the
negatives are only counted above and from each of these scores, and every metric is a sum over the steps.
Where positives and negatives tie the curve is the straight line between the ends of the tie, which is what
an order drawn at random within the tie gives on average.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64

Rates = tuple[Float64[np.ndarray, " points"], Float64[np.ndarray, " points"]]
"""A curve from (0, 0) to (1, 1): the rate on x and the rate on y, both ascending."""

PIECE = 2**20
"""Steps whose areas are computed at a time: the intermediate arrays stay small, however many pixels there are."""


@dataclass(frozen=True, eq=False)
class Steps:
    """The distinct scores of the positives, descending, and the negatives around them.

    Attributes:
        scores: The distinct scores, descending.
        positives: How many positives have each of them.
        above: How many negatives lie above it.
        reached: How many negatives lie at or above it.
        negatives: How many negatives there are.

    """

    scores: Float[np.ndarray, " steps"]
    positives: Int64[np.ndarray, " steps"]
    above: Int64[np.ndarray, " steps"]
    reached: Int64[np.ndarray, " steps"]
    negatives: int

    @property
    def shares(self) -> Float64[np.ndarray, " steps"]:
        """The share of the positives at each step; they sum to 1."""
        return np.asarray(self.positives / self.positives.sum(), dtype=np.float64)


def steps(positives: Float[np.ndarray, " p"], negatives: Iterable[Float[np.ndarray, " _block"]]) -> Steps | None:
    """Return the steps of the scores; none where either class is missing.

    Args:
        positives: Ascending.
        negatives: Blocks of any size, each ascending.

    """
    if not len(positives):
        return None
    first = np.flatnonzero(np.concatenate([[True], positives[1:] != positives[:-1]]))
    distinct = positives[first]
    above, reached = np.zeros(len(distinct), dtype=np.int64), np.zeros(len(distinct), dtype=np.int64)
    n = 0
    for block in negatives:
        if not len(block):
            continue
        n += len(block)
        below = np.searchsorted(block, distinct, side="left")
        reached += len(block) - below
        # Few scores tie as a rule: only those are searched for once more.
        tied = np.flatnonzero(block.take(below, mode="clip") == distinct)
        below[tied] = np.searchsorted(block, distinct[tied], side="right")
        above += len(block) - below
    if n == 0:
        return None
    return Steps(
        scores=distinct[::-1],
        positives=np.diff(first, append=len(positives))[::-1],
        above=above[::-1],
        reached=reached[::-1],
        negatives=n,
    )


def area(found: Steps, weights: Float64[np.ndarray, " steps"], limit: float = 1.0) -> float:
    """Return the area under the curve that rises by `weights`, up to the false-positive rate `limit`.

    A weight gained along the rates x0..x1 adds its trapezoid, cut at the limit (with the curve interpolated
    there), and a rectangle from x1 to the limit. The area is divided by the limit and lies in 0..1.
    """
    total = 0.0
    for start in range(0, len(weights), PIECE):
        piece = slice(start, start + PIECE)
        before, after = found.above[piece] / found.negatives, found.reached[piece] / found.negatives
        cut_before, cut_after = np.minimum(before, limit), np.minimum(after, limit)
        slope = np.divide(1.0, after - before, out=np.zeros_like(after), where=after > before)
        total += float(weights[piece] @ ((limit - cut_after) + 0.5 * (cut_after - cut_before) ** 2 * slope))
    return min(1.0, total / limit)


def precision_steps(found: Steps) -> Float64[np.ndarray, " steps"]:
    """Return the precision where everything from each step on is called positive, in 0..1."""
    hits = np.cumsum(found.positives)
    return np.asarray(hits / (hits + found.reached), dtype=np.float64)


def step_ap(found: Steps) -> float:
    """Return the average precision: the mean over positives of the precision at their score, in 0..1."""
    return min(1.0, float(found.shares @ precision_steps(found)))


def step_f1_max(found: Steps) -> float:
    """Return the largest F1 over all thresholds, in 0..1."""
    hits = np.cumsum(found.positives)
    return float((2 * hits / (hits + found.reached + hits[-1])).max())


def curve(found: Steps, weights: Float64[np.ndarray, " steps"], points: int | None = None) -> Rates:
    """Return the vertices of the curve that rises by `weights` (which sum to 1) from (0, 0) to (1, 1).

    With `points` at most so many vertices are kept, evenly along the curve: between two that are kept it
    strays from the straight line by no more than about 4 / points.

    Raises ValueError where `points` is below 8.
    """
    before, after = found.above / found.negatives, found.reached / found.negatives
    height = np.minimum(np.cumsum(weights), 1.0)
    low = np.concatenate([[0.0], height[:-1]])
    if points is not None:
        if points < 8:
            raise ValueError(f"a curve needs 8 points or more, not {points}")
        # x + y grows along the curve, so that even steps in it follow flat and steep stretches alike.
        along = after + height
        wanted = np.linspace(0, along[-1], (points - 2) // 2)
        kept = np.unique(np.searchsorted(along, wanted))
        before, after, low, height = before[kept], after[kept], low[kept], height[kept]
    x = np.concatenate([[0.0], np.stack([before, after], axis=1).ravel(), [1.0]])
    y = np.concatenate([[0.0], np.stack([low, height], axis=1).ravel(), [1.0]])
    return x, y


Scores = Float[np.ndarray, " n"]
Labels = Bool[np.ndarray, " n"] | Int[np.ndarray, " n"]


def auroc(scores: Scores, labels: Labels) -> float | None:
    """Return the area under the ROC curve, in 0..1: the chance that a positive outranks a negative.

    A tie counts one half (Mann-Whitney). None where either class is missing.

    Args:
        scores: Higher means more anomalous.
        labels: Not 0 for the positives.

    Raises:
        ValueError: Where a score is not a number.

    """
    found = _of_labels(scores, labels)
    return None if found is None else area(found, found.shares)


def roc_curve(scores: Scores, labels: Labels) -> Rates | None:
    """Return false-positive and true-positive rates at all thresholds; arguments as in `auroc`.

    None where either class is missing.
    """
    found = _of_labels(scores, labels)
    return None if found is None else curve(found, found.shares)


def average_precision(scores: Scores, labels: Labels) -> float | None:
    """Return the area under the precision-recall curve taken as steps, in 0..1; arguments as in `auroc`.

    None where either class is missing.
    """
    found = _of_labels(scores, labels)
    return None if found is None else step_ap(found)


def f1_max(scores: Scores, labels: Labels) -> float | None:
    """Return the largest F1 over all thresholds, in 0..1; arguments as in `auroc`.

    The threshold is chosen on the labels themselves: an upper bound that no deployed threshold reaches. None
    where either class is missing.
    """
    found = _of_labels(scores, labels)
    return None if found is None else step_f1_max(found)


def _of_labels(scores: Scores, labels: Labels) -> Steps | None:
    if np.isnan(scores).any():
        raise ValueError("a score is not a number")
    positive = labels != 0
    return steps(np.sort(scores[positive]), [np.sort(scores[~positive])])
