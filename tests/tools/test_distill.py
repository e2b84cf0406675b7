"""The tool that makes the shipped backbone, on a few made-up photos and an untrained teacher."""

import hashlib
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from hyperspot.backbones import create
from hyperspot.backbones.compact import Compact
from tools.distill import cache as caches
from tools.distill import statistics, students, training
from tools.distill.checking import judged
from tools.distill.orthogonal import orthogonal
from tools.distill.photos import list_photos
from tools.distill.shipping import ship, student_of
from tools.distill.views import augmented

CPU = torch.device("cpu")
RECIPE = training.Recipe("tiny", steps=60, decay=20, warm_up=5, batch=8, rate=1e-2)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Noise under blurs of many widths, so that the teacher's maps differ from place to place."""
    root = tmp_path_factory.mktemp("photos")
    (root / "dtd").mkdir()
    generator = np.random.default_rng(0)
    for number in range(60):
        coarse = generator.integers(0, 256, (generator.integers(3, 20), generator.integers(3, 20), 3), np.uint8)
        folder = root / "dtd" if number % 2 else root
        Image.fromarray(coarse).resize((90, 70), Image.Resampling.BICUBIC).save(folder / f"{number:02}.png")
    return list_photos(root)


@pytest.fixture(scope="module")
def built(photos, tmp_path_factory):
    folder = tmp_path_factory.mktemp("caches")
    return {part: build(folder / part, photos, part) for part in ("training", "held_out")}


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(students.STUDENTS, "tiny", partial(Compact, "tiny", 8, (8, 16, 16), (1, 1, 1)))


def teacher():
    return create("resnet18", "random:0", output_negative_slope=caches.SLOPE)


def plan_of(photos, part, seed=0):
    count = len(photos.training if part == "training" else photos.held_out)
    return caches.Plan(photos.sha256, "random:0", part, count, views=2, size=32, seed=seed)


def build(folder, photos, part, **more):
    return caches.build(folder, plan_of(photos, part), photos, teacher(), device=CPU, **more)


def trained(built, folder, recipe=RECIPE, **more):
    measured = statistics.measure(built["training"])
    return training.train(
        recipe, built["training"], built["held_out"], measured, folder, device=CPU, validate_every=20, **more
    )


def state_of(folder):
    with safe_open(folder / training.STATE, framework="pt") as opened:
        return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_photos_are_listed_hashed_and_held_out_by_name(photos, tmp_path):
    assert len(photos.training) + len(photos.held_out) == 60
    assert set(photos.training).isdisjoint(photos.held_out)
    lines = [
        f"{hashlib.sha256((photos.root / path).read_bytes()).hexdigest()}  {path}\n"
        for path in sorted([*photos.training, *photos.held_out])
    ]
    assert photos.sha256 == hashlib.sha256("".join(lines).encode()).hexdigest()
    (tmp_path / "a.png").write_bytes((photos.root / photos.training[0]).read_bytes())
    with pytest.raises(ValueError, match="holds 1 photos, too few"):
        list_photos(tmp_path)


def test_views_follow_from_their_seed(photos):
    photo = np.asarray(Image.open(photos.root / photos.training[0]).convert("RGB"))
    one, again, other = (augmented(photo, 48, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert one.shape == (48, 48, 3)
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_a_cache_holds_what_the_teacher_says_of_its_views(built):
    rows = np.array([1, 4])
    views = built["training"].views(rows)
    told = teacher()(caches.normalized(views, teacher()))
    for kept, level in zip(built["training"].levels(rows), told, strict=True):
        # The teacher ran in bf16.
        assert (kept.float() - level).abs().max() < 0.03 * level.abs().max()


def test_a_cache_that_was_interrupted_is_finished_and_another_is_made_anew(photos, tmp_path):
    def stop(done, _total):
        if done >= 32:
            raise KeyboardInterrupt

    build(tmp_path / "whole", photos, "training")
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path / "cut", photos, "training", tell=stop)
    counted = []
    build(tmp_path / "cut", photos, "training", tell=lambda done, _: counted.append(done))
    assert counted[0] > 32
    for name in ("views", "c2", "c3", "c4"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    before = (tmp_path / "cut" / "views").read_bytes()
    caches.build(tmp_path / "cut", plan_of(photos, "training", seed=1), photos, teacher(), device=CPU)
    assert (tmp_path / "cut" / "views").read_bytes() != before


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_student_learns_and_a_killed_training_ends_as_a_whole_one(built, tmp_path, optimizer):
    recipe = replace(RECIPE, optimizer=optimizer)
    trained(built, tmp_path / "whole", recipe)
    trained(built, tmp_path / "cut", recipe, stop_after=37)
    assert json.loads((tmp_path / "cut" / training.CURVE).read_text().splitlines()[-1])["step"] == 20
    trained(built, tmp_path / "cut", recipe)
    assert same(state_of(tmp_path / "whole"), state_of(tmp_path / "cut"))
    curve = [json.loads(line) for line in (tmp_path / "whole" / training.CURVE).read_text().splitlines()]
    assert [line["step"] for line in curve] == [20, 40, 60]
    assert curve[-1]["loss"] < 0.8 * curve[0]["loss"]


def test_a_longer_run_goes_on_from_a_shorter_one(built, tmp_path):
    longer = replace(RECIPE, steps=70, decay=10)
    trained(built, tmp_path / "short")
    trained(built, tmp_path / "on", longer, start=tmp_path / "short" / "stable.safetensors")
    trained(built, tmp_path / "at_once", longer)
    assert same(state_of(tmp_path / "on"), state_of(tmp_path / "at_once"))
    with pytest.raises(ValueError, match="falls already"):
        trained(built, tmp_path / "no", replace(RECIPE, steps=30), start=tmp_path / "short" / "stable.safetensors")


def test_the_rate_rises_stays_and_falls():
    rates = [RECIPE.rate_at(step) for step in range(60)]
    assert rates[0] == pytest.approx(2e-3)
    assert rates[5:40] == [1e-2] * 35
    assert rates[-1] == pytest.approx(1e-2 / 20)


def test_every_epoch_sees_every_view_once_in_an_order_of_its_own():
    first, second = (np.concatenate([RECIPE.rows(epoch * 5 + step, 40) for step in range(5)]) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(40))
    assert not np.array_equal(first, second)


def test_the_loss_of_the_channels_means_is_one(built):
    measured = statistics.measure(built["training"])
    rows = np.arange(built["training"].plan.rows)
    taught = built["training"].levels(rows)
    for power in (0.0, 0.5, 1.0):
        loss = training.Loss(measured, replace(RECIPE, slope=1.0, power=power), CPU)
        means = [mean[:, None, None].expand(level.shape) for mean, level in zip(measured.means, taught, strict=True)]
        assert float(loss(means, taught)) == pytest.approx(1, rel=1e-3)
        exact = [torch.where(level < 0, level.float() / caches.SLOPE, level.float()) for level in taught]
        assert float(loss(exact, taught)) < 1e-9


def test_what_is_shipped_does_what_was_trained(photos, built, tmp_path):
    network = trained(built, tmp_path / "run")
    for module in network.modules():
        module.training = False
    shipped = student_of(tmp_path / "run")
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for folded, unfolded in zip(shipped(images), network(images), strict=True):
            # Weights are in half precision.
            assert (folded - unfolded).abs().max() < 5e-3 * unfolded.abs().max()
    sha256 = ship(tmp_path / "run", tmp_path / "w.safetensors")
    assert hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest() == sha256
    with safe_open(tmp_path / "w.safetensors", framework="pt") as opened:
        assert opened.metadata()["photos_sha256"] == photos.sha256
        assert json.loads(opened.metadata()["recipe"])["seed"] == 0


def test_muons_updates_have_singular_values_near_one():
    for shape in ((8, 40), (40, 8)):
        found = torch.linalg.svdvals(orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(0))))
        assert found.min() > 0.6
        assert found.max() < 1.3


def test_the_check_finds_what_was_put_into_a_regular_texture(tmp_path):
    (tmp_path / "dtd").mkdir()
    rows, columns = np.mgrid[:96, :96]
    for number in range(100):
        stripes = np.sin(rows * 0.3 + number) + np.sin(columns * (0.3 + 0.01 * number))
        Image.fromarray(np.uint8(127 + 40 * stripes)).save(tmp_path / "dtd" / f"{number:02}.png")
    found = list_photos(tmp_path)
    areas = judged(create("resnet18", "random:0"), found, list(found.held_out))
    assert len(areas) == len(found.held_out) > 1
    assert np.mean(areas) > 0.9
    # Features that know nothing find nothing.
    blind = create("resnet18", "random:0")
    for weight in blind.state_dict().values():
        weight.zero_()
    assert np.mean(judged(blind, found, list(found.held_out))) == pytest.approx(0.5)
