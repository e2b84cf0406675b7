"""Detectors with tiles: one model sees all tiles, and an image has one anomaly map and one calibrated score."""

import shutil

import numpy as np
import pytest
from PIL import Image

from hyperspot import Detector, ExportedDetector, make_product_set
from hyperspot.data import open_dataset
from hyperspot.detector.settings import Settings
from hyperspot.detector.tile_choice import choose_tiles
from hyperspot.errors import DataError, ModelFileError, SettingsError
from hyperspot.images.tiles import TileGrid
from hyperspot.methods import METHODS

SETTINGS = {"short_side": 64, "tile": 64, "false_alarm_rate": 0.2, "device": "cpu"}
FAST = {
    "cflow": {"steps": 2}, "cutpaste": {"steps": 2}, "patch_svdd": {"steps": 2}, "vae": {"steps": 2},
    "patchcore": {"dimensions": 64}, "padim": {"channels": 16}, "spade": {"images": 5},
}  # fmt: skip


@pytest.fixture(scope="module")
def photos():
    """Return twelve good photos with a smooth texture, larger than a tile."""
    random = np.random.default_rng(0)
    return [
        np.clip(random.normal(120, 6, (96, 128, 3)) + random.normal(0, 4), 0, 255).astype(np.uint8) for _ in range(12)
    ]


@pytest.fixture(scope="module")
def tiled(photos):
    return Detector.fit(photos, **SETTINGS)


@pytest.fixture(scope="module")
def exported_to(tiled, tmp_path_factory):
    """Return what puts the exported files of the tiled detector into a folder; each format is exported once."""
    from hyperspot.export import export

    made = {}

    def copied(folder, suffix):
        if suffix not in made:
            made[suffix] = export(tiled, tmp_path_factory.mktemp("exported") / f"part.{suffix}").parent
        shutil.copytree(made[suffix], folder, dirs_exist_ok=True)
        return folder / f"part.{suffix}"

    return copied


@pytest.fixture(scope="module")
def defective(photos):
    bad = photos[0].copy()
    bad[50:58, 90:98] = 255
    return bad


@pytest.mark.parametrize("calibration", ["leave-one-out", "split", "cross", "none"])
def test_every_calibration_scores_whole_images(photos, defective, calibration):
    rate = None if calibration == "none" else 0.25
    detector = Detector.fit(photos, **{**SETTINGS, "calibration": calibration, "false_alarm_rate": rate})
    verdict = detector.predict(defective)
    assert verdict.heatmap.shape == (96, 128)
    assert np.unravel_index(verdict.heatmap.argmax(), (96, 128)) == pytest.approx((54, 94), abs=8)
    if calibration != "none":
        assert verdict.is_anomalous
        images = {"leave-one-out": 12, "cross": 12}.get(calibration, len(detector.held_out))
        assert len(detector.decision_rule.calibration.scores) == images
        assert len({one.index for one in detector.held_out}) == images


def test_a_left_out_image_is_scored_as_a_new_one(photos):
    """With PaDiM leaving out is exact: refitting without the image gives its score. One view needs no statistics."""
    settings = {**SETTINGS, "short_side": 128, "method": "padim", "method_settings": {"channels": 16}}
    found = Detector.fit(photos, **settings)
    others = Detector.fit(photos[1:], **{**settings, "calibration": "none"})
    assert found.tiling.whole is None
    assert others.predict(photos[0]).score == pytest.approx(found.held_out[0].score, rel=1e-3)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_takes_tiles(photos, defective, name):
    detector = Detector.fit(
        photos[:6], method=name, method_settings=FAST.get(name, {}), **{**SETTINGS, "calibration": "none"}
    )
    verdict = detector.predict(defective)
    assert verdict.heatmap.shape == (96, 128)
    assert np.isfinite(verdict.score)


def test_the_file_holds_the_tiling(tiled, defective, tmp_path):
    loaded = Detector.load(tiled.save(tmp_path / "part.safetensors"), device="cpu")
    assert loaded.tiling == tiled.tiling
    assert loaded.input_size == tiled.input_size
    assert loaded.predict(defective).score == tiled.predict(defective).score


@pytest.mark.parametrize(("engine", "suffix"), [("onnxruntime", "onnx"), ("openvino", "onnx"), ("openvino", "xml")])
def test_exported_files_give_the_same_verdicts(tiled, exported_to, photos, defective, tmp_path, engine, suffix):
    pytest.importorskip(engine, reason="this engine is not installed")
    exported = ExportedDetector.load(exported_to(tmp_path, suffix), engine=engine, precision="f32")
    for image in (photos[1], defective):
        expected = tiled.predict(image)
        found = exported.predict(image)
        assert found.score == pytest.approx(expected.score, rel=1e-4)
        # Rounding may choose another of two equally near neighbors.
        np.testing.assert_allclose(found.heatmap, expected.heatmap, rtol=1e-3, atol=0.03)
    assert exported.tiling == tiled.tiling
    again = ExportedDetector.load(exported.recalibrate(photos).save(tmp_path / f"again.{suffix}"), precision="f32")
    assert again.predict(defective).score == pytest.approx(exported.predict(defective).score, rel=1e-5)


def test_both_files_of_an_export_are_needed_and_belong_together(exported_to, photos, tmp_path):
    from hyperspot.export import export

    path = exported_to(tmp_path, "onnx")
    whole = tmp_path / "part.whole.onnx"
    other = Detector.fit(photos[:8], **SETTINGS)
    export(other, tmp_path / "other.onnx")
    (tmp_path / "other.whole.onnx").replace(whole)
    with pytest.raises(ModelFileError, match="not of the same export"):
        ExportedDetector.load(path)
    whole.unlink()
    with pytest.raises(ModelFileError, match="copy it beside"):
        ExportedDetector.load(path)


def test_quantized_files_take_tiles(photos, defective, tmp_path):
    pytest.importorskip("nncf", reason="nncf is not installed")
    from hyperspot.export import export

    folder = tmp_path / "good"
    folder.mkdir()
    for number, photo in enumerate(photos):
        Image.fromarray(photo).save(folder / f"{number:02}.png")
    detector = Detector.fit(open_dataset(folder), **{**SETTINGS, "calibration": "split", "false_alarm_rate": 0.25})
    exported = ExportedDetector.load(export(detector, tmp_path / "part.xml", int8=folder))
    assert exported.engine.precision == "int8"
    verdict = exported.predict(defective)
    assert verdict.is_anomalous
    assert np.unravel_index(verdict.heatmap.argmax(), (96, 128)) == pytest.approx((54, 94), abs=8)
    assert verdict.score > detector.predict(photos[0]).score


def test_shifting_the_grid_moves_no_pixel_by_more_than_a_twentieth(tmp_path):
    """The bound that docs/how-to/inspect-large-images.md states, relative to the range of the heatmap."""
    data = open_dataset(make_product_set(tmp_path, train=6, good=1, defective=2, size=512))
    tiled = Detector.fit(data, short_side=128, tile=256, false_alarm_rate=0.2, device="cpu")
    view, model = tiled.tiling.views[0], next(tiled.anomaly_model.views)
    assert view.tops == (0, 128, 256)
    cold, hot = tiled.decision_rule.heat_range
    # The view is one of two that are standardized and averaged.
    allowed = (hot - cold) * tiled.tiling.stats[0].map_deviation * 2 / 20
    for sample in (data.test[0], data.test[-1]):
        image = tiled.preprocess(sample.path).pixels
        maps = []
        for middle in (128, 136, 144, 160):
            grid = TileGrid(512, 512, 256, 256, (0, middle, 256), (0, middle, 256))
            maps.append(grid.blend(one for tiles in grid.batches(image) for one in model.run(tiles)[0]))
        assert max(np.abs(one - maps[0]).max() for one in maps[1:]) <= allowed


def test_what_auto_chooses():
    def choose(sizes, **settings):
        return choose_tiles(Settings(**settings), [sizes] * 3)

    assert choose((1024, 1024)).tiling is None
    assert choose((300, 400), tile="auto").tiling is None
    large = choose((2048, 3072), tile="auto")
    assert (large.input_size.height, large.input_size.width, large.scale) == (512, 768, 4.0)
    assert (large.tiling.tile, large.tiling.whole.height) == (512, 256)
    small = choose((2048, 3072), tile="auto", smallest_defect=12)
    assert (small.input_size.height, small.scale) == (2048, 1.0)
    coarse = choose((2048, 3072), tile="auto", smallest_defect=48)
    assert (coarse.input_size.height, coarse.scale, coarse.tiling.tile) == (683, 2048 / 683, 512)
    assert choose((2048, 3072), tile=512, pixels_per_tile_pixel=2).input_size.height == 1024


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tile": 100}, "multiple of 32"),
        ({"tile": 32}, "multiple of 32"),
        ({"tile": 64, "crops": "fused"}, "choose --crops full"),
        ({"smallest_defect": 4}, "need tiles"),
        ({"tile": "auto", "smallest_defect": 4, "pixels_per_tile_pixel": 2}, "leave --pixels-per-tile-pixel out"),
        ({"tile": 64, "sigma": 20}, "choose a smaller --sigma"),
        ({"tile": "auto", "pixels_per_tile_pixel": 0.5}, "pixels_per_tile_pixel"),
        ({"tile": "some"}, "tile"),
    ],
)
def test_settings_that_do_not_fit_are_refused(photos, settings, message):
    with pytest.raises(SettingsError, match=message):
        Detector.fit(photos, **settings)


def test_images_smaller_than_a_tile_are_one_tile(photos):
    choice = choose_tiles(Settings(tile=256), [(128, 192)] * 3)
    assert choice.tiling.whole is None
    assert [(view.tile_height, view.tile_width, len(view)) for view in choice.tiling.views] == [(128, 192, 1)]


def test_a_scale_that_leaves_too_few_pixels_is_refused():
    with pytest.raises(SettingsError, match="choose a smaller --pixels-per-tile-pixel"):
        choose_tiles(Settings(tile=256, pixels_per_tile_pixel=10), [(500, 500)])


def test_a_smallest_defect_that_leaves_too_few_pixels_is_named():
    with pytest.raises(SettingsError, match="choose a smaller --smallest-defect"):
        choose_tiles(Settings(tile=256, smallest_defect=400), [(500, 500)])


def test_long_strips_are_tiles_alone():
    choice = choose_tiles(Settings(tile=64, short_side=256), [(100, 4000)])
    assert choice.tiling.whole is None
    assert (choice.input_size.height, choice.input_size.width, choice.scale) == (100, 4000, 1.0)
    thin = choose_tiles(Settings(tile=256, short_side=64), [(80, 2000)])
    assert thin.input_size.letterbox(80, 2000).content == (slice(8, 88), slice(0, 2000))


@pytest.mark.parametrize("calibration", ["split", "none"])
def test_statistics_are_of_images_that_the_views_were_not_trained_on(photos, calibration):
    """SPADE scores its training images at almost zero."""
    detector = Detector.fit(
        photos, method="spade", **{**SETTINGS, "calibration": calibration, "false_alarm_rate": 0.25}
    )
    assert all(0.001 < stats.map_deviation < 1 for stats in detector.tiling.stats)
    assert all(stats.map_mean > 0.01 for stats in detector.tiling.stats)


def test_an_untiled_export_removes_the_view_of_the_whole_image_and_nothing_else(tiled, exported_to, photos, tmp_path):
    from hyperspot.export import export
    from hyperspot.export.exporting import summary

    untiled = Detector.fit(photos, short_side=64, false_alarm_rate=0.2, device="cpu")
    for suffix in ("onnx", "xml"):
        path = exported_to(tmp_path, suffix)
        whole = path.with_name(f"part.whole{path.suffix}")
        assert whole.is_file()
        before = summary(path)["megabytes"]
        export(untiled, path)
        assert not whole.exists()
        assert not whole.with_suffix(".bin").exists()
        assert summary(path)["megabytes"] < before
    mine = tmp_path / "part.whole.onnx"
    mine.write_bytes(b"something else")
    with pytest.raises(ModelFileError, match="move it or choose another name"):
        export(tiled, tmp_path / "part.onnx")
    assert mine.read_bytes() == b"something else"


def test_images_too_long_for_tiles_are_refused():
    with pytest.raises(DataError, match="more than 65536"):
        choose_tiles(Settings(tile=256, short_side=64), [(1000, 70_000)])
