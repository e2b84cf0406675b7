"""Ranking metrics from one pass over sorted scores: ROC, precision-recall and F1, ties counted exactly.

All that matters happens at the distinct scores of the positives: between two of them a curve is flat. So the
negatives are only counted above and from each of these scores, and every metric is a sum over the steps.
Where positives and negatives tie the curve is the straight line between the ends of the tie, which is what
an order drawn at random within the tie gives on average.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64

from hyperspot.utils.out_of_core import pieces, zeros

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

    @cached_property
    def shares(self) -> Float64[np.ndarray, " steps"]:
        """The share of the positives at each step; they sum to 1."""
        shares, total = zeros(len(self.positives), np.float64), self.positives.sum()
        for piece in pieces(len(shares), PIECE):
            shares[piece] = self.positives[piece] / total
        return shares


def runs(ordered: Float[np.ndarray, " n"]) -> Iterator[tuple[slice, int, Int64[np.ndarray, "_starts"]]]:
    """Yield pieces of ascending values: where each lies, the number of its first distinct value, and where runs start.

    The numbers count distinct values over all pieces, so that a run that goes on from one piece to the next keeps
    its number; the starts are places in the piece, the first of them 0.
    """
    number = -1
    for piece in pieces(len(ordered), PIECE):
        values = ordered[piece]
        starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
        goes_on = piece.start > 0 and ordered[piece.start - 1] == values[0]
        first = number if goes_on else number + 1
        yield piece, first, starts
        number = first + len(starts) - 1


def steps(positives: Float[np.ndarray, " p"], negatives: Iterable[Float[np.ndarray, " _block"]]) -> Steps | None:
    """Return the steps of the scores; none where either class is missing.

    Args:
        positives: Ascending.
        negatives: Blocks of any size, each ascending.

    """
    if not len(positives):
        return None
    distinct, counts = zeros(len(positives), positives.dtype.type), zeros(len(positives), np.int64)
    used = 0
    for piece, first, starts in runs(positives):
        used = first + len(starts)
        distinct[first:used] = positives[piece][starts]
        counts[first:used] += np.diff(starts, append=piece.stop - piece.start)
    distinct, counts = distinct[:used], counts[:used]
    above, reached = zeros(used, np.int64), zeros(used, np.int64)
    n = 0
    for block in negatives:
        if not len(block):
            continue
        n += len(block)
        for piece in pieces(used, PIECE):
            wanted = distinct[piece]
            below = np.searchsorted(block, wanted, side="left")
            reached[piece] += len(block) - below
            # Few scores tie as a rule: only those are searched for once more.
            tied = np.flatnonzero(block.take(below, mode="clip") == wanted)
            below[tied] = np.searchsorted(block, wanted[tied], side="right")
            above[piece] += len(block) - below
    if n == 0:
        return None
    return Steps(scores=distinct[::-1], positives=counts[::-1], above=above[::-1], reached=reached[::-1], negatives=n)


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


def step_ap(found: Steps) -> float:
    """Return the average precision: the mean over positives of the precision at their score, in 0..1."""
    total = 0.0
    for piece, hits in _hits(found):
        total += float(found.shares[piece] @ (hits / (hits + found.reached[piece])))
    return min(1.0, total)


def step_f1_max(found: Steps) -> float:
    """Return the largest F1 over all thresholds, in 0..1."""
    positives = int(found.positives.sum())
    return max(float((2 * hits / (hits + found.reached[piece] + positives)).max()) for piece, hits in _hits(found))


def _hits(found: Steps) -> Iterator[tuple[slice, Int64[np.ndarray, "_piece"]]]:
    """Yield pieces of the steps, and how many positives are found by each step."""
    before = 0
    for piece in pieces(len(found.positives), PIECE):
        hits = np.cumsum(found.positives[piece]) + before
        yield piece, hits
        before = int(hits[-1])


def curve(found: Steps, weights: Float64[np.ndarray, " steps"], points: int | None = None) -> Rates:
    """Return the vertices of the curve that rises by `weights` (which sum to 1) from (0, 0) to (1, 1).

    With `points` at most so many vertices are kept, evenly along the curve: between two that are kept it
    strays from the straight line by no more than about 4 / points.

    Raises ValueError where `points` is below 8.
    """
    if points is not None and points < 8:
        raise ValueError(f"a curve needs 8 points or more, not {points}")
    wanted = None
    if points is not None:
        end = max(float(after[-1] + height[-1]) for _, after, _, height in _edges(found, weights))
        wanted = np.linspace(0, end, (points - 2) // 2)
    x, y, passed = [np.zeros(1)], [np.zeros(1)], -1.0
    for before, after, low, height in _edges(found, weights):
        kept: slice | Int64[np.ndarray, "_kept"] = slice(None)
        if wanted is not None:
            # x + y grows along the curve, so that even steps in it follow flat and steep stretches alike.
            along = after + height
            kept = np.unique(np.searchsorted(along, wanted[(wanted > passed) & (wanted <= along[-1])]))
            passed = float(along[-1])
        x.append(np.stack([before[kept], after[kept]], axis=1).ravel())
        y.append(np.stack([low[kept], height[kept]], axis=1).ravel())
    return np.concatenate([*x, np.ones(1)]), np.concatenate([*y, np.ones(1)])


def _edges(found: Steps, weights: Float64[np.ndarray, " steps"]) -> Iterator[tuple[Float64[np.ndarray, "_piece"], ...]]:
    """Yield pieces of the curve: x before and after each step, and y before and after it."""
    total = 0.0
    for piece in pieces(len(weights), PIECE):
        # Summed on from the last piece one by one, as if there were one piece only.
        sums = np.cumsum(np.concatenate([[total], weights[piece]]))
        total = float(sums[-1])
        height = np.minimum(sums, 1.0)
        yield found.above[piece] / found.negatives, found.reached[piece] / found.negatives, height[:-1], height[1:]


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
