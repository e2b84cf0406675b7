"""Sets of parts: several views of each part, in several lightings or one, in whatever way they lie on the disk."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from hyperspot.data.layouts import Found, Sample
from hyperspot.data.part_conventions import CONVENTIONS, PartsFound, Placed, find_parts
from hyperspot.data.problems import check, relative
from hyperspot.errors import DataError
from hyperspot.images.finding import natural_key

NAMED = 3
"""Incomplete parts that are named."""


@dataclass(frozen=True)
class Part:
    """The images of one part.

    Attributes:
        name: Unique in its part set.
        samples: The image of each view by its name, `VIEW`, or of each view and lighting, `VIEW/LIGHTING`.

    Examples:
        >>> from pathlib import Path
        >>> from hyperspot import Part, Sample
        >>> good = Sample(Path("top/7.png"), label=0, split="test", defect="good")
        >>> bent = Sample(Path("side/7.png"), label=1, split="test", defect="bent")
        >>> part = Part("7", {"top": good, "side": bent})
        >>> part.label, part.defect, part.missing(["top", "side", "front"])
        (1, 'bent', ('front',))

    """

    name: str
    samples: Mapping[str, Sample]

    @property
    def split(self) -> Literal["train", "test"]:
        """Whether it is for training or for the test; equal for all its images."""
        return next(iter(self.samples.values())).split

    @property
    def label(self) -> Literal[0, 1] | None:
        """1 (defective) if one of its images is, 0 (good) if all are, else None."""
        labels = {sample.label for sample in self.samples.values()}
        return 1 if 1 in labels else None if None in labels else 0

    @property
    def defect(self) -> str:
        """The name of the first defect, `good`, or empty if the label is unknown."""
        named = [sample.defect for sample in self.samples.values() if sample.label == self.label]
        return named[0] if named and self.label is not None else ""

    @property
    def images(self) -> dict[str, Path]:
        """The image files by name."""
        return {name: sample.path for name, sample in self.samples.items()}

    def missing(self, images: Iterable[str]) -> tuple[str, ...]:
        """Return those of some image names that the part lacks."""
        return tuple(name for name in images if name not in self.samples)


@dataclass(frozen=True)
class PartSet:
    """The parts of one product, each seen in several views.

    Attributes:
        root: The folder or CSV table that was opened.
        layout: How it lies on the disk: `csv`, `views` (a data set per view), `folders` or `names`.
        name: The name of the product.
        images: Names of all images of a part: `VIEW`, or `VIEW/LIGHTING` where a view has several lightings.
        parts: All parts, in order.
        problems: Faults of the data that do not prevent its use, a sentence each.

    Examples:
        >>> from pathlib import Path
        >>> from hyperspot import Part, PartSet, Sample
        >>> top = Sample(Path("7/top.png"), label=0, split="train", defect="good")
        >>> parts = PartSet(Path("."), "folders", "nut", ("top",), (Part("7", {"top": top}),), ())
        >>> len(parts.train), len(parts.test), parts.describe()["train_good"]
        (1, 0, 1)

    """

    root: Path
    layout: str
    name: str
    images: tuple[str, ...]
    parts: tuple[Part, ...]
    problems: tuple[str, ...]

    @property
    def train(self) -> list[Part]:
        """The good training parts."""
        return [part for part in self.parts if part.split == "train" and part.label == 0]

    @property
    def test(self) -> list[Part]:
        """The test parts with a known label."""
        return [part for part in self.parts if part.split == "test" and part.label is not None]

    @property
    def incomplete(self) -> tuple[str, ...]:
        """Sentences on the parts that lack images which others have."""
        lacking = [(part.name, part.missing(self.images)) for part in self.parts if part.missing(self.images)]
        sentences = [
            f"the part {name} lacks the view{'s' * (len(missing) > 1)} {', '.join(missing)}"
            for name, missing in lacking[:NAMED]
        ]
        return (*sentences, *([f"{len(lacking) - NAMED} more parts lack views"] if len(lacking) > NAMED else []))

    def describe(self) -> dict[str, Any]:
        """Return the layout, the images of a part, the counts of parts and the problems, ready for JSON."""
        test = self.test
        return {
            "name": self.name,
            "layout": self.layout,
            "images": list(self.images),
            "train_good": len(self.train),
            "test_good": sum(part.label == 0 for part in test),
            "test_defective": sum(part.label == 1 for part in test),
            "defects": dict(Counter(part.defect for part in test if part.label == 1)),
            "unused": len(self.parts) - len(self.train) - len(test),
            "problems": [*self.problems, *self.incomplete],
        }


def open_part_set(
    root: Path | str,
    *,
    pattern: str | None = None,
    layout: str = "auto",
    category: str | None = None,
    views: Sequence[str] = (),
) -> PartSet:
    """Find the parts of a folder or a CSV table, and the views of each.

    | convention | one part | several lightings |
    |---|---|---|
    | a CSV table with the columns `part`, `view` and `path` | rows of equal `part` | a column `light` |
    | `VIEW/train/good/ID.png`, a data set per view in any layout | equal paths | `VIEW/LIGHT/train/good/ID.png` |
    | `train/good/ID/VIEW.png` and `test/DEFECT/ID/VIEW.png`, or `ID/VIEW.png` alone | a folder | `ID/VIEW/LIGHT.png` |
    | names as in Real-IAD, in a data set of any layout | equal text before `_C1_` | |
    | `pattern`, in a data set of any layout or any folders | equal group `part` | a group `light` |

    `VIEW/ID.png` is read, too: the smaller of the two sets of names is that of the views. The label is in the path of
    `test/DEFECT`, so that all views of a part lie in the folder of its defect, even those that do not show it; only a
    table and names label each view.

    Args:
        root: A folder or a CSV table. Of the table, the columns `split`, `label`, `mask` and `defect` are optional:
            without `label` all parts are good, and without `split` the good ones are for training.
        pattern: A regular expression with the groups `part` and `view`, and optionally `light`, found in the path below
            the root.
        layout: Of the data sets; `auto` recognizes it.
        category: The product, if the folder holds several.
        views: Known names of images; they decide what is a view in folders of images, and the root may be the folder
            of one part.

    Raises:
        DataError: Nothing is there, no convention fits, a part has two images of one view, one image is in two parts
            or in both splits, or a name of a part or a view is a path to another place.

    Examples:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from PIL import Image
        >>> from hyperspot import open_part_set
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for part in ("001", "002", "003"):
        ...         Path(folder, part).mkdir()
        ...         for view in ("top", "side"):
        ...             Image.new("L", (64, 48)).save(Path(folder, part, f"{view}.png"))
        ...     parts = open_part_set(folder)
        >>> parts.images, [part.name for part in parts.train]
        (('side', 'top'), ['001', '002', '003'])

    """
    root = Path(root)
    if not root.exists():
        raise DataError(f"{root} does not exist; give a folder of parts or a CSV table")
    found = find_parts(root, pattern, layout, category, views)
    placed = _checked(found, root)
    if not placed:
        raise DataError(f"{root} holds no part with several views; {CONVENTIONS}")
    if found.layout == "folders":
        placed = _without_strays(placed, root, views, found.problems)
    images = tuple(sorted({one.image for one in placed}, key=natural_key))
    if found.layout == "names":
        placed = _in_one_split(placed, found.problems)
    parts = _parts(placed, root, images)
    if found.layout in ("views", "folders"):
        found.problems.extend(_split_by_labels(parts))
    name = root.stem if root.is_file() else category or root.resolve().name
    return PartSet(root, found.layout, name, images, parts, tuple(found.problems))


def _checked(found: PartsFound, root: Path) -> list[Placed]:
    """Leave out what cannot be used, and refuse an image that is in two parts."""
    by_file: dict[Path, Placed] = {}
    for one in found.placed:
        other = by_file.setdefault(one.sample.path.resolve(), one)
        if other is not one:
            raise DataError(
                f"{relative(one.sample.path, root)} is in the parts {other.part} and {one.part}; give each image once"
            )
    if found.checked:
        return found.placed
    checked = check(Found([one.sample for one in found.placed], found.problems, found.masks), root, found.layout)
    found.problems[:] = checked.problems
    return [by_file[sample.path.resolve()]._replace(sample=sample) for sample in checked.samples]


def _without_strays(placed: list[Placed], root: Path, known: Sequence[str], problems: list[str]) -> list[Placed]:
    """Leave out images that are no known view, unless none is one."""
    strays = [one for one in placed if one.image not in known]
    if not 0 < len(strays) < len(placed):
        return placed
    verb = "image is" if len(strays) == 1 else "images are"
    first = relative(strays[0].sample.path, root)
    problems.append(f"{len(strays)} {verb} of no view that the model knows ({first}); left out")
    return [one for one in placed if one.image in known]


def _in_one_split(placed: Sequence[Placed], problems: list[str]) -> list[Placed]:
    """Put all images of a part into the split of its first view: layouts without an official split set images aside."""
    splits: dict[str, Literal["train", "test"]] = {}
    for one in sorted(placed, key=lambda one: natural_key(one.image)):
        splits.setdefault(one.part, one.sample.split)
    moved = {one.part for one in placed if one.sample.split != splits[one.part]}
    if moved:
        problems.append(
            f"images of {len(moved)} part{'s' * (len(moved) > 1)} lie in both splits ({min(moved)}); a part belongs to "
            "the split of its first view"
        )
    return [one._replace(sample=replace(one.sample, split=splits[one.part])) for one in placed]


def _split_by_labels(parts: Iterable[Part]) -> Iterator[str]:
    """Yield a sentence if views of equal names lie in folders of different labels: they are not one part then."""
    by_id: dict[str, list[Part]] = {}
    for part in parts:
        if part.split == "test":
            by_id.setdefault(part.name.rpartition("/")[2], []).append(part)
    split = [
        (one, other)
        for alike in by_id.values()
        for one, other in itertools.combinations(alike, 2)
        if one.defect != other.defect and one.samples.keys().isdisjoint(other.samples)
    ]
    if split:
        one, other = split[0]
        yield (
            f"{len(split)} pair{'s' * (len(split) > 1)} of parts of equal names have different labels and no view in "
            f"common ({one.name} in {', '.join(one.samples)} and {other.name} in {', '.join(other.samples)}); put the "
            "views of one part into folders of equal names, or label the views in a CSV table"
        )


def _parts(placed: Iterable[Placed], root: Path, images: Sequence[str]) -> tuple[Part, ...]:
    by_part: dict[str, dict[str, Sample]] = {}
    for one in placed:
        other = by_part.setdefault(one.part, {}).setdefault(one.image, one.sample)
        if other is not one.sample:
            raise DataError(
                f"the part {one.part} has two images of the view {one.image}, {relative(other.path, root)} and "
                f"{relative(one.sample.path, root)}; keep one of them"
            )
    for name, samples in by_part.items():
        if len({sample.split for sample in samples.values()}) > 1:
            raise DataError(f"the part {name} is both a training and a test part; move its images to one of them")
    names = sorted(by_part, key=natural_key)
    return tuple(
        Part(name, {image: by_part[name][image] for image in images if image in by_part[name]}) for name in names
    )
