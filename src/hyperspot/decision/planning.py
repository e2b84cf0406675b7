"""How the good images are divided between training and calibration."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from hyperspot.choices import CalibrationMode
from hyperspot.decision.calibration import (
    DEFAULT_RATE,
    Calibration,
    Kind,
    check_rate,
    default_rate,
    images_needed,
    too_few,
)
from hyperspot.errors import CalibrationError, SettingsError

HELD_OUT_SHARE = 0.2
"""Smallest share of the images that a split holds out: more than the rate needs, for a steadier threshold."""
FOLDS = 5
ENOUGH = 99
"""By default as many images are held out, or more: half of the images are enough to train on then."""


@dataclass(frozen=True)
class Plan:
    """How the good images are divided between training and calibration.

    Attributes:
        kind: As in `Calibration`.
        held_out: Number of calibration images: those of the split, or all of them. With groups, number of groups.
        folds: Models trained on a part of the images; 0 for the kinds `leave-one-out` and `none`.
        rate: The promised false-alarm rate, in (0, 1).

    """

    kind: Kind
    held_out: int
    folds: int
    rate: float

    def calibrate(self, scores: Sequence[float] | Float[np.ndarray, "_held_out"]) -> Calibration:
        """Return the calibration by the scores of the held-out images; raises CalibrationError."""
        return Calibration.from_scores(self.kind, self.rate, scores)


def plan(
    n: int,
    rate: float | None,
    mode: CalibrationMode = "auto",
    *,
    leaves_one_out: bool = False,
    images: str = "good images",
) -> Plan:
    """Plan the calibration of a model with n good images, or n groups of them.

    Args:
        n: Number of good images, or of groups.
        rate: The false-alarm rate to promise, in (0, 1); None asks for the default rate of the images.
        mode: `leave-one-out` trains once on all images and scores each by the model without it; `split` trains on at
            least half of the images and calibrates with the others; `cross` scores every image with a model trained
            on the other folds; `none` promises nothing. `auto` leaves one out if the method supports it; otherwise it
            splits if that leaves enough images to train on, and else cross-fits.
        leaves_one_out: Whether the method supports `leave-one-out`.
        images: Name of what is counted, for messages.

    Raises:
        CalibrationError: If there are too few images for the rate.
        SettingsError: If the method does not support the mode.
        ValueError: If the rate is not in (0, 1).

    """
    if rate is not None:
        check_rate(rate)
    if mode == "none":
        return Plan("none", 0, 0, DEFAULT_RATE if rate is None else rate)
    if mode == "leave-one-out" and not leaves_one_out:
        raise SettingsError(
            "this method cannot score a training image as if it had not been trained on; "
            "choose `--calibration split` or `cross`"
        )
    if n < 2:
        raise CalibrationError(
            f"calibration needs at least 2 {images} and there "
            f"{'is 1' if n == 1 else 'are none'}; add images or train with `--calibration none`"
        )
    if mode == "leave-one-out" or (mode == "auto" and leaves_one_out):
        rate = default_rate(n) if rate is None else rate
        _require(images_needed(rate), n, rate, images)
        return Plan("leave-one-out", n, 0, rate)
    half = n // 2
    if rate is None and (mode == "split" or (mode == "auto" and half >= ENOUGH)):
        rate = default_rate(half)
        return Plan("split", max(1, min(half, Calibration.images_for(rate).default)), 1, rate)
    if rate is None:
        return Plan("cross", n, min(FOLDS, n), default_rate(n))
    needed = images_needed(rate)
    held_out = max(needed, math.ceil(HELD_OUT_SHARE * n))
    if mode != "cross" and held_out <= n / 2:
        return Plan("split", held_out, 1, rate)
    if mode == "split":
        _require(2 * needed, n, rate, f"{images} to hold half of them out")
    _require(needed, n, rate, images)
    return Plan("cross", n, min(FOLDS, n), rate)


def _require(needed: int, n: int, rate: float, images: str) -> None:
    if n < needed:
        raise CalibrationError(too_few(rate, needed, n, images))


def split(
    n: int, plan: Plan, seed: int, groups: Int[np.ndarray, "n"] | None = None
) -> list[Int[np.ndarray, "_held_out"]]:
    """Return the indices, ascending, that each model in turn is not trained on.

    One array for a split, one per fold (together all images) for a cross plan, none otherwise.

    Args:
        n: Number of images.
        plan: Counts images or, with groups, groups.
        seed: Of the drawing.
        groups: Group of each image, numbered from 0; the images of one group are held out together.

    """
    if groups is None:
        groups = np.arange(n)
    shuffled = np.random.default_rng(seed).permutation(int(groups.max()) + 1)
    if plan.folds == 0:
        return []
    parts = [shuffled[: plan.held_out]] if plan.kind == "split" else np.array_split(shuffled, plan.folds)
    return [np.flatnonzero(np.isin(groups, part)) for part in parts]


def has_groups(description: Mapping[str, Any]) -> bool:
    """Return whether a model was trained with groups, from its description (see `Predictor.describe`).

    Examples:
        >>> has_groups({"training": {"data": {"images": 50, "groups": 10}}}), has_groups({"training": {}})
        (True, False)

    """
    return "groups" in description.get("training", {}).get("data", {})


def one_per_group(groups: Int[np.ndarray, "n"], seed: int) -> Int[np.ndarray, "_groups"]:
    """Return the index of one image of each group, drawn at random, ascending by group.

    Images of one lot are alike, so that their scores are not independent. One score per lot is: the promise then holds
    for a new image of a new lot.

    Examples:
        >>> one_per_group(np.array([0, 0, 1, 0, 2]), seed=0).tolist()[1:]
        [2, 4]

    """
    shuffled = np.random.default_rng((seed, len(groups))).permutation(len(groups))
    _, first = np.unique(groups[shuffled], return_index=True)
    drawn: Int[np.ndarray, "_groups"] = shuffled[first]
    return drawn
