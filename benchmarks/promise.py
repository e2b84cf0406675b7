"""How often good images alarm, simulated over many splits, for every kind of calibration.

    python -m benchmarks.promise --splits 1000 --plot docs/images/promise.svg
    python -m benchmarks.promise --images FOLDER_OF_GOOD_IMAGES --splits 100

Without images, each image is a set of synthetic patch features: a level and a texture of its own, and noise. The model
is the greedy coreset of the default method, and the image score the largest distance of a patch to it, so that fitting
takes milliseconds. With images, the features are those of the default backbone, computed once.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hyperspot.backbones import create
from hyperspot.benchmark.plots import Series, draw
from hyperspot.decision.calibration import LARGEST_DEFAULT, Calibration, default_rate
from hyperspot.decision.merging import merge_good_images
from hyperspot.decision.planning import Plan, one_per_group, split
from hyperspot.decision.rule import DecisionRule
from hyperspot.detector.loading import ImageLoader, normalize
from hyperspot.features.coresets import k_centers, substitutes
from hyperspot.features.neighbors import Exchange, nearest_centered
from hyperspot.features.patches import concatenate, pool
from hyperspot.images import InputSize, find_images
from hyperspot.methods.base import OLD

SIZES = (10, 20, 50, 100, 300)
"""Numbers of good images."""
FRESH = 20
"""New good images of each split."""
FOLDS = 5
LOT = 5
"""Images of a lot."""
PATCHES, CHANNELS = 4, 6
SHARE = 0.1
"""Share of the patches in the coreset."""
ARRIVALS = 10
"""Parts in which images arrive: one is trained on, the others are learned by updates."""
KINDS = (
    "split",
    "cross",
    "leave-one-out",
    "leave-one-out, lots of 5",
    "lots of 5, groups ignored",
    "leave-one-out, 10 arrivals",
    "10 arrivals, scores of all ages",
)


@dataclass(frozen=True)
class Images:
    """Patch features of good images, image x patch x channel, and the lot of each."""

    features: Tensor
    lots: np.ndarray

    def __len__(self) -> int:
        return len(self.features)

    def draw(self, count: int, random: np.random.Generator, *, in_lots: bool) -> np.ndarray:
        """Return some images in random order; in whole lots, the order of lots is random."""
        if not in_lots:
            return random.permutation(len(self))[:count]
        order = random.permutation(int(self.lots.max()) + 1)
        return np.concatenate([np.flatnonzero(self.lots == lot) for lot in order])[:count]


def synthetic(count: int, random: np.random.Generator, *, in_lots: bool) -> Images:
    """Return images whose level and texture vary, from image to image or also from lot to lot."""
    lots = np.arange(count) // LOT if in_lots else np.arange(count)

    def varied(scale: float, shape: tuple[int, ...]) -> np.ndarray:
        own = random.normal(0, scale, (count, *shape))
        return own if not in_lots else 0.5 * own + random.normal(0, scale, (int(lots.max()) + 1, *shape))[lots]

    level, roughness = varied(0.6, (1, CHANNELS)), np.exp(varied(0.25, (1, 1)))
    features = level + roughness * random.normal(0, 1, (count, PATCHES, CHANNELS))
    return Images(torch.from_numpy(features).float(), lots)


@torch.inference_mode()
def real(folder: Path) -> Images:
    """Return the pooled features of the default backbone, on a coarse grid."""
    paths = list(find_images(folder))
    size = InputSize(128, 128, "stretch")
    backbone = create("compact")
    loader = ImageLoader(paths, size)
    found = []
    for index in range(len(paths)):
        pixels = torch.from_numpy(loader[index].pixels[None])
        levels = [pool(level) for level in backbone.select(normalize(pixels, backbone.mean, backbone.std), (3, 4))]
        found.append(concatenate(levels)[:, ::4])
    return Images(torch.cat(found), np.arange(len(paths)))


class Coreset:
    """The greedy coreset of some images, with the largest distance of a patch as the image score.

    With a coreset before, it is chosen from its vectors and the new images, as an update does.
    """

    def __init__(self, features: Tensor, seed: int, before: "Coreset | None" = None) -> None:
        self.patches = features.shape[1]
        self.old = features.new_empty(0, features.shape[2]) if before is None else before.bank + before.center
        self.seen = len(features) + (0 if before is None else before.seen)
        points = torch.cat([self.old, features.flatten(0, 1)])
        count = max(1, int(SHARE * self.seen * self.patches))
        self.chosen = torch.tensor(list(k_centers(points, count, torch.Generator().manual_seed(seed))))
        self.center = points[self.chosen].mean(0)
        self.points = points - self.center
        self.bank = self.points[self.chosen]
        self.squares = self.bank.square().sum(1)

    def scores(self, features: Tensor) -> np.ndarray:
        """Return the scores of new images."""
        near, _ = nearest_centered(features.flatten(0, 1) - self.center, self.bank, self.squares, 1)
        return self._largest(near)

    def left_out(self, groups: np.ndarray) -> np.ndarray:
        """Return the score of each image, or of each new one, without its group."""
        new = torch.from_numpy(groups).repeat_interleave(self.patches)
        owners = torch.cat([new.new_full((len(self.old),), OLD), new])
        found = nearest_centered(self.points, self.bank, self.squares, min(3, len(self.bank)))
        bank_owners = owners[self.chosen]
        added = substitutes(found, owners, self.bank, bank_owners, self.points.__getitem__)
        near = found[0][:, :1].clone()
        for group, instead in added.items():
            own = owners == group
            exchange = Exchange(bank_owners == group, self.points[instead])
            part = (found[0][own], found[1][own])
            near[own] = exchange.nearest(part, self.points[own], self.bank, self.squares, 1)[0]
        return self._largest(near[len(self.old) :])

    def _largest(self, squares: Tensor) -> np.ndarray:
        return squares.reshape(-1, self.patches).amax(1).double().numpy()


def learned(features: Tensor, seed: int, *, all_ages: bool) -> tuple[Coreset, Calibration]:
    """Return the coreset and the calibration of images that arrive in parts."""
    first, *others = features.chunk(ARRIVALS)
    model = Coreset(first, seed)
    scores = model.left_out(np.arange(len(first)))
    maps = [np.array([score]) for score in scores]
    calibration = Calibration.from_scores("leave-one-out", LARGEST_DEFAULT, scores)
    rule = DecisionRule.from_good_images(calibration, maps, mask_false_alarm_rate=0.1)
    known = np.full(len(first), len(first))
    for part in others:
        seen, model = model.seen, Coreset(part, seed, model)
        new = model.left_out(np.arange(len(part)))
        maps = [np.array([score]) for score in new]
        calibrating = np.arange(len(new))
        rule, known = merge_good_images(rule, known, seen, list(new), maps, calibrating, None, alike=not all_ages)
    return model, rule.calibration


def share_of_alarms(kind: str, n: int, images: Images, seed: int) -> tuple[float, float]:
    """Return the share of alarms among new good images at the default rate, and that rate."""
    random = np.random.default_rng((n, seed))
    in_lots = "lots" in kind
    drawn = images.draw(n + FRESH, random, in_lots=in_lots)
    features, fresh = images.features[drawn[:n]], images.features[drawn[n:]]
    groups = np.unique(images.lots[drawn[:n]], return_inverse=True)[1] if kind.endswith("of 5") else np.arange(n)
    if kind == "split":
        rate = default_rate(n // 2)
        plan = Plan("split", n // 2, 1, rate)
        (held_out,) = split(n, plan, seed)
        model = Coreset(features[np.setdiff1d(np.arange(n), held_out)], seed)
        scores = model.scores(features[held_out])
    elif kind == "cross":
        rate = default_rate(n)
        plan = Plan("cross", n, FOLDS, rate)
        scores = np.empty(n)
        for part in split(n, plan, seed):
            scores[part] = Coreset(features[np.setdiff1d(np.arange(n), part)], seed).scores(features[part])
        model = Coreset(features, seed)
    elif "arrivals" in kind:
        model, calibration = learned(features, seed, all_ages="all ages" in kind)
        alarms = model.scores(fresh) > calibration.threshold
        return float(np.mean(alarms)), calibration.false_alarm_rate
    else:
        rate = default_rate(int(groups.max()) + 1)
        plan = Plan("leave-one-out", n, 0, rate)
        model = Coreset(features, seed)
        scores = model.left_out(groups)[one_per_group(groups, seed)]
    calibration = plan.calibrate(scores)
    return float(np.mean(model.scores(fresh) > calibration.threshold)), rate


def simulate(kind: str, n: int, splits: int, images: Images | None = None, seed: int = 0) -> tuple[float, float, float]:
    """Return the mean share of alarms over many splits, its standard error, and the promised rate."""
    shares = []
    rate = 1.0
    for number in range(splits):
        given = images
        if given is None:
            random = np.random.default_rng((seed, n, number, len(kind)))
            lots = -(-(n + FRESH) // LOT) * LOT
            given = synthetic(lots, random, in_lots="lots" in kind)
        share, rate = share_of_alarms(kind, n, given, number)
        shares.append(share)
    return float(np.mean(shares)), float(np.std(shares) / np.sqrt(splits)), rate


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=1000)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--images", type=Path, help="a folder of good images; default: synthetic features")
    parser.add_argument("--plot", type=Path, help="an .svg or .png file")
    chosen = parser.parse_args(arguments)
    images = None if chosen.images is None else real(chosen.images)
    kinds = [kind for kind in chosen.kinds if images is None or "lots" not in kind]
    series = []
    print("| calibration | n | promised, % | observed, % | ± |\n|---|---|---|---|---|")
    for kind in kinds:
        points = []
        for n in chosen.sizes:
            if images is not None and n + FRESH > len(images):
                continue
            if "arrivals" in kind and n < 2 * ARRIVALS:
                continue  # The first part needs two images: each is scored without itself.
            observed, error, rate = simulate(kind, n, chosen.splits, images)
            print(f"| {kind} | {n} | {100 * rate:.1f} | {100 * observed:.2f} | {100 * error:.2f} |", flush=True)
            points.append((float(n), observed / rate))
        if points:
            series.append(Series(kind, tuple(points)))
    if chosen.plot is not None:
        draw("Observed over promised false-alarm rate", "good images", "observed / promised", series, chosen.plot)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
