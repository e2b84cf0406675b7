"""The promise, measured: how often good photos alarm over many random splits, through the whole of fitting and judging.

The frozen pyramid of each photo is computed once; all else (drawing what is held out, fitting, scoring, the
p-value, the verdict) is done anew for each split by the code that a person runs. Given the photos, which of them are
trained on, held out and judged is drawn at random, so that the splits are independent of each other.
"""

import jaxtyping
import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from benchmarks import promise
from hyperspot import Detector
from hyperspot.backbones import create
from hyperspot.decision.planning import plan as plan_calibration
from hyperspot.detector import fitting
from hyperspot.detector.loading import ImageLoader
from hyperspot.detector.settings import make_settings
from hyperspot.hardware.devices import CPU
from hyperspot.images import InputSize
from hyperspot.utils.progress import SILENT

SIDE = 64
POOL, LEARNED, JUDGED = 90, 30, 8
RATE = 0.1
SMALL = {
    "cfa": {"levels": (4,), "bank_ratio": 4},
    "patchcore": {"levels": (4,), "dimensions": 64},
    "padim": {"channels": 16},
}
"""Settings of each method that make it fit in milliseconds."""
UNLIKELY = 1e-4
"""The chance that a bound below fails although the promise holds, were the seed another one."""


@pytest.fixture(scope="module")
def textures():
    """Return photos of a rough surface; roughness, light and color differ from photo to photo."""
    random = np.random.default_rng(0)
    photos = []
    for _ in range(POOL):
        grain = ndimage.gaussian_filter(random.standard_normal((SIDE, SIDE)), random.uniform(0.7, 2.0), mode="wrap")
        grain *= random.gamma(8, 1.5) / grain.std()
        color = random.normal((120, 115, 105), 6)
        noise = random.normal(0, 2, (SIDE, SIDE, 3))
        photos.append(np.clip(grain[..., None] + color + noise, 0, 255).round().astype(np.uint8))
    return photos


@pytest.fixture(scope="module")
def backbone():
    """Return a backbone that remembers what it has seen."""
    made = create("resnet18", weights="random:0")
    seen = {}

    def remembered(images):
        levels = []
        for image in images:
            key = image.contiguous().numpy().tobytes()
            if key not in seen:
                seen[key] = made.pyramid(image[None])
            levels.append(seen[key])
        return [torch.cat(level) for level in zip(*levels, strict=True)]

    made.forward = remembered
    return made


def alarms(textures, backbone, mode, splits, method="cfa"):
    """Return for each split which of the good photos judged were called anomalous."""
    size = InputSize(SIDE, SIDE, "stretch")
    called = []
    with pytest.MonkeyPatch.context() as patch:
        for seed in range(splits):
            # All splits make the same calls. Checking their types takes longer than the calls: the first is enough.
            patch.setattr(jaxtyping.config, "jaxtyping_disable", seed > 0)
            called.append(alarms_of_a_split(textures, backbone, mode, seed, method, size))
    return np.array(called)


def alarms_of_a_split(textures, backbone, mode, seed, method, size):
    drawn = np.random.default_rng((1, seed)).permutation(POOL)[: LEARNED + JUDGED]
    trained = [textures[number] for number in drawn[:LEARNED]]
    settings = make_settings(
        {
            "calibration": mode,
            "false_alarm_rate": RATE,
            "short_side": SIDE,
            "seed": seed,
            "method": method,
            "method_settings": SMALL[method],
        }
    )
    plan = plan_calibration(LEARNED, RATE, mode, leaves_one_out=True)
    fitted = fitting.fit(ImageLoader(trained, size), plan, backbone, settings, SILENT, CPU)
    assert fitted.decision_rule.calibration.kind == mode
    detector = Detector(fitted, settings, {})
    return [detector.predict(textures[number]).is_anomalous for number in drawn[LEARNED:]]


def test_a_split_keeps_its_promise_and_hardly_more(textures, backbone):
    """The p-value of exchangeable photos without ties is uniform over 1/(n+1) .. 1: the promise is kept and used up."""
    splits = 200
    called = alarms(textures, backbone, "split", splits)
    held_out = 9
    assert LEARNED * 0.2 < held_out == round(1 / RATE) - 1
    exact = np.floor(RATE * (held_out + 1)) / (held_out + 1)
    # One photo of each split: independent, so that their number is binomial.
    assert stats.binom.ppf(UNLIKELY, splits, exact) <= called[:, 0].sum() <= stats.binom.isf(UNLIKELY, splits, RATE)
    # All of them: those of one split share its threshold, so the deviation is taken from split to split.
    shares = called.mean(axis=1)
    error = shares.std(ddof=1) / np.sqrt(splits)
    print(f"observed {shares.mean():.4f} +- {error:.4f}, promised {RATE}")
    assert abs(shares.mean() - exact) <= stats.norm.isf(UNLIKELY) * error


def test_crossing_keeps_its_promise_about(textures, backbone):
    """Each photo is judged by a model that saw fewer photos than the one that is kept, so the promise is approximate.

    What is checked is looser: at most one and a half times the promise, and not so few that it says nothing.
    """
    splits = 120
    called = alarms(textures, backbone, "cross", splits)
    shares = called.mean(axis=1)
    error = shares.std(ddof=1) / np.sqrt(splits)
    print(f"observed {shares.mean():.4f} +- {error:.4f}, promised {RATE}")
    assert shares.mean() + stats.norm.isf(UNLIKELY) * error <= 1.5 * RATE
    assert shares.mean() - stats.norm.isf(UNLIKELY) * error >= 0.25 * RATE


@pytest.mark.parametrize(("method", "splits"), [("cfa", 30), ("patchcore", 20), ("padim", 20)])
def test_leaving_one_out_keeps_its_promise_about(textures, backbone, method, splits):
    """Each photo is scored by the memory of all others, so the promise is approximate, as in cross-fitting."""
    called = alarms(textures, backbone, "leave-one-out", splits, method)
    shares = called.mean(axis=1)
    error = shares.std(ddof=1) / np.sqrt(splits)
    print(f"observed {shares.mean():.4f} +- {error:.4f}, promised {RATE}")
    assert shares.mean() - stats.norm.isf(UNLIKELY) * error <= RATE
    assert shares.mean() + stats.norm.isf(UNLIKELY) * error >= 0.5 * RATE


@pytest.mark.parametrize("kind", promise.KINDS)
def test_the_benchmark_of_the_promise_finds_what_the_docs_say(kind, monkeypatch):
    """Every kind keeps the promise, and lots that are not named break it."""
    # The next test checks the types of the same calls.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    observed, error, rate = promise.simulate(kind, 10 if "ignored" in kind else 30, 150)
    margin = stats.norm.isf(UNLIKELY) * error
    if "ignored" in kind:
        assert observed - margin > rate
    else:
        assert observed - margin <= rate
        # Scores of models that knew few images are too high: kept, they leave few alarms, as the docs say.
        assert (observed + margin < 0.5 * rate) if "all ages" in kind else (observed + margin >= 0.3 * rate)


def test_the_benchmark_of_the_promise_prints_and_draws(tmp_path, capsys):
    promise.main(["--splits", "2", "--sizes", "10", "20", "--plot", str(tmp_path / "promise.svg")])
    lines = capsys.readouterr().out.splitlines()
    # Ten arrivals need twenty images.
    assert len(lines) == 2 + 2 * len(promise.KINDS) - sum("arrivals" in kind for kind in promise.KINDS)
    assert (tmp_path / "promise.svg").read_text().startswith("<?xml")
