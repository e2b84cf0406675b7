"""A small made-up set of parts: the halves of the demo product are two views, and a defect shows in one or both."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hyperspot import PartInspector, make_product_set, read_image
from hyperspot.images import find_images

VIEWS = {"left": slice(0, 64), "right": slice(64, 128)}


@pytest.fixture(scope="session")
def part_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return train/good/ID/VIEW.png, test/DEFECT/ID/VIEW.png and the masks."""
    product = make_product_set(tmp_path_factory.mktemp("product"), train=24, good=8, defective=9, size=128)
    root = tmp_path_factory.mktemp("parts")
    for path in find_images(product, recursive=True):
        inner = path.relative_to(product).with_suffix("")
        pixels = read_image(path)
        is_mask = inner.parts[0] == "ground_truth"
        for view, half in VIEWS.items():
            target = root / inner.parent / inner.name.removesuffix("_mask") / f"{view}{'_mask' * is_mask}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels[:, half]).save(target)
    return root


@pytest.fixture(scope="session")
def inspector(part_folder: Path) -> PartInspector:
    """Return an inspector with a model for each view."""
    return PartInspector.fit(part_folder, short_side=64, false_alarm_rate=0.2)


@pytest.fixture(scope="session")
def part_file(inspector: PartInspector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return that inspector's file."""
    return inspector.save(tmp_path_factory.mktemp("model") / "part.hyperspot")


@pytest.fixture
def random_parts():
    """Return what draws parts of noise with the views `top` and `side`."""

    def draw(count: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
        pixels = np.random.default_rng(seed).integers(100, 140, (count, 2, 64, 64, 3), dtype=np.uint8)
        return [{"top": top, "side": side} for top, side in pixels]

    return draw
