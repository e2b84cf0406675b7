"""The demo's product: the same from the same seed, varied, and masked where the defect is."""

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from hyperspot.data import load_mask, open_dataset
from hyperspot.data.demo_product.product_set import KINDS, make_product_set, render
from hyperspot.data.demo_product.rendering import paint
from hyperspot.errors import DataError, SettingsError
from hyperspot.images import read_image

SMALL = {"train": 3, "good": 2, "defective": 4, "size": 64}


def test_the_set_is_whole_and_the_same_from_the_same_seed(tmp_path: Path) -> None:
    made = make_product_set(tmp_path / "one", seed=5, **SMALL)
    dataset = open_dataset(made)
    assert (dataset.layout, dataset.problems) == ("mvtec", ())
    assert (len(dataset.train), len(dataset.test)) == (3, 6)
    assert {sample.defect for sample in dataset.test} == {"good", *KINDS}
    for sample in dataset.test:
        mask = load_mask(sample, 64, 64)
        assert mask is not None
        assert mask.any() == (sample.label == 1)
    again = make_product_set(tmp_path / "two", seed=5, **SMALL)
    other = make_product_set(tmp_path / "three", seed=6, **SMALL)
    for path in sorted(made.rglob("*.png")):
        assert (again / path.relative_to(made)).read_bytes() == path.read_bytes()
    name = Path("train/good/000.png")
    assert not np.array_equal(read_image(made / name), read_image(other / name))
    make_product_set(made, seed=5, **SMALL)


def test_other_images_are_never_mixed_in(tmp_path: Path) -> None:
    make_product_set(tmp_path, **SMALL)
    (tmp_path / "train" / "good" / "mine.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"other images \(mine.png\)"):
        make_product_set(tmp_path, **SMALL)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        make_product_set(tmp_path / "file" / "set", **SMALL)


@pytest.mark.parametrize("wrong", [{"seed": -1}, {"train": -1}, {"size": 8}])
def test_senseless_numbers_are_refused(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(SettingsError, match="give"):
        make_product_set(tmp_path, **(SMALL | wrong))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("number", range(3))
def test_the_mask_is_where_the_defect_changed_the_image(kind: str, number: int) -> None:
    canvas = render(kind, 160, (0, 9, number))
    mask = canvas.mask()
    whole = paint(canvas.scene).image().astype(int)
    change = np.abs(canvas.image().astype(int) - whole).max(axis=2)
    far = ~ndimage.binary_dilation(mask, iterations=8)
    assert 12 <= mask.sum() < 0.05 * mask.size
    assert change[far].max() <= 2, "noise is the same, so nothing else may differ"
    assert change[mask].mean() > 12, "a defect can be seen"
    assert ndimage.label(mask, np.ones((3, 3)))[0].max() <= 8


def test_good_parts_vary_a_little() -> None:
    first, second = (render("good", 96, (0, 0, number)).image().astype(int) for number in range(2))
    difference = np.abs(first - second).mean()
    assert 1 < difference < 25
    assert not render("good", 96, (0, 0, 0)).mask().any()


def test_every_defect_of_the_demo_can_be_seen():
    from hyperspot.data.demo_product.product_set import KINDS, render

    # Among these is a scratch whose first draw shows in no pixel.
    for number in range(24):
        assert render(KINDS[number % len(KINDS)], 128, (0, 2, number)).mask().any(), number
