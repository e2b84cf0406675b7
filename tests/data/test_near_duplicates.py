"""Near duplicates: copies that were encoded, moved, brightened or made noisy are found, aligned products are not."""

import io
import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hyperspot.data import Dataset, Sample, open_dataset
from hyperspot.data.demo_product.product_set import make_product_set
from hyperspot.data.near_duplicates import describe_near_duplicates, find_near_duplicates, similar_pairs
from hyperspot.images import read_image


def reencoded(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=int(rng.integers(40, 80)))
    return np.asarray(Image.open(stream))


def moved(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.roll(image, rng.integers(-4, 5, 2), axis=(0, 1))


def brightened(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(image * rng.uniform(0.8, 1.2) + rng.uniform(-10, 10), 0, 255).astype(np.uint8)


def noisy(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


def all_of_them(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return reencoded(noisy(brightened(moved(image, rng), rng), rng), rng)


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Return an aligned product: all images look alike, and none shows a part twice."""
    folder = tmp_path_factory.mktemp("near") / "product"
    return open_dataset(make_product_set(folder, train=24, good=6, defective=6, size=256))


def with_copies(product: Dataset, root: Path, change: Callable[..., np.ndarray], count: int = 6) -> list[Sample]:
    """Return the samples of a product and changed copies of its first ones."""
    rng = np.random.default_rng(0)
    samples = list(product.samples)
    for sample in product.train[:count]:
        path = root / f"copy-of-{sample.path.name}"
        Image.fromarray(change(read_image(sample.path), rng)).save(path)
        samples.append(Sample(path, 0, "train", "good"))
    return samples


def names(groups: list[list[Sample]]) -> list[list[str]]:
    return [[sample.path.name for sample in group] for group in groups]


def test_an_aligned_product_has_none(product: Dataset):
    assert find_near_duplicates(product.samples) == []


@pytest.mark.parametrize("change", [reencoded, moved, brightened, noisy, all_of_them])
def test_changed_copies_are_found_and_nothing_else(product: Dataset, tmp_path: Path, change):
    groups = names(find_near_duplicates(with_copies(product, tmp_path, change)))
    wanted = [[f"{number:03}.png", f"copy-of-{number:03}.png"] for number in range(6)]
    assert all(group in wanted for group in groups)
    assert len(groups) >= 5


def test_a_burst_is_one_group_even_if_there_is_nothing_else(product: Dataset, tmp_path: Path):
    rng = np.random.default_rng(1)
    image = read_image(product.train[0].path)
    burst = []
    for number in range(5):
        path = tmp_path / f"{number}.png"
        Image.fromarray(np.clip(image + rng.normal(0, 2, image.shape), 0, 255).astype(np.uint8)).save(path)
        burst.append(Sample(path, 0, "train", "good"))
    assert names(find_near_duplicates(burst)) == [[f"{number}.png" for number in range(5)]]
    assert find_near_duplicates(burst, group=lambda sample: "one lot") == []
    assert find_near_duplicates(burst[:1]) == []


def test_two_images_alone_are_near_duplicates_only_if_they_are_nearly_equal():
    """Nothing tells what they share as images of one product: the first two correlate at 0.98."""
    rng = np.random.default_rng(0)
    background = rng.normal(0, 40, (128, 128))
    first, second = (
        np.clip(128 + background + rng.normal(0, 6, (128, 128)), 0, 255).astype(np.uint8) for _ in range(2)
    )
    assert similar_pairs([first, second]) == []
    assert similar_pairs([first, np.clip(first + rng.normal(0, 1, (128, 128)), 0, 255).astype(np.uint8)]) == [(0, 1)]


def test_byte_identical_unreadable_and_flat_images_are_left_out(product: Dataset, tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / f"{name}.png").write_bytes(product.train[0].path.read_bytes())
        Image.new("RGB", (64, 64), {"a": "black", "b": "white"}[name]).save(tmp_path / f"flat-{name}.png")
    (tmp_path / "broken.png").write_bytes(b"no image")
    samples = [Sample(path, 0, "train", "good") for path in sorted(tmp_path.iterdir())]
    assert find_near_duplicates(samples) == []


def test_the_sentence_says_what_follows_those_across_splits_first():
    def group(*names: str) -> list[Sample]:
        return [Sample(Path(name), 0, "test" if name.startswith("test") else "train", "good") for name in names]

    groups = [group("train/0", "train/1"), group("test/0", "test/1"), group("train/2", "train/3", "train/4", "test/2")]
    assert describe_near_duplicates(groups, str) == [
        "train/2, test/2, train/3 and 1 more look like one part, and are training and test images at once; keep one",
        "train/0 and train/1 look like one part, so that the promised false-alarm rate does not hold; keep one, or "
        "group them with --group-by",
        "test/0 and test/1 look like one part, which the test counts more than once; keep one",
    ]
    many = [group(f"train/{number}", f"train/{number + 1}") for number in range(0, 14, 2)]
    assert describe_near_duplicates(many, str)[-1] == "2 more groups of images look like one part each"


@pytest.mark.parametrize("category", ["transistor", "screw"])
def test_real_training_images_have_none_but_the_part_that_was_photographed_twice(real_data: Path, category: str):
    samples = open_dataset(real_data / category).train
    known = {"transistor": [], "screw": [["053.jpg", "173.jpg"]]}
    assert names(find_near_duplicates(samples)) == known[category]


def test_no_pair_is_counted_twice(product: Dataset, tmp_path: Path):
    groups = find_near_duplicates(with_copies(product, tmp_path, noisy))
    for one, other in itertools.combinations(groups, 2):
        assert not set(one) & set(other)
