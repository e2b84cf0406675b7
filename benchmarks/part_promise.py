"""How often good parts alarm, simulated over many sets of calibration parts, and how many defects are found.

    python -m benchmarks.part_promise --sets 2000

The image scores of the views are log-normal, with a scale of their own in each view, and correlated as those of one
part are. A defect shows in one view. Three rules are compared: the joint calibration of `hyperspot.parts`, each view at
the promised rate by itself, and each view at the rate divided by the number of views (Bonferroni).
"""

import argparse
from collections.abc import Sequence

import numpy as np

from hyperspot import Calibration, PartCalibration
from hyperspot.errors import CalibrationError

SIZES = (19, 39, 99, 299)
"""Numbers of calibration parts."""
VIEWS = 4
RATE = 0.05
FRESH = 50
"""New good parts of each set, and as many defective ones."""
SPREAD = (0.1, 0.2, 0.3, 0.5)
"""Standard deviation of the logarithm of the scores, of each view in turn."""
LEVEL = (1.0, 5.0, 0.2, 2.0)
CORRELATION = 0.3
DEFECT = 3.0
"""Standard deviations by which a defect raises the logarithm of the score of one view."""
RULES = ("joint", "each view at the rate", "rate / views")


def draw(count: int, views: int, random: np.random.Generator, *, defective: bool = False) -> np.ndarray:
    """Return image scores, a row per part and a column per view."""
    part, view = random.normal(size=(count, 1)), random.normal(size=(count, views))
    logs = np.sqrt(CORRELATION) * part + np.sqrt(1 - CORRELATION) * view
    if defective:
        logs[np.arange(count), random.integers(views, size=count)] += DEFECT
    return np.exp(np.resize(SPREAD, views) * logs) * np.resize(LEVEL, views)


def thresholds(rule: str, rate: float, scores: np.ndarray) -> list[float]:
    """Return the threshold of each view; raises CalibrationError if there are too few parts."""
    names = [str(view) for view in range(scores.shape[1])]
    if rule == "joint":
        joint = PartCalibration.from_scores("split", rate, names, scores)
        calibrations = [joint.of_view(name) for name in names]
    else:
        each = rate if rule == "each view at the rate" else rate / len(names)
        calibrations = [Calibration.from_scores("split", each, column) for column in scores.T]
    return [float(one.threshold) for one in calibrations if one.threshold is not None]


def simulate(
    rule: str, n: int, sets: int, *, views: int = VIEWS, rate: float = RATE, seed: int = 0
) -> tuple[float, float, float]:
    """Return the mean share of alarms of good parts, its standard error, and the share of found defective parts.

    Raises:
        CalibrationError: If the rule needs more parts for the rate.

    """
    random = np.random.default_rng((seed, n, views))
    alarms, found = [], []
    for _ in range(sets):
        limits = thresholds(rule, rate, draw(n, views, random))
        alarms.append((draw(FRESH, views, random) > limits).any(axis=1).mean())
        found.append((draw(FRESH, views, random, defective=True) > limits).any(axis=1).mean())
    return float(np.mean(alarms)), float(np.std(alarms) / np.sqrt(sets)), float(np.mean(found))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=2000)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--views", type=int, default=VIEWS)
    parser.add_argument("--rate", type=float, default=RATE)
    chosen = parser.parse_args(arguments)
    print("| parts | rule | promised, % | observed, % | ± | found, % |\n|---|---|---|---|---|---|")
    for n in chosen.sizes:
        for rule in RULES:
            promised = f"| {n} | {rule} | {100 * chosen.rate:g} |"
            try:
                observed, error, found = simulate(rule, n, chosen.sets, views=chosen.views, rate=chosen.rate)
            except CalibrationError:
                print(f"{promised} too few parts | | |")
            else:
                print(f"{promised} {100 * observed:.2f} | {100 * error:.2f} | {100 * found:.1f} |", flush=True)


if __name__ == "__main__":
    main()
