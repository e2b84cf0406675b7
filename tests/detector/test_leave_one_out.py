"""Calibration by leaving images out: what trains, what is scored, in which groups, and what a detector keeps of it."""

import gc
import time
import weakref

import numpy as np
import pytest
import torch

from hyperspot import Detector
from hyperspot.errors import CalibrationError, CalibrationWarning, DataError, ImageWarning, SettingsError
from hyperspot.features.coresets import k_centers, substitutes
from hyperspot.features.neighbors import Exchange, nearest_centered
from hyperspot.features.patches import PatchCache
from hyperspot.methods import METHODS
from hyperspot.methods.padim import left_out_distances

SETTINGS = {"short_side": 64, "false_alarm_rate": 0.2, "device": "cpu"}
SMALL = {"patchcore": {"dimensions": 64}, "padim": {"channels": 16}, "spade": {"images": 5}, "cfa": {}}


@pytest.fixture(scope="module")
def photos():
    """Return twelve good photos and, as the sixth, one with a bright square."""
    random = np.random.default_rng(0)
    made = [
        np.clip(random.normal(120, 6, (64, 64, 3)) + random.normal(0, 4), 0, 255).astype(np.uint8) for _ in range(13)
    ]
    made[5][24:40, 24:40] = random.integers(0, 256, (16, 16, 3))
    return made


@pytest.mark.parametrize("method", list(SMALL))
def test_all_images_train_and_the_odd_one_scores_highest(photos, method, tmp_path):
    detector = Detector.fit(photos, method=method, method_settings=SMALL[method], **SETTINGS)
    calibration = detector.decision_rule.calibration
    assert calibration.kind == "leave-one-out"
    assert [one.index for one in detector.held_out] == list(range(13))
    assert sorted(one.score for one in detector.held_out) == calibration.scores.tolist()
    highest = max(detector.held_out, key=lambda one: one.score)
    assert highest.index == 5
    # Trained on, it looks less odd, and its map is the one that its score comes from.
    assert detector.predict(photos[5]).score < highest.score
    assert highest.input_map.shape == (64, 64)
    assert np.unravel_index(highest.input_map.argmax(), (64, 64)) == pytest.approx((32, 32), abs=14)
    assert sum(one.input_map is not None for one in detector.held_out) == 12
    loaded = Detector.load(detector.save(tmp_path / "part.safetensors"), device="cpu")
    assert loaded.held_out == ()
    assert loaded.decision_rule.calibration.kind == "leave-one-out"
    assert loaded.predict(photos[0]).score == detector.predict(photos[0]).score


@pytest.mark.parametrize("crops", ["center", "fused"])
def test_crops_are_left_out_as_they_are_scored(photos, crops):
    found = Detector.fit(photos, method="spade", method_settings={"images": 5}, crops=crops, **SETTINGS)
    others = Detector.fit(
        photos[1:], method="spade", method_settings={"images": 5}, crops=crops, calibration="none", **SETTINGS
    )
    if crops == "fused":
        # Standardized by statistics of the other images, so only the order of pixels is the same.
        others.anomaly_model.score_stats = found.anomaly_model.score_stats
    expected = others.predict(photos[0])
    assert found.held_out[0].score == pytest.approx(expected.score, rel=1e-3)


@pytest.mark.parametrize("mode", ["split", "cross"])
def test_held_out_images_of_the_other_kinds(photos, mode):
    detector = Detector.fit(photos, calibration=mode, **SETTINGS)
    held = detector.held_out
    assert len(held) == len(detector.decision_rule.calibration.scores) == (4 if mode == "split" else 13)
    if mode == "split":
        for one in held:
            assert detector.predict(photos[one.index]).score == pytest.approx(one.score, rel=1e-5)


def test_without_calibration_nothing_is_held_out(photos):
    assert Detector.fit(photos, calibration="none", short_side=64).held_out == ()


def test_groups_are_left_out_together_and_calibrate_once(photos):
    """Two copies of the odd photo hide each other unless they are one group."""
    doubled = [*photos, photos[5].copy()]
    groups = [str(number) for number in range(13)] + ["5"]
    alone = Detector.fit(doubled, **SETTINGS)
    grouped = Detector.fit(doubled, groups=groups, **SETTINGS)
    assert grouped.held_out[5].score > 1.5 * alone.held_out[5].score
    assert grouped.held_out[13].score == pytest.approx(grouped.held_out[5].score, rel=0.05)
    assert len(grouped.held_out) == 14
    assert len(grouped.decision_rule.calibration.scores) == grouped.record["data"]["groups"] == 13
    for mode in ("split", "cross"):
        other = Detector.fit(doubled, groups=groups, calibration=mode, **SETTINGS)
        assert ({5, 13} <= {one.index for one in other.held_out}) or not {5, 13} & {one.index for one in other.held_out}


def test_groups_have_to_fit_the_images_and_the_rate(photos, tmp_path):
    with pytest.raises(DataError, match="13 good images have 3 groups; give one group per image"):
        Detector.fit(photos, groups=["a", "b", "c"], **SETTINGS)
    with pytest.raises(CalibrationError, match="at least 4 groups of good images and there are 2"):
        Detector.fit(photos, groups=["a"] * 6 + ["b"] * 7, **SETTINGS)
    from PIL import Image

    paths = []
    for number, photo in enumerate(photos):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(photo).save(paths[-1])
    given = [paths[0], paths[0], *paths[1:]]
    with pytest.warns(ImageWarning, match="given more than once"):
        detector = Detector.fit(given, groups=["a", "a", *map(str, range(12))], **SETTINGS)
    assert [one.index for one in detector.held_out] == [0, *range(2, 14)]


def test_a_method_that_trains_cannot_leave_one_out(photos):
    with pytest.raises(SettingsError, match="choose `--calibration split` or `cross`"):
        Detector.fit(photos, method="vae", calibration="leave-one-out", short_side=64)


def test_few_images_are_not_passed_over_in_silence(photos):
    with pytest.warns(CalibrationWarning, match=r"5 good images .* 50% of good parts .* 59 images would allow 5%"):
        detector = Detector.fit(photos[:5], short_side=64)
    assert detector.decision_rule.calibration.false_alarm_rate == 0.5


def test_the_cached_features_are_freed(photos, monkeypatch):
    kept = []
    collect = PatchCache.collect.__func__

    def watched(cls, batches):
        cache = collect(cls, batches)
        kept.append(weakref.ref(cache.levels[0]))
        return cache

    monkeypatch.setattr(PatchCache, "collect", classmethod(watched))
    detector = Detector.fit(photos, **SETTINGS)
    # A prefetch thread may end a moment after the results are there.
    for _ in range(50):
        gc.collect()
        if kept[0]() is None:
            break
        time.sleep(0.1)
    assert [one() for one in kept] == [None]
    assert len(detector.held_out) == 13


def naive(points, bank, k):
    return torch.cdist(points.double(), bank.double()).square().sort(dim=1).values[:, :k].float()


@pytest.mark.parametrize("excluded", [0, 3, 199, 200])
@pytest.mark.parametrize("added", [0, 1, 7])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_an_exchange_equals_a_search_of_the_changed_bank(excluded, added, k):
    generator = torch.Generator().manual_seed(excluded + added)
    bank, queries = torch.randn(200, 6, generator=generator), torch.randn(50, 6, generator=generator)
    mask = torch.zeros(200, dtype=torch.bool)
    mask[torch.randperm(200, generator=generator)[:excluded]] = True
    exchange = Exchange(mask, torch.randn(added, 6, generator=generator))
    k = min(k, exchange.size)
    if not k:
        return
    squares = bank.square().sum(1)
    found = nearest_centered(queries, bank, squares, max(k, 3))
    distances, columns = exchange.nearest(found, queries, bank, squares, k)
    changed = torch.cat([bank[~mask], exchange.added])
    torch.testing.assert_close(distances, naive(queries, changed, k), rtol=1e-4, atol=1e-4)
    own = torch.cat([bank, exchange.added])[columns]
    torch.testing.assert_close((queries[:, None] - own).square().sum(2), distances, rtol=1e-4, atol=1e-4)
    assert not torch.cat([mask, torch.zeros(added, dtype=torch.bool)])[columns].any()


def test_substitutes_cover_what_the_points_of_an_owner_covered():
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(400, 3, generator=generator)
    owners = torch.arange(400) // 20
    chosen = torch.tensor(list(k_centers(points, 60, generator)))
    bank = points[chosen]
    found = nearest_centered(points, bank, bank.square().sum(1), 3)
    radius = float(naive(points, bank, 1).max())
    replaced = substitutes(found, owners, bank, owners[chosen], points.__getitem__)
    assert set(replaced) == set(owners[chosen].tolist())
    for owner, numbers in replaced.items():
        own = owners[chosen] == owner
        assert not (owners[numbers] == owner).any()
        assert len(numbers) <= own.sum()
        stay = torch.cat([bank[~own], points[numbers]])
        others = points[owners != owner]
        if len(numbers) < own.sum():
            assert float(naive(others, stay, 1).max()) <= radius * (1 + 1e-5)
        for number in numbers:
            # Each was needed: it lies farther than the radius from all that was there without the substitutes.
            assert float(naive(points[number][None], bank[~own], 1)) > radius * (1 - 1e-5)


def test_an_owner_of_the_whole_coreset_is_replaced_by_the_others():
    points = torch.tensor([[0.0], [1.0], [5.0], [0.1], [1.1], [5.1]])
    owners = torch.tensor([0, 0, 0, 1, 1, 1])
    chosen = torch.tensor([0, 1, 2])
    found = nearest_centered(points, points[chosen], points[chosen].square().sum(1), 3)
    replaced = substitutes(found, owners, points[chosen], owners[chosen], points.__getitem__)
    assert replaced[0].tolist() == [3, 4, 5]


@pytest.mark.parametrize(("groups", "scale"), [([0, 1, 2, 3, 4, 5], 1.0), ([0, 0, 1, 1, 1, 2], 30.0)])
def test_padim_without_a_group_equals_the_gaussian_of_the_others(groups, scale):
    generator = torch.Generator().manual_seed(0)
    features = scale * torch.randn(2, 6, 4, generator=generator).double()
    groups = torch.tensor(groups)
    offsets = features - features.mean(1, keepdim=True)
    found = left_out_distances(offsets, offsets.mT @ offsets, groups, offsets.shape[1], 0.01)
    for place in range(2):
        for index in range(6):
            others = features[place, groups != groups[index]].numpy()
            covariance = np.cov(others.T) + 0.01 * np.eye(4)
            offset = features[place, index].numpy() - others.mean(0)
            expected = np.sqrt(offset @ np.linalg.solve(covariance, offset))
            assert float(found[place, index]) == pytest.approx(expected, rel=1e-6)


def test_copies_of_one_image_are_left_out_without_an_infinite_score(photos):
    copies = [photos[0].copy() for _ in range(4)]
    for method in METHODS:
        if method in SMALL:
            detector = Detector.fit(copies, method=method, method_settings=SMALL[method], **SETTINGS)
            scores = detector.decision_rule.calibration.scores
            assert np.isfinite(scores).all()
            assert scores.max() <= detector.predict(photos[5]).score / 2
