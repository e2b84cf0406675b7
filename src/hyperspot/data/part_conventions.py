"""The conventions by which part and view of an image are found: tables, folders and names."""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from hyperspot.data.datasets import list_categories, open_dataset
from hyperspot.data.layouts import Sample, recognize
from hyperspot.data.layouts.base import label_of, masks_by_stem, split_of, table_rows
from hyperspot.data.problems import relative
from hyperspot.errors import DataError
from hyperspot.images.finding import find_folders, find_images
from hyperspot.utils.names import leads_elsewhere

REAL_IAD = r"(?P<part>[^/]+)_(?P<view>C\d+)_[^/]*$"
"""Names of Real-IAD: `audiojack_0001_NG_HS_C3_20230922.jpg` is the view C3 of the part `audiojack_0001_NG_HS`."""
CONVENTIONS = (
    "use VIEW/train/good/ID.png, train/good/ID/VIEW.png, ID/VIEW.png or a CSV table with the columns part, view and "
    "path, or give --pattern, a regular expression with the groups part and view"
)


class Placed(NamedTuple):
    """A sample, and which image of which part it is."""

    sample: Sample
    part: str
    image: str


class PartsFound(NamedTuple):
    """What a convention reads; `checked` samples come from an opened data set."""

    layout: str
    placed: list[Placed]
    problems: list[str]
    checked: bool = False
    masks: tuple[Path, ...] = ()


def find_parts(root: Path, pattern: str | None, layout: str, category: str | None, views: Sequence[str]) -> PartsFound:
    """Read what the first convention that fits finds; `open_part_set` has the arguments and the errors."""
    compiled = _compiled(pattern)
    if root.is_file():
        return PartsFound("csv", list(_from_table(root)), [])
    if compiled is not None:
        return _by_name(root, compiled, layout, category)
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


def _from_table(table: Path) -> Iterator[Placed]:
    for line, row in table_rows(table, ("part", "view", "path")):
        where = f"line {line} of {table}"
        path = table.parent / row["path"]
        if not row["path"] or not path.is_file():
            raise DataError(f"{where} names the image '{row['path']}', which does not exist; correct the path")
        if not row["part"] or not row["view"]:
            raise DataError(f"{where} names no {'part' if not row['part'] else 'view'}; fill the column in")
        image = _image(row["view"], row.get("light", ""))
        _refuse_elsewhere(where, row["part"], image)
        label = label_of(row["label"], where) if "label" in row else 0
        split = split_of(row["split"], where) if row.get("split") else "train" if label == 0 else "test"
        masks = tuple(table.parent / part.strip() for part in row.get("mask", "").split("|") if part.strip())
        defect = {0: "good", 1: row.get("defect") or "defect", None: ""}[label]
        sample = Sample(path, label, split, defect, masks if label == 1 else ())
        yield Placed(sample, row["part"], image)


def _view_folders(root: Path, layout: str) -> PartsFound:
    """Read a data set per view, or per view and lighting."""
    placed: list[Placed] = []
    problems: list[str] = []
    views = list_categories(root)
    for folder in find_folders(root):
        lights = [""] if folder.name in views else list_categories(folder)
        for light in lights:
            data, image = open_dataset(folder / light, layout), _image(folder.name, light)
            problems += [f"{image}: {problem}" for problem in data.problems]
            named = [relative(sample.path.with_suffix(""), data.root) for sample in data.samples]
            placed += [Placed(sample, part, image) for sample, part in zip(data.samples, named, strict=True)]
    return PartsFound("views", placed, problems, checked=True)


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


def _part_folders(root: Path, views: Sequence[str]) -> PartsFound:
    """Read ID/VIEW.png, ID/VIEW/LIGHT.png and VIEW/ID.png below the folders of splits and defects."""
    placed: list[Placed] = []
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
                    placed.append(Placed(lit, relative(outer, root), _image(view.name, path.stem)))
    known, outers = set(views), {outer for _, outer, _ in flat}
    stems, lightings = {sample.path.stem for _, _, sample in flat}, {one.image for one in placed}
    if known and known.isdisjoint(outers | stems | lightings):
        own = list(_own_folder(root, known))
        if own:
            return PartsFound("folders", own, [])
    # Lightings lie in folders of parts.
    folders_are_views = known.isdisjoint(lightings) and _folders_are_views(root, outers, stems, known)
    for folder, outer_name, sample in flat:
        names = (sample.path.stem, outer_name) if folders_are_views else (outer_name, sample.path.stem)
        placed.append(Placed(sample, relative(folder.path / names[0], root), names[1]))
    return PartsFound("folders", placed, [], masks=(root / "ground_truth",))


def _own_folder(root: Path, known: set[str]) -> Iterator[Placed]:
    """Read the known VIEW.png and VIEW/LIGHT.png of a folder that is one part."""
    folder = _Folder(root, "train", 0, root / "ground_truth")
    for path in [*find_images(root), *(path for inner in find_folders(root) for path in find_images(inner))]:
        image = relative(path.with_suffix(""), root)
        if image in known:
            yield Placed(folder.sample(path, {}), root.resolve().name, image)


def _folders_are_views(root: Path, folders: set[str], stems: set[str], known: set[str]) -> bool:
    """Return whether the names of folders are those of views, rather than the names of the images in them.

    Those of which more are known views are; if that does not decide, the fewer. Raises DataError if nothing decides.
    """
    known_folders, known_stems = len(folders & known), len(stems & known)
    if known_folders != known_stems:
        return known_folders > known_stems
    if len(folders) == len(stems) > 1:
        raise DataError(
            f"{root} holds {len(folders)} folders with {len(stems)} names of images, so that views and parts cannot be "
            r"told apart; give --pattern, for example '(?P<view>\w+)/(?P<part>\w+)\.'"
        )
    return len(folders) < len(stems)


def _by_name(root: Path, pattern: re.Pattern[str], layout: str, category: str | None) -> PartsFound:
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
            image = _image(match["view"], match.groupdict().get("light") or "")
            _refuse_elsewhere(f"--pattern in {relative(sample.path, root)}", match["part"], image)
            placed.append(Placed(sample, match["part"], image))
    if others and not placed:
        raise DataError(f"{root} holds no part with several views ({others[0]} names none); {CONVENTIONS}")
    if others:
        verb = "image names" if len(others) == 1 else "images name"
        problems.append(f"{len(others)} {verb} no part and view ({others[0]}); left out")
    return PartsFound("names", placed, problems, checked)


def _refuse_elsewhere(where: str, *names: str) -> None:
    """Raise DataError if the results of a part would be written outside their folder: its names become file names."""
    for name in names:
        if leads_elsewhere(name):
            raise DataError(
                f"{where} names '{name}', which is a path to another place; use a name without '..' or a leading '/'"
            )


def _image(view: str, light: str) -> str:
    return f"{view}/{light}" if light else view
