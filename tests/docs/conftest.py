"""A folder with the files that the documentation names."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def documented_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return `images`, `data`, `parts`, `today`, `new`, `new.png`, `roi.json`, and the files of `part`."""
    from hyperspot import Detector, PartInspector, make_product_set
    from hyperspot.export import export
    from hyperspot.images import find_images

    folder = tmp_path_factory.mktemp("documented")
    data = make_product_set(folder / "data", train=24, good=12, defective=3, size=96)
    shutil.copytree(data / "train" / "good", folder / "images" / "good")
    shutil.copytree(data / "test" / "good", folder / "images" / "today")
    shutil.copytree(data / "test" / "stain", folder / "new")
    shutil.copy(data / "test" / "stain" / "000.png", folder / "new.png")
    page = (ROOT / "docs" / "how-to" / "inspect-only-a-region.md").read_text("utf-8")
    (folder / "roi.json").write_text(page.partition("```json\n")[2].partition("```")[0])
    detector = Detector.fit(folder / "images" / "good", short_side=96, false_alarm_rate=0.1, device="cpu")
    detector.save(folder / "part.safetensors")
    export(detector, folder / "part.onnx")
    for seed, name in enumerate(("parts", "today")):
        whole = make_product_set(folder / f"demo-{name}", seed=seed, train=12, good=4, defective=3, size=96)
        for view, box in (("left", (0, 0, 48, 96)), ("right", (48, 0, 96, 96))):
            for path in find_images(whole, recursive=True):
                target = folder / name / view / path.relative_to(whole)
                target.parent.mkdir(parents=True, exist_ok=True)
                Image.open(path).crop(box).save(target)
    inspector = PartInspector.fit(folder / "parts", short_side=96, false_alarm_rate=0.2, device="cpu")
    inspector.save(folder / "part.hyperspot")
    return folder


@pytest.fixture
def documented(documented_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the folder, which is the current folder of the test."""
    folder = tmp_path / "copy"
    shutil.copytree(documented_folder, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    return folder
