"""Sets of parts: several views of each part, in several lightings or one, in whatever way they lie on the disk."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hyperspot.data.datasets import list_categories, open_dataset
from hyperspot.data.layouts import Found, Sample, recognize
from hyperspot.data.layouts.base import label_of, masks_by_stem, split_of, table_rows
from hyperspot.data.problems import check, relative
from hyperspot.errors import DataError
from hyperspot.images.finding import find_folders, find_images, natural_key

REAL_IAD = r"(?P<part>[^/]+)_(?P<view>C\d+)_[^/]*$"
"""Names of Real-IAD: `audiojack_0001_NG_HS_C3_20230922.jpg` is the view C3 of the part `audiojack_0001_NG_HS`."""
CONVENTIONS = (
    "use VIEW/train/good/ID.png, train/good/ID/VIEW.png, ID/VIEW.png or a CSV table with the columns part, view and "
    "path, or give --pattern, a regular expression with the groups part and view"
)
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


class _Placed(NamedTuple):
    """A sample, and which image of which part it is."""

    sample: Sample
    part: str
    image: str


class _Found(NamedTuple):
    """What a convention reads; `checked` samples come from an opened data set."""

    layout: str
    placed: list[_Placed]
    problems: list[str]
    checked: bool = False
    masks: tuple[Path, ...] = ()


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

    `VIEW/ID.png` is read, too: the smaller of the two sets of names is that of the views.

    Args:
        root: A folder or a CSV table. Of the table, the columns `split`, `label`, `mask` and `defect` are optional:
            without `label` all parts are good, and without `split` the good ones are for training.
        pattern: A regular expression with the groups `part` and `view`, and optionally `light`, found in the path below
            the root.
        layout: Of the data sets; `auto` recognizes it.
        category: The product, if the folder holds several.
        views: Known names of images; they decide what is a view in folders of images.

    Raises:
        DataError: Nothing is there, no convention fits, a part has two images of one view, or one image is in two
            parts or in both splits.

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
    found = _find(root, _compiled(pattern), layout, category, views)
    placed = _checked(found, root)
    if not placed:
        raise DataError(f"{root} holds no part with several views; {CONVENTIONS}")
    images = tuple(sorted({one.image for one in placed}, key=natural_key))
    if found.layout == "names":
        placed = _in_one_split(placed, found.problems)
    parts = _parts(placed, root, images)
    name = root.stem if root.is_file() else category or root.resolve().name
    return PartSet(root, found.layout, name, images, parts, tuple(found.problems))


def _find(
    root: Path, pattern: re.Pattern[str] | None, layout: str, category: str | None, views: Sequence[str]
) -> _Found:
    if root.is_file():
        return _Found("csv", list(_from_table(root)), [])
    if pattern is not None:
        return _by_name(root, pattern, layout, category)
    # The folders of Real-IAD are samples, not views; folders OK and NG are labels, whatever lies in them.
    labeled = (root / "OK").is_dir() and (root / "NG").is_dir()
    if category is None and not labeled and "real_iad" not in (layout, recognize(root)):
        for found in (_view_folders(root, layout), _part_folders(root, views)):
            if found.placed:
                return found
    return _by_name(root, re.compile(REAL_IAD), layout, category)


def _compiled(pattern: str | None) -> re.Pattern[str] | None:
    if pattern is None:
        return None
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(f"--pattern '{pattern}' is no regular expression ({error}); correct it") from None
    if not {"part", "view"} <= set(compiled.groupindex):
        raise DataError(
            f"--pattern '{pattern}' lacks the group part or view; write for example "
            r"'(?P<part>\d+)_(?P<view>[a-z]+)'"
        )
    return compiled


def _from_table(table: Path) -> Iterator[_Placed]:
    for line, row in table_rows(table, ("part", "view", "path")):
        where = f"line {line} of {table}"
        path = table.parent / row["path"]
        if not row["path"] or not path.is_file():
            raise DataError(f"{where} names the image '{row['path']}', which does not exist; correct the path")
        if not row["part"] or not row["view"]:
            raise DataError(f"{where} names no {'part' if not row['part'] else 'view'}; fill the column in")
        label = label_of(row["label"], where) if "label" in row else 0
        split = split_of(row["split"], where) if row.get("split") else "train" if label == 0 else "test"
        masks = tuple(table.parent / part.strip() for part in row.get("mask", "").split("|") if part.strip())
        defect = {0: "good", 1: row.get("defect") or "defect", None: ""}[label]
        sample = Sample(path, label, split, defect, masks if label == 1 else ())
        yield _Placed(sample, row["part"], _image(row["view"], row.get("light", "")))


def _view_folders(root: Path, layout: str) -> _Found:
    """Read a data set per view, or per view and lighting."""
    placed: list[_Placed] = []
    problems: list[str] = []
    views = list_categories(root)
    for folder in find_folders(root):
        lights = [""] if folder.name in views else list_categories(folder)
        for light in lights:
            data, image = open_dataset(folder / light, layout), _image(folder.name, light)
            problems += [f"{image}: {problem}" for problem in data.problems]
            named = [relative(sample.path.with_suffix(""), data.root) for sample in data.samples]
            placed += [_Placed(sample, part, image) for sample, part in zip(data.samples, named, strict=True)]
    return _Found("views", placed, problems, checked=True)


class _Folder(NamedTuple):
    """A folder of folders of images, and what it says about them."""

    path: Path
    split: Literal["train", "test"]
    label: Literal[0, 1]
    truth: Path

    def sample(self, path: Path, masks: Mapping[str, tuple[Path, ...]]) -> Sample:
        defect = self.path.name if self.label else "good"
        return Sample(path, self.label, self.split, defect, masks.get(path.stem, ()) if self.label else ())


def _folders(root: Path) -> Iterator[_Folder]:
    truth = root / "ground_truth"
    if (root / "train").is_dir() or (root / "test").is_dir():
        yield _Folder(root / "train" / "good", "train", 0, truth / "good")
        for folder in find_folders(root / "test") if (root / "test").is_dir() else []:
            yield _Folder(folder, "test", 0 if folder.name == "good" else 1, truth / folder.name)
    elif (root / "good").is_dir():
        yield _Folder(root / "good", "train", 0, truth / "good")
        for folder in find_folders(root):
            if folder.name not in ("good", truth.name):
                yield _Folder(folder, "test", 1, truth / folder.name)
    else:
        yield _Folder(root, "train", 0, truth)


def _part_folders(root: Path, views: Sequence[str]) -> _Found:
    """Read ID/VIEW.png, ID/VIEW/LIGHT.png and VIEW/ID.png below the folders of splits and defects."""
    placed: list[_Placed] = []
    flat: list[tuple[_Folder, str, Sample]] = []
    for folder in _folders(root):
        for outer in find_folders(folder.path) if folder.path.is_dir() else []:
            if outer == folder.truth:
                continue
            masks = masks_by_stem(folder.truth / outer.name)
            flat += [(folder, outer.name, folder.sample(path, masks)) for path in find_images(outer)]
            for view in find_folders(outer):
                for path in find_images(view):
                    lit = folder.sample(path, masks_by_stem(folder.truth / outer.name / view.name))
                    placed.append(_Placed(lit, relative(outer, root), _image(view.name, path.stem)))
    outers, stems = {outer for _, outer, _ in flat}, {sample.path.stem for _, _, sample in flat}
    known = set(views)
    if known and stems <= known:
        folders_are_views = False
    elif known and outers <= known:
        folders_are_views = True
    elif len(outers) == len(stems) > 1:
        raise DataError(
            f"{root} holds {len(outers)} folders with {len(stems)} names of images, so that views and parts cannot be "
            r"told apart; give --pattern, for example '(?P<view>\w+)/(?P<part>\w+)\.'"
        )
    else:
        folders_are_views = len(outers) < len(stems)
    for folder, outer_name, sample in flat:
        names = (sample.path.stem, outer_name) if folders_are_views else (outer_name, sample.path.stem)
        placed.append(_Placed(sample, relative(folder.path / names[0], root), names[1]))
    return _Found("folders", placed, [], masks=(root / "ground_truth",))


def _by_name(root: Path, pattern: re.Pattern[str], layout: str, category: str | None) -> _Found:
    """Read a data set in any layout, or all images below a folder, and find part and view in their names."""
    if layout == "auto" and category is None and recognize(root) is None and pattern.pattern != REAL_IAD:
        inner = _view_folders(root, layout)
        samples, problems, checked = [one.sample for one in inner.placed], inner.problems, True
        if not samples:
            samples = [Sample(path, 0, "train", "good") for path in find_images(root, recursive=True)]
            checked = False
    else:
        data = open_dataset(root, layout, category)
        samples, problems, checked = list(data.samples), list(data.problems), True
    placed, others = [], []
    for sample in samples:
        match = pattern.search(relative(sample.path, root))
        if match is None or not match["part"] or not match["view"]:
            others.append(relative(sample.path, root))
        else:
            light = match.groupdict().get("light") or ""
            placed.append(_Placed(sample, match["part"], _image(match["view"], light)))
    if others and not placed:
        raise DataError(f"{root} holds no part with several views ({others[0]} names none); {CONVENTIONS}")
    if others:
        verb = "image names" if len(others) == 1 else "images name"
        problems.append(f"{len(others)} {verb} no part and view ({others[0]}); left out")
    return _Found("names", placed, problems, checked)


def _image(view: str, light: str) -> str:
    return f"{view}/{light}" if light else view


def _checked(found: _Found, root: Path) -> list[_Placed]:
    """Leave out what cannot be used, and refuse an image that is in two parts."""
    by_file: dict[Path, _Placed] = {}
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


def _in_one_split(placed: Sequence[_Placed], problems: list[str]) -> list[_Placed]:
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


def _parts(placed: Iterable[_Placed], root: Path, images: Sequence[str]) -> tuple[Part, ...]:
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
