"""Ranking metrics from one pass over sorted scores: ROC, precision-recall and F1, with exact ties.

Curves rise only at the distinct scores of the positives, so the negatives are counted above, and at or above, each of
these scores, and every metric is a sum over these steps. At a tie of positives and negatives the curve is a straight
line: the expectation over random orders within the tie.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64

from hyperspot.metrics.registry import Metric, register_metric
from hyperspot.utils.out_of_core import pieces, zeros

Rates = tuple[Float64[np.ndarray, " points"], Float64[np.ndarray, " points"]]
"""A curve from (0, 0) to (1, 1): x and y, both ascending."""

PIECE = 2**20
"""Steps computed at a time, which bounds the size of intermediate arrays."""


@dataclass(frozen=True, eq=False)
class Steps:
    """The distinct scores of the positives, and the counts of positives and negatives at each.

    Attributes:
        scores: The distinct scores, descending.
        positives: Number of positives with each score.
        above: Number of negatives above each score.
        reached: Number of negatives at or above each score.
        negatives: Number of all negatives.

    """

    scores: Float[np.ndarray, " steps"]
    positives: Int64[np.ndarray, " steps"]
    above: Int64[np.ndarray, " steps"]
    reached: Int64[np.ndarray, " steps"]
    negatives: int

    @cached_property
    def shares(self) -> Float64[np.ndarray, " steps"]:
        """Share of the positives at each step; the sum is 1."""
        shares, total = zeros(len(self.positives), np.float64), self.positives.sum()
        for piece in pieces(len(shares), PIECE):
            shares[piece] = self.positives[piece] / total
        return shares


def runs(ordered: Float[np.ndarray, " n"]) -> Iterator[tuple[slice, int, Int64[np.ndarray, "_starts"]]]:
    """Yield runs of equal values in ascending values, piece by piece.

    Each item is the slice of the piece, the number of its first distinct value, counted over all pieces (a run
    across two pieces keeps its number), and the indices in the piece where runs start, the first of them 0.
    """
    number = -1
    for piece in pieces(len(ordered), PIECE):
        values = ordered[piece]
        starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
        continues = piece.start > 0 and ordered[piece.start - 1] == values[0]
        first = number if continues else number + 1
        yield piece, first, starts
        number = first + len(starts) - 1


def steps(positives: Float[np.ndarray, " p"], negatives: Iterable[Float[np.ndarray, " _block"]]) -> Steps | None:
    """Return the steps of the scores, or None if a class is missing.

    Args:
        positives: Scores, ascending.
        negatives: Blocks of scores of any size, each ascending.

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
            # Ties are rare: only tied scores are searched a second time.
            tied = np.flatnonzero(block.take(below, mode="clip") == wanted)
            below[tied] = np.searchsorted(block, wanted[tied], side="right")
            above[piece] += len(block) - below
    if n == 0:
        return None
    return Steps(scores=distinct[::-1], positives=counts[::-1], above=above[::-1], reached=reached[::-1], negatives=n)


def area(found: Steps, weights: Float64[np.ndarray, " steps"], limit: float = 1.0) -> float:
    """Return the area, in 0..1, under the curve that rises by `weights`, up to the false-positive rate `limit`.

    A weight gained between the rates x0 and x1 contributes a trapezoid, cut at the limit by linear interpolation, and a
    rectangle from x1 to the limit. The area is divided by the limit.
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
    """Return the average precision, in 0..1: the mean over positives of the precision at their score."""
    total = 0.0
    for piece, hits in _hits(found):
        total += float(found.shares[piece] @ (hits / (hits + found.reached[piece])))
    return min(1.0, total)


def step_f1_max(found: Steps) -> float:
    """Return the highest F1 over all thresholds, in 0..1."""
    positives = int(found.positives.sum())
    return max(float((2 * hits / (hits + found.reached[piece] + positives)).max()) for piece, hits in _hits(found))


def _hits(found: Steps) -> Iterator[tuple[slice, Int64[np.ndarray, "_piece"]]]:
    """Yield slices of the steps and the number of true positives at each step."""
    before = 0
    for piece in pieces(len(found.positives), PIECE):
        hits = np.cumsum(found.positives[piece]) + before
        yield piece, hits
        before = int(hits[-1])


def curve(found: Steps, weights: Float64[np.ndarray, " steps"], points: int | None = None) -> Rates:
    """Return the vertices of the curve that rises by `weights` (sum 1) from (0, 0) to (1, 1).

    With `points`, at most that many vertices are kept, evenly spaced along the curve. Straight lines between them
    deviate from it by at most about 4 / points.

    Raises:
        ValueError: If `points` is below 8.

    """
    if points is not None and points < 8:
        raise ValueError(f"a curve needs at least 8 points, not {points}")
    wanted = None
    if points is not None:
        end = max(float(after[-1] + height[-1]) for _, after, _, height in _edges(found, weights))
        wanted = np.linspace(0, end, (points - 2) // 2)
    x, y, passed = [np.zeros(1)], [np.zeros(1)], -1.0
    for before, after, low, height in _edges(found, weights):
        kept: slice | Int64[np.ndarray, "_kept"] = slice(None)
        if wanted is not None:
            # x + y grows along flat and steep parts of the curve, so equal steps in it space the vertices evenly.
            along = after + height
            kept = np.unique(np.searchsorted(along, wanted[(wanted > passed) & (wanted <= along[-1])]))
            passed = float(along[-1])
        x.append(np.stack([before[kept], after[kept]], axis=1).ravel())
        y.append(np.stack([low[kept], height[kept]], axis=1).ravel())
    return np.concatenate([*x, np.ones(1)]), np.concatenate([*y, np.ones(1)])


def _edges(found: Steps, weights: Float64[np.ndarray, " steps"]) -> Iterator[tuple[Float64[np.ndarray, "_piece"], ...]]:
    """Yield pieces of the curve: x before and after each step, then y before and after it."""
    total = 0.0
    for piece in pieces(len(weights), PIECE):
        # Starting at the previous sum keeps rounding independent of the piece size.
        sums = np.cumsum(np.concatenate([[total], weights[piece]]))
        total = float(sums[-1])
        height = np.minimum(sums, 1.0)
        yield found.above[piece] / found.negatives, found.reached[piece] / found.negatives, height[:-1], height[1:]


Scores = Float[np.ndarray, " n"]
Labels = Bool[np.ndarray, " n"] | Int[np.ndarray, " n"]


def auroc(scores: Scores, labels: Labels) -> float | None:
    """Return the area under the ROC curve, in 0..1, or None if a class is missing.

    It is the probability that a positive has a higher score than a negative; a tie counts one half (Mann-Whitney).

    Args:
        scores: Higher is more anomalous.
        labels: 0 is negative, any other value is positive.

    Raises:
        ValueError: If a score is NaN.

    Examples:
        >>> import numpy as np
        >>> auroc(np.array([0.1, 0.4, 0.4, 0.9]), np.array([0, 0, 1, 1]))
        0.875

    """
    found = _of_labels(scores, labels)
    return None if found is None else area(found, found.shares)


def roc_curve(scores: Scores, labels: Labels) -> Rates | None:
    """Return false-positive and true-positive rates at all thresholds, or None; arguments and errors as in `auroc`.

    Examples:
        >>> import numpy as np
        >>> x, y = roc_curve(np.array([0.1, 0.6, 0.4, 0.9]), np.array([0, 0, 1, 1]))
        >>> x.tolist()
        [0.0, 0.0, 0.0, 0.5, 0.5, 1.0]
        >>> y.tolist()
        [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]

    """
    found = _of_labels(scores, labels)
    return None if found is None else curve(found, found.shares)


def average_precision(scores: Scores, labels: Labels) -> float | None:
    """Return the average precision, in 0..1, or None; arguments and errors as in `auroc`.

    It is the area under the precision-recall curve as a step function, without interpolation.

    Examples:
        >>> import numpy as np
        >>> round(average_precision(np.array([0.1, 0.6, 0.4, 0.9]), np.array([0, 0, 1, 1])), 3)
        0.833

    """
    found = _of_labels(scores, labels)
    return None if found is None else step_ap(found)


def f1_max(scores: Scores, labels: Labels) -> float | None:
    """Return the highest F1 over all thresholds, in 0..1, or None; arguments and errors as in `auroc`.

    An upper bound of the F1 of deployed thresholds, because the labels choose the threshold.

    Examples:
        >>> import numpy as np
        >>> f1_max(np.array([0.1, 0.6, 0.4, 0.9]), np.array([0, 0, 1, 1]))
        0.8

    """
    found = _of_labels(scores, labels)
    return None if found is None else step_f1_max(found)


def _of_labels(scores: Scores, labels: Labels) -> Steps | None:
    if np.isnan(scores).any():
        raise ValueError("a score is not a number (NaN)")
    positive = labels != 0
    return steps(np.sort(scores[positive]), [np.sort(scores[~positive])])


register_metric(
    Metric(
        name="image_auroc",
        title="Image AUROC",
        short_title="I-AUROC",
        unit="percent",
        description="Probability that a defective image has a higher score than a good one (area under the ROC curve)",
        level="image",
        function=auroc,
    )
)
register_metric(
    Metric(
        name="image_ap",
        title="Image average precision",
        short_title="I-AP",
        unit="percent",
        description="Average precision of the image scores",
        level="image",
        function=average_precision,
    )
)
register_metric(
    Metric(
        name="image_f1_max",
        title="Image F1-max (oracle)",
        short_title="I-F1-max",
        unit="percent",
        description="Highest F1 over all image thresholds: an upper bound, as the test labels choose the threshold",
        level="image",
        function=f1_max,
    )
)
