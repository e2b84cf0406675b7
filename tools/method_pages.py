"""Fill the marked regions of docs/methods/NAME.md from code and recorded runs.

    python -m tools.method_pages            # fill
    python -m tools.method_pages --check    # exit code 1 if a page would change

`settings`: names, defaults and meanings from the method's settings. `cost`: values of the formulas on the page.
`published`: from `published.json`. `ours`: from benchmarks/runs.jsonl.
"""

import argparse
import functools
import inspect
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_args

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hyperspot.backbones import NONE, create
from hyperspot.benchmark import notes, records
from hyperspot.benchmark.columns import ACCURACY, BACKBONE, METHOD, SEEDS, THEIR_BACKBONE, cells, metric_title
from hyperspot.benchmark.protocol import recipes_of
from hyperspot.benchmark.published import Entry, published
from hyperspot.benchmark.render import Cells, Column, Given, Table
from hyperspot.benchmark.runs import METRICS, frame, in_order, one_fingerprint, rows, shown
from hyperspot.methods import METHODS, padim, patch_svdd, training, vae

ROOT = Path(__file__).resolve().parents[1]
PAGES, LINES = ROOT / "docs" / "methods", ROOT / "benchmarks" / "runs.jsonl"
FAMILY = {"cfa": ("cfa", "cfa_resize", "cfa++")}
"""Published entries of a method beside the one of its name."""
EXAMPLE_IMAGES, EXAMPLE_SIDE = 209, 224
"""MVTec bottle in the papers' geometry."""
EXAMPLE_BACKBONES = ("resnet18", "wide_resnet50_2")
NOT_MEASURED = "not measured yet"
UNSET = "–"

Names = Mapping[str, Any]


def region(page: str, kind: str, name: str) -> str:
    """Return the text between the marks of a region; raises ValueError if the page lacks it."""
    found = re.search(rf"<!-- {kind}:{name} -->\n(.*?)<!-- /{kind} -->", page, re.DOTALL)
    if found is None:
        raise ValueError(f"docs/methods/{name}.md has no region {kind}:{name}")
    return found.group(1)


def filled(page: str, name: str, lines: Sequence[records.Line]) -> str:
    """Return the page with all regions filled."""
    made = {
        "settings": settings_table(name),
        "cost": cost_table(page, name),
        "published": published_table(name),
        "ours": ours_table(name, lines),
    }
    for kind, text in made.items():
        region(page, kind, name)
        before, _, rest = page.partition(f"<!-- {kind}:{name} -->\n")
        _, end, after = rest.partition(f"<!-- /{kind} -->")
        page = f"{before}<!-- {kind}:{name} -->\n{text}{end}{after}"
    return page


def settings_table(name: str) -> str:
    """Return all settings of a method: defaults, by variant if it has variants, and meanings."""
    owner = METHODS[name].Settings
    meanings = documented(owner)
    variants = get_args(owner.model_fields["variant"].annotation) if "variant" in owner.model_fields else ()
    chosen = [owner.model_validate({"variant": variant}) for variant in variants] or [owner()]
    titles = ["setting", *(variants or ("default",)), ""]
    rows = []
    for field in owner.model_fields:
        shown = [f"`{written(getattr(one, field))}`" for one in chosen]
        # A cell equal to the default is left empty.
        cells = shown[:1] + ["" if one == shown[0] else one for one in shown[1:]]
        rows.append([f"`{field}`", *(cell.replace(f"`{UNSET}`", UNSET) for cell in cells), meanings[field]])
    return markdown(titles, rows)


def documented(settings: type) -> dict[str, str]:
    """Return the meaning of each setting from the docstring of its class."""
    _, _, attributes = inspect.cleandoc(settings.__doc__ or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?= {4}\S)", "\n" + attributes.rstrip())[1:]:
        names, _, meaning = entry.strip().partition(": ")
        # Cells of a table end without a period.
        text = " ".join(meaning.split()).removesuffix(".").replace("|", "\\|")
        found |= dict.fromkeys(names.split(", "), text)
    return found


def written(value: Any) -> str:
    """Return a setting as `--set` takes it."""
    if value in (None, ()):
        return UNSET
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(written, value))
    return str(value)


def markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def formulas(page: str) -> str:
    """Return the formulas of a page: assignments in Python; the last two are memory and time."""
    found = re.search(r"## Memory and time\n.*?```python\n(.*?)```", page, re.DOTALL)
    if found is None:
        raise ValueError("the page has no formulas under 'Memory and time'")
    return found.group(1)


def evaluated(page: str, known: Names) -> tuple[float, float]:
    """Return the bytes kept and the multiplications per image by the formulas of a page."""
    values = {"__builtins__": {}, **known}
    exec(formulas(page), values)
    return values["memory"], values["time"]


def names(
    settings: Any, *, images: int, height: int, width: int, backbone: str, channels: Sequence[int]
) -> dict[str, Any]:
    """Return the names that formulas may use: settings, images and their grids, the backbone, some networks."""
    grids = [-(-height // stride) * -(-width // stride) for stride in (4, 8, 16)]
    return {
        **dict(settings),
        "n": images,
        "H": height,
        "W": width,
        "backbone": backbone,
        **{f"P{level}": places for level, places in enumerate(grids, 2)},
        **{f"c{level}": count for level, count in enumerate(channels, 2)},
        "P": dict(enumerate(grids, 2)),
        "c": dict(enumerate(channels, 2)),
        "default_channels": padim.CHANNELS.get(backbone, padim.CHANNELS_ELSE),
        **{one.__name__: one for one in (min, max, sum, int, math.ceil)},
        **NETWORKS,
    }


def multiplications(network: Callable[..., object], *inputs: torch.Tensor) -> int:
    """Return the multiplications of the matrix products and convolutions in a call."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs)
    return int(counter.get_total_flops()) // 2


class Network:
    """A network in formulas: a call with height and width returns multiplications; `weights` is their number."""

    def __init__(self, build: Callable[[], tuple[nn.Module, Callable[..., object]]]) -> None:
        self._build = functools.cache(build)

    @property
    def weights(self) -> int:
        """Number of weights."""
        return sum(one.numel() for one in self._build()[0].parameters())

    def __call__(self, height: float, width: float) -> int:
        """Return the multiplications for an input of some height and width."""
        return multiplications(self._build()[1], torch.empty(1, 3, int(height), int(width), device="meta"))


def _resnet18() -> tuple[nn.Module, Callable[..., object]]:
    network = training.without_storage(training.ResNet18)
    return network, network


def _encoder() -> tuple[nn.Module, Callable[..., object]]:
    method = patch_svdd.PatchSVDD(create(NONE))
    method.mean_image = torch.zeros((), device="meta")
    return method.encoder, method.codes


def _autoencoder() -> tuple[nn.Module, Callable[..., object]]:
    network = training.without_storage(vae.Autoencoder, vae.VAESettings().latent)
    return network, network


NETWORKS = MappingProxyType(
    {"resnet18": Network(_resnet18), "encoder": Network(_encoder), "autoencoder": Network(_autoencoder)}
)


def cost_table(page: str, name: str) -> str:
    """Return the values of the formulas for the example."""
    owner = METHODS[name]
    rows = []
    for backbone in EXAMPLE_BACKBONES if owner.uses_backbone else ("none",):
        known = names(
            owner.Settings(),
            images=EXAMPLE_IMAGES,
            height=EXAMPLE_SIDE,
            width=EXAMPLE_SIDE,
            backbone=backbone,
            channels=channels_of(backbone),
        )
        memory, time = evaluated(page, known)
        rows.append(
            [backbone if owner.uses_backbone else "no backbone", f"{memory / 1e6:.1f} MB", f"{time / 1e9:.2f} G"]
        )
    about = f"{EXAMPLE_IMAGES} images, {EXAMPLE_SIDE} x {EXAMPLE_SIDE}"
    return markdown([about, "kept", "multiplications per image"], rows)


@functools.cache
def channels_of(backbone: str) -> tuple[int, ...]:
    """Return the channels of the levels of a backbone."""
    return tuple(create(backbone, weights="random:0").channels) if backbone != "none" else ()


def published_table(name: str) -> str:
    """Return the published means over the categories of MVTec AD."""
    family, known = FAMILY.get(name, (name,)), published()
    drawn: list[Cells] = []
    for entry in (*known.categories, *known.means, *(known.rows(7) if name in FAMILY else ())):
        if entry.method in family:
            means: Cells = {metric: mean_of(entry, metric) for metric in METRICS}
            drawn.append({"what": entry.label, "backbone": entry.backbone, **means})
    metrics = (Column(metric, metric_title(metric)) for metric in METRICS)
    return table((Column("what", "published, mean of 15"), BACKBONE, *metrics), drawn)


def mean_of(entry: Entry, metric: str) -> Given | None:
    """Return the printed mean of a source, or else the mean of its values, with footnotes."""
    known = published()
    printed = {**entry.figures.get(metric, {}), **entry.printed.get(metric, {})}.get("all")
    figure = entry.mean(metric, known.groups["all"]) if printed is None else printed
    source = known.sources[entry.source or "cfa-paper"]
    return None if figure is None else Given(figure, (*known.texts(entry.notes), f"{source}."))


def ours_table(name: str, lines: Sequence[records.Line]) -> str:
    """Return our figures by category, beside the published ones of the same category."""
    standard: Names = {"version": None, "train_images": None, "test_images": None, "changes": {}, "measure": "accuracy"}
    meant = [
        line
        for line in lines
        if line["recipe"] in recipes_of(name)
        and all(line.get(field, default) == default for field, default in standard.items())
        # Untrained weights test the code only.
        and not str(line.get("weights") or "").startswith("random:")
    ]
    runs, others = one_fingerprint(frame(meant))
    found = rows(runs, recipes_of(name))
    if not found:
        return f"Ours: {NOT_MEASURED}.\n"
    backbone = [BACKBONE] if METHODS[name].uses_backbone else []
    theirs = (Column(f"published_{part}", "published", optional=True) for part in ("image", "pixel", "pro"))
    accuracy = [*ACCURACY[:3], *(one for pair in zip(ACCURACY[3:], theirs, strict=True) for one in pair)]
    columns = (Column("category", "ours"), METHOD, *backbone, SEEDS, *accuracy, THEIR_BACKBONE)
    categories = in_order(category for row in found for category in row.categories)
    drawn = [
        cells(columns, row, [category], category=shown(category))
        for category in categories
        for row in found
        if category in row.categories
    ]
    protocol = "Ours: last checkpoint, mean ± deviation over seeds, at the detector's input."
    other = tuple(f"Lines on other images of {shown(name)} are left out." for name in others)
    return table(columns, drawn, (protocol, *notes.development(categories), *other))


def table(columns: Sequence[Column], drawn: Sequence[Cells], below: Sequence[str] = ()) -> str:
    """Return a table of the benchmark in Markdown, with its footnotes, without a heading."""
    return Table(0, "", tuple(columns), tuple(drawn), tuple(below)).markdown(level=0)


def rewrite(made: Mapping[Path, str], *, check: bool) -> None:
    """Write changed files, or with `check` only list them and exit with code 1 if there are any."""
    changed = []
    for path, new in made.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != new:
            changed.append(path.name)
            if not check:
                path.write_text(new, encoding="utf-8")
    print(f"{'would change' if check else 'changed'}: {', '.join(changed) or 'nothing'}")
    sys.exit(1 if check and changed else 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; list the pages that would change")
    parser.add_argument("--lines", type=Path, default=LINES)
    given = parser.parse_args()
    lines, problems = records.read([given.lines])
    print(*problems, sep="\n", end="\n" if problems else "", file=sys.stderr)
    pages = {PAGES / f"{name}.md": name for name in METHODS}
    made = {path: filled(path.read_text(encoding="utf-8"), name, lines) for path, name in pages.items()}
    rewrite(made, check=given.check)


if __name__ == "__main__":
    main()
