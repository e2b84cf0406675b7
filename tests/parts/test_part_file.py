"""The file of an inspector: whole or refused, with one clear sentence."""

import json
import zipfile

import numpy as np
import pytest

from hyperspot import PartInspector, open_part_set
from hyperspot.errors import CalibrationError, ModelFileError, SettingsError
from hyperspot.parts import part_file as archive
from hyperspot.runtime import ExportedDetector


def rewritten(path, target, change):
    """Return a copy whose manifest is changed, with a valid checksum."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == archive.MANIFEST:
                manifest = json.loads(content)
                manifest.pop("manifest_sha256")
                change(manifest)
                content = json.dumps({**manifest, "manifest_sha256": archive._manifest_sha256(manifest)}).encode()
            new.writestr(name, content)
    return target


@pytest.mark.parametrize("models", ["each", "shared"])
def test_it_comes_back(random_parts, tmp_path, models):
    parts = random_parts(12)
    inspector = PartInspector.fit(parts, models=models, short_side=64, false_alarm_rate=0.2)
    path = inspector.save(tmp_path / "part.hyperspot")
    with zipfile.ZipFile(path) as opened:
        assert len(opened.namelist()) == 1 + (2 if models == "each" else 1)
    loaded = PartInspector.load(path, device="cpu")
    assert (loaded.views, loaded.images, loaded.record) == (inspector.views, inspector.images, inspector.record)
    for part in parts[:3]:
        before, after = inspector.predict(part), loaded.predict(part)
        assert before.score == after.score
        assert before.p_value == after.p_value
        assert [one.threshold for one in before.views.values()] == [one.threshold for one in after.views.values()]
    again = loaded.with_false_alarm_rate(0.4).save(path)
    assert PartInspector.load(again).false_alarm_rate == 0.4
    assert PartInspector.load(again, false_alarm_rate=0.3).false_alarm_rate == 0.3


def test_recalibrated_floors_of_masks_are_kept(random_parts, tmp_path):
    """Views share a model and have floors of their own."""
    inspector = PartInspector.fit(random_parts(12), models="shared", short_side=64, false_alarm_rate=0.2)
    changed = inspector.recalibrate(random_parts(12, seed=1))
    loaded = PartInspector.load(changed.save(tmp_path / "part.hyperspot"))
    floors = [one.decision_rule.mask_floor for one in changed.predictors.values()]
    assert len(set(floors)) == 2
    assert [one.decision_rule.mask_floor for one in loaded.predictors.values()] == floors


def test_exported_models_are_saved_again(inspector, part_folder, tmp_path):
    path = inspector.export(tmp_path / "line.hyperspot")
    parts = open_part_set(part_folder)
    loaded = PartInspector.load(path)
    assert all(isinstance(one, ExportedDetector) for one in loaded.predictors.values())
    folder = loaded._unpacked.folder
    changed = loaded.recalibrate(parts, false_alarm_rate=0.3)
    del loaded
    again = PartInspector.load(changed.save(tmp_path / "again.hyperspot"))
    assert again.false_alarm_rate == 0.3
    assert again.predict(parts.test[0]).score == pytest.approx(changed.predict(parts.test[0]).score, rel=1e-5)
    assert folder.is_dir()
    del changed
    assert not folder.exists()
    with pytest.raises(ModelFileError, match="exported already"):
        again.export(tmp_path / "twice.hyperspot")


def test_tiled_models_are_exported_whole(tmp_path):
    """The model of the whole image lies beside that of the tiles."""
    pixels = np.random.default_rng(0).integers(100, 140, (12, 2, 128, 160), dtype=np.uint8)
    parts = [{"top/dark": dark, "top/bright": bright, "side": dark} for dark, bright in pixels]
    inspector = PartInspector.fit(
        parts, models="shared", short_side=64, tile=128, method="padim", false_alarm_rate=0.2, device="cpu"
    )
    assert all(one.tiling is not None for one in inspector.predictors.values())
    path = PartInspector.load(inspector.save(tmp_path / "part.hyperspot")).export(tmp_path / "line.hyperspot")
    with zipfile.ZipFile(path) as opened:
        assert opened.namelist() == [archive.MANIFEST, "model0.onnx", "model0.whole.onnx"]
    exported = PartInspector.load(path)
    again = PartInspector.load(exported.with_false_alarm_rate(0.4).save(tmp_path / "again.hyperspot"))
    expected = inspector.predict(parts[0]).score
    assert exported.predict(parts[0]).score == pytest.approx(expected, rel=1e-3)
    assert again.predict(parts[0]).score == exported.predict(parts[0]).score


def test_damage_is_found(part_file, tmp_path):
    content = bytearray(part_file.read_bytes())
    for place in (len(content) // 3, 200):
        damaged = tmp_path / "damaged.hyperspot"
        changed = content.copy()
        changed[place] ^= 1
        damaged.write_bytes(changed)
        with pytest.raises(ModelFileError, match="is damaged"):
            PartInspector.load(damaged)
    (tmp_path / "cut.hyperspot").write_bytes(content[:5000])
    with pytest.raises(ModelFileError, match="is not the model file of a part or is damaged"):
        PartInspector.load(tmp_path / "cut.hyperspot")


def small_archive(path):
    """Return an archive whose headers and directory are most of it."""
    model = path.with_name("model0.onnx")
    model.write_bytes(bytes(64))
    archive.write(path, {"views": {}, "calibration": {}, "record": {}}, [model])
    return path


def test_damaged_headers_and_directories_are_found(tmp_path):
    """Flip bits all over the ZIP structure; where a flip changes nothing that is read, the content is whole."""
    content = small_archive(tmp_path / "part.hyperspot").read_bytes()
    damaged = tmp_path / "damaged.hyperspot"
    manifest, _ = archive.read(tmp_path / "part.hyperspot")
    refused = 0
    places = [*range(content.index(b"{")), *range(content.rindex(b"}") + 1, len(content))]
    for place in places:
        for bit in (0, 3, 6):
            changed = bytearray(content)
            changed[place] ^= 1 << bit
            damaged.write_bytes(changed)
            try:
                found, unpacked = archive.read(damaged)
            except ModelFileError:
                refused += 1
            else:
                assert found == manifest
                assert (unpacked.folder / "model0.onnx").read_bytes() == bytes(64)
    assert refused > len(places)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_compressed_archives_are_refused(tmp_path, method):
    path = small_archive(tmp_path / "part.hyperspot")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "packed.hyperspot", "w", method) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(ModelFileError, match="is damaged"):
        archive.read(tmp_path / "packed.hyperspot")


def test_a_large_manifest_is_refused(tmp_path, monkeypatch):
    path = small_archive(tmp_path / "part.hyperspot")
    monkeypatch.setattr(archive, "LARGEST_MANIFEST", 100)
    with pytest.raises(ModelFileError, match="is damaged"):
        archive.read_manifest(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda manifest: manifest.update(format=99), "a newer hyperspot .* update hyperspot"),
        (lambda manifest: manifest.update(format=0), "an older hyperspot .* train it again"),
        (lambda manifest: manifest.pop("views"), "does not hold a whole part inspector"),
        (lambda manifest: manifest["views"].pop("left"), "are not those of its calibration"),
        (lambda manifest: manifest["views"]["left"].pop("images"), "does not hold a whole part inspector"),
        (lambda manifest: manifest["views"]["left"].update(file="../x"), "are not those of its calibration and its"),
        (lambda manifest: manifest["calibration"].update(scores=[[1.0, 2.0]]), "does not hold a whole part inspector"),
        (lambda manifest: manifest["sha256"].update({"../x.safetensors": "0"}), "is damaged"),
        (lambda manifest: manifest["sha256"].update({"none.safetensors": "0"}), "is damaged"),
    ],
)
def test_foreign_manifests_are_refused(part_file, tmp_path, change, message):
    with pytest.raises(ModelFileError, match=message):
        PartInspector.load(rewritten(part_file, tmp_path / "other.hyperspot", change))


def test_other_files_are_refused(part_file, model_file, tmp_path):
    with pytest.raises(ModelFileError, match="does not exist; give a file made by"):
        PartInspector.load(tmp_path / "none.hyperspot")
    with pytest.raises(ModelFileError, match="is a folder"):
        PartInspector.load(tmp_path)
    with pytest.raises(ModelFileError, match="is not the model file of a part"):
        PartInspector.load(model_file)
    with pytest.raises(SettingsError, match=r"model\d\.safetensors in .*part\.hyperspot runs in torch only"):
        PartInspector.load(part_file, engine="openvino")
    with pytest.raises(CalibrationError, match="smallest possible rate"):
        PartInspector.load(part_file, false_alarm_rate=0.001)


def test_it_is_not_written_elsewhere(inspector, tmp_path):
    with pytest.raises(ModelFileError, match=r"does not end in \.hyperspot"):
        inspector.save(tmp_path / "part.safetensors")
    with pytest.raises(ModelFileError, match="does not exist; make it or choose another place"):
        inspector.save(tmp_path / "none" / "part.hyperspot")
    (tmp_path / "folder.hyperspot").mkdir()
    with pytest.raises(ModelFileError, match="cannot be written"):
        inspector.save(tmp_path / "folder.hyperspot")
    assert list(tmp_path.iterdir()) == [tmp_path / "folder.hyperspot"]
