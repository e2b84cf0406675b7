"""Every registered method keeps every rule of `hyperspot.testing`; a new method is covered by its registration."""

import pytest
import torch

from hyperspot.methods import METHODS, Method, MethodSettings
from hyperspot.testing import METHOD_RULES, MethodCase, check_method, missing_for_export

QUICK = {
    "cfa": {"steps": 5},
    "cflow": {"steps": 20, "blocks": 2, "places_per_step": 64},
    "cutpaste": {
        "steps": 3,
        "images_per_step": 2,
        "localization": "patches",
        "patch_steps": 3,
        "patches_per_step": 2,
    },
    "patch_svdd": {"steps": 3, "crops_per_step": 1, "pairs_per_crop": 8},
    "vae": {"steps": 5, "images_per_step": 2},
}
"""Settings for short training; they change no rule."""

TRAINED = {"cfa", "cflow", "cutpaste", "patch_svdd", "vae"}
"""Methods that train and report their steps."""

NOT_EXPORTED = {"spade"}
"""Methods whose computation depends on the image."""


@pytest.fixture(scope="module", params=list(METHODS))
def case(request):
    name = request.param
    return MethodCase(METHODS[name], settings=QUICK.get(name), exportable=name not in NOT_EXPORTED)


@pytest.mark.parametrize("rule", METHOD_RULES)
def test_rule(case, rule):
    if rule == "export" and missing_for_export():
        pytest.skip(f"not installed: {', '.join(missing_for_export())}")
    METHOD_RULES[rule](case)


@pytest.mark.parametrize("settings", [{}, {"neighbors": 1}, {"bank_ratio": 16, "neighbors": 9}])
def test_the_default_of_cfa_leaves_one_out(settings):
    assert METHODS["cfa"].leave_one_out(METHODS["cfa"].Settings(**settings)) == "approximate"
    METHOD_RULES["leave one out"](MethodCase(METHODS["cfa"], settings=settings))


@pytest.mark.parametrize(("name", "settings"), [("cfa", {}), ("patchcore", {"image_score": "reweighted"})])
def test_settings_that_learn_more_images(name, settings):
    assert METHODS[name].can_update(METHODS[name].Settings(**settings))
    METHOD_RULES["update"](MethodCase(METHODS[name], settings=settings))


def test_which_methods_learn_more_images():
    assert {name for name, method in METHODS.items() if method.can_update(method.Settings())} == {
        "cfa",
        "patchcore",
        "padim",
    }


class Alters(METHODS["padim"]):
    """Updates its tensors in place."""

    name = "brightness"

    def update(self, images, groups, *, seed, progress):
        old = self.mean
        found = list(super().update(images, groups, seed=seed, progress=progress))
        old.copy_(self.mean)
        return iter(found)


class Appends(METHODS["patchcore"]):
    """Keeps the old memory beside that of the new images."""

    name = "brightness"

    def update(self, images, groups, *, seed, progress):
        bank, center = self.bank, self.center
        found = list(super().update(images, groups, seed=seed, progress=progress))
        self.bank = torch.cat([self.bank, bank + center - self.center])
        self.squares = self.bank.square().sum(1)
        return iter(found)


class ForgetsTheNew(METHODS["padim"]):
    """Learns nothing."""

    name = "brightness"

    def update(self, images, groups, *, seed, progress):
        return ((self(image[None])[0][0].clone(), None) for image in torch.cat(list(images)))


class ForgetsTheOld(METHODS["padim"]):
    """Learns the new images alone."""

    name = "brightness"

    def update(self, images, groups, *, seed, progress):
        return self.fit_leave_one_out(images, groups, seed=seed, progress=progress)


class KeepsNew(METHODS["patchcore"]):
    """Scores new images with themselves in the memory."""

    name = "brightness"

    def update(self, images, groups, *, seed, progress):
        list(super().update(images, groups, seed=seed, progress=progress))
        results = [self(image[None]) for image in torch.cat(list(images))]
        return ((maps[0], scores[0]) for maps, scores in results)


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (Alters, "mean differs"),
        (Appends, "bank has"),
        (ForgetsTheNew, "a learned place"),
        (ForgetsTheOld, "unseen images are"),
        (KeepsNew, "an odd place"),
    ],
)
def test_a_wrong_update_is_named(broken, message):
    with torch.no_grad(), pytest.raises(AssertionError, match=message):
        METHOD_RULES["update"](MethodCase(broken))


@pytest.mark.parametrize(
    ("name", "settings", "support"),
    [
        ("cfa", {"steps": 5}, None),
        ("cfa", {"bank": "mean"}, None),
        ("cfa", {"bank": "clusters"}, None),
        ("cfa", {"steps": 5, "losses": "none"}, "approximate"),
        ("patchcore", {"image_score": "reweighted"}, "approximate"),
        ("padim", {}, "exact"),
        ("spade", {}, "exact"),
        ("vae", {}, None),
    ],
)
def test_which_settings_leave_one_out(name, settings, support):
    method = METHODS[name]
    assert method.leave_one_out(method.Settings(**settings)) == support


def test_methods_that_train_report_their_steps(case):
    METHOD_RULES["step callback"](case)
    assert bool(case.checkpoints) == (case.name in TRAINED)
    if case.checkpoints:
        assert not torch.equal(case.checkpoints[0][0], case.checkpoints[-1][0])


class Brightness(Method):
    """Scores pixels by their squared difference from the mean pixel; keeps every rule."""

    name = "brightness"
    Settings = MethodSettings
    uses_backbone = False

    def __init__(self, backbone, settings=None):
        super().__init__(backbone, settings)
        self.register_empty_buffers("mean")

    def fit(self, images, *, seed, progress):
        self.mean = torch.cat(list(images)).mean((0, 2, 3))

    def forward(self, images):
        return (images - self.mean[:, None, None]).square().sum(1), None


def test_a_class_that_is_not_registered_can_be_checked():
    assert check_method(Brightness) == tuple(
        rule for rule in METHOD_RULES if rule != "export" or not missing_for_export()
    )
    assert "brightness" not in METHODS


class NotAllBatches(Brightness):
    def forward(self, images):
        return (images - images.mean(0)).square().sum(1), None


class NoMap(Brightness):
    def forward(self, images):
        return super().forward(images)[0].mean((1, 2), keepdim=True)[:1], None


class Counts(Brightness):
    def forward(self, images):
        self.mean = self.mean + 1
        return super().forward(images)


class Overwrites(Brightness):
    def forward(self, images):
        return images.sub_(self.mean[:, None, None]).square().sum(1), None


class Forgets(Brightness):
    def fit(self, images, *, seed, progress):
        self.kept = torch.cat(list(images)).mean((0, 2, 3))
        self.mean = torch.zeros(3)

    def forward(self, images):
        kept = getattr(self, "kept", torch.zeros(3))
        return (images - kept[:, None, None]).square().sum(1), None


class Continues(Brightness):
    def fit(self, images, *, seed, progress):
        start = self.mean if self.mean.numel() else 0
        self.mean = start + torch.cat(list(images)).mean((0, 2, 3))


class DrawsGlobally(Brightness):
    def fit(self, images, *, seed, progress):
        super().fit(images, seed=seed, progress=progress)
        torch.rand(1)


class Empty(Brightness):
    def __init__(self, backbone, settings=None):
        super().__init__(backbone, settings)
        self.register_empty_buffers("unused")


class Inverted(Brightness):
    def forward(self, images):
        return -super().forward(images)[0], None


class Divides(Brightness):
    def forward(self, images):
        return super().forward(images)[0] / images.std((1, 2, 3), keepdim=True)[:, 0], None


class Overflows(Brightness):
    def forward(self, images):
        return super().forward(images)[0] + (40 * images).exp().sum(1), None


class AcceptsAll(Brightness):
    class Settings(MethodSettings):
        model_config = {"extra": "allow"}  # noqa: RUF012


class Miscounts(Brightness):
    def fit(self, images, *, seed, progress):
        super().fit(images, seed=seed, progress=progress)
        self.step_done(0, 2)
        self.step_done(1, 2)


class LateFinalize(Brightness):
    def fit(self, images, *, seed, progress):
        super().fit(images, seed=seed, progress=progress)

        def finalize():
            self.mean = self.mean + 1

        self.step_done(1, 1, finalize)


class Needs(Brightness):
    def forward(self, images):
        if torch.compiler.is_exporting():
            raise RuntimeError("not in a graph")
        return super().forward(images)


class Claims(Brightness):
    """Claims to leave images out exactly, and scores them as if they were new."""

    @classmethod
    def leave_one_out(cls, settings):
        return "exact"

    def fit_leave_one_out(self, images, groups, *, seed, progress):
        self.fit(images, seed=seed, progress=progress)
        return ((self(image[None])[0][0], None) for image in torch.cat(list(images)))


class KeepsOwn(METHODS["patchcore"]):
    """Forgets to pass over the vectors of the image."""

    name = "brightness"

    def fit_leave_one_out(self, images, groups, *, seed, progress):
        self.fit(images, seed=seed, progress=progress)
        results = [self(image[None]) for image in torch.cat(list(images))]
        return ((maps[0], scores[0]) for maps, scores in results)


class SkipsGroups(METHODS["spade"]):
    """Leaves the image out, but not the others of its group."""

    name = "brightness"

    def fit_leave_one_out(self, images, groups, *, seed, progress):
        alone = torch.arange(len(groups))
        return super().fit_leave_one_out(images, alone, seed=seed, progress=progress)


@pytest.mark.parametrize("broken", [Claims, KeepsOwn, SkipsGroups])
def test_what_is_not_left_out_is_named(broken):
    with pytest.raises(AssertionError):
        METHOD_RULES["leave one out"](MethodCase(broken))


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (NoMap, "shapes"),
        (NotAllBatches, "batch size"),
        (Counts, "forward is pure"),
        (Overwrites, "forward is pure"),
        (Continues, "same seed, same result"),
        (Miscounts, "step callback"),
        (LateFinalize, "step callback"),
        (DrawsGlobally, "global random state"),
        (Empty, "fitted state"),
        (Forgets, "fitted state"),
        (Inverted, "defects score higher"),
        (Divides, "poor training images"),
        (Overflows, "constant images"),
        (AcceptsAll, "unknown settings"),
    ],
)
def test_a_broken_rule_is_named(broken, rule):
    with pytest.raises(AssertionError, match=f"'brightness' breaks the rule '{rule}'"):
        check_method(broken)


def test_a_method_that_cannot_be_exported_has_to_say_so():
    if missing_for_export():
        pytest.skip(f"not installed: {', '.join(missing_for_export())}")
    with pytest.raises(AssertionError, match="'brightness' breaks the rule 'export'"):
        check_method(Needs)
    assert "export" in check_method(Needs, exportable=False)


def test_a_taken_name_is_refused():
    class Impostor(Brightness):
        name = "cfa"

    with pytest.raises(AssertionError, match="'cfa' belongs to another method"):
        check_method(Impostor)
