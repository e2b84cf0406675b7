"""Fill the marked regions of docs/methods/NAME.md, so that no page says what code or lines do not.

    python -m tools.method_pages            # fill
    python -m tools.method_pages --check    # exit code 1 where a page would change

`settings`: names, defaults and meanings from the method's settings. `cost`: what the formulas on the page give.
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
from hyperspot.benchmark import records
from hyperspot.benchmark.protocol import recipes_of
from hyperspot.benchmark.published import Entry, published
from hyperspot.benchmark.selection import (
    METRICS,
    development,
    groups,
    in_order,
    one_set_of_photos,
    plain_name,
    published_cell,
)
from hyperspot.benchmark.table import Cell, Column, Given, Spread, Table
from hyperspot.methods import METHODS, padim, patch_svdd, vae
from hyperspot.methods import training as scratch
from tools.rewriting import rewrite

ROOT = Path(__file__).resolve().parents[1]
PAGES, LINES = ROOT / "docs" / "methods", ROOT / "benchmarks" / "runs.jsonl"
FAMILY = {"cfa": ("cfa", "cfa_resize", "cfa++")}
"""Published entries that belong to a method beside the one of its own name."""
EXAMPLE_PHOTOS, EXAMPLE_SIDE = 209, 224
"""MVTec bottle in the papers' geometry."""
EXAMPLE_BACKBONES = ("resnet18", "wide_resnet50_2")
NOT_MEASURED = "not measured yet"
UNSET = "–"

Names = Mapping[str, Any]


def region(page: str, kind: str, name: str) -> str:
    """Return what stands between the marks of a region; raises ValueError where the page has none."""
    found = re.search(rf"<!-- {kind}:{name} -->\n(.*?)<!-- /{kind} -->", page, re.DOTALL)
    if found is None:
        raise ValueError(f"docs/methods/{name}.md has no region {kind}:{name}")
    return found.group(1)


def filled(page: str, name: str, lines: Sequence[records.Line]) -> str:
    """Return the page with all regions made anew."""
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
    """Return all settings of a method with their defaults, by variant where it has them, and what they mean."""
    owner = METHODS[name].Settings
    meanings = documented(owner)
    variants = get_args(owner.model_fields["variant"].annotation) if "variant" in owner.model_fields else ()
    chosen = [owner.model_validate({"variant": variant}) for variant in variants] or [owner()]
    titles = ["setting", *(variants or ("default",)), ""]
    rows = []
    for field in owner.model_fields:
        shown = [f"`{written(getattr(one, field))}`" for one in chosen]
        # What a variant leaves as the first has it need not be read twice.
        cells = shown[:1] + ["" if one == shown[0] else one for one in shown[1:]]
        rows.append([f"`{field}`", *(cell.replace(f"`{UNSET}`", UNSET) for cell in cells), meanings[field]])
    return markdown(titles, rows)


def documented(settings: type) -> dict[str, str]:
    """Return what the docstring of some settings says of each."""
    _, _, attributes = inspect.cleandoc(settings.__doc__ or "").partition("Attributes:\n")
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?= {4}\S)", "\n" + attributes.rstrip())[1:]:
        names, _, meaning = entry.strip().partition(": ")
        # What is not finished by a point in the docstring of one is finished by none in a table.
        text = " ".join(meaning.split()).removesuffix(".").replace("|", "\\|")
        found |= dict.fromkeys(names.split(", "), text)
    return found


def written(value: Any) -> str:
    """Return a setting as `--set` takes it."""
    if value is None:
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
    """Return the formulas of a page: assignments in Python, of which the last two are memory and time."""
    found = re.search(r"## Memory and time\n.*?```python\n(.*?)```", page, re.DOTALL)
    if found is None:
        raise ValueError("the page has no formulas under 'Memory and time'")
    return found.group(1)


def evaluated(page: str, known: Names) -> tuple[float, float]:
    """Return the bytes kept and the multiplications for a photo that the formulas of a page give."""
    values = {"__builtins__": {}, **known}
    exec(formulas(page), values)
    return values["memory"], values["time"]


def names(
    settings: Any, *, photos: int, height: int, width: int, backbone: str, channels: Sequence[int]
) -> dict[str, Any]:
    """Return what formulas may name: the settings, the photos and their grids, the backbone, some networks."""
    grids = [-(-height // stride) * -(-width // stride) for stride in (4, 8, 16)]
    return {
        **dict(settings),
        "n": photos,
        "H": height,
        "W": width,
        "backbone": backbone,
        **{f"P{level}": places for level, places in enumerate(grids, 2)},
        **{f"c{level}": count for level, count in enumerate(channels, 2)},
        "P": dict(enumerate(grids, 2)),
        "c": dict(enumerate(channels, 2)),
        "score_stats": padim.CHANNELS.get(backbone, padim.CHANNELS_ELSE),
        **{one.__name__: one for one in (min, max, sum, int, math.ceil)},
        **NETWORKS,
    }


def multiplications(network: Callable[..., object], *inputs: torch.Tensor) -> int:
    """Return the multiplications of the matrix products and convolutions in a call."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(*inputs)
    return int(counter.get_total_flops()) // 2


class Network:
    """A network as formulas see it: called with height and width it gives multiplications; `weights` counts them."""

    def __init__(self, build: Callable[[], tuple[nn.Module, Callable[..., object]]]) -> None:
        self._build = functools.cache(build)

    @property
    def weights(self) -> int:
        """How many there are."""
        return sum(one.numel() for one in self._build()[0].parameters())

    def __call__(self, height: float, width: float) -> int:
        """Return the multiplications for an input of some pixels."""
        return multiplications(self._build()[1], torch.empty(1, 3, int(height), int(width), device="meta"))


def _resnet18() -> tuple[nn.Module, Callable[..., object]]:
    network = scratch.without_storage(scratch.ResNet18)
    return network, network


def _encoder() -> tuple[nn.Module, Callable[..., object]]:
    method = patch_svdd.PatchSVDD(create(NONE))
    method.mean_photo = torch.zeros((), device="meta")
    return method.encoder, method.codes


def _autoencoder() -> tuple[nn.Module, Callable[..., object]]:
    network = scratch.without_storage(vae.Autoencoder, vae.VAESettings().latent)
    return network, network


NETWORKS = MappingProxyType(
    {"resnet18": Network(_resnet18), "encoder": Network(_encoder), "autoencoder": Network(_autoencoder)}
)


def cost_table(page: str, name: str) -> str:
    """Return what the formulas give for the example."""
    owner = METHODS[name]
    rows = []
    for backbone in EXAMPLE_BACKBONES if owner.uses_backbone else ("none",):
        known = names(
            owner.Settings(),
            photos=EXAMPLE_PHOTOS,
            height=EXAMPLE_SIDE,
            width=EXAMPLE_SIDE,
            backbone=backbone,
            channels=channels_of(backbone),
        )
        memory, time = evaluated(page, known)
        rows.append(
            [backbone if owner.uses_backbone else "no backbone", f"{memory / 1e6:.1f} MB", f"{time / 1e9:.2f} G"]
        )
    about = f"{EXAMPLE_PHOTOS} photos, {EXAMPLE_SIDE} x {EXAMPLE_SIDE}"
    return markdown([about, "kept", "multiplications for a photo"], rows)


@functools.cache
def channels_of(backbone: str) -> tuple[int, ...]:
    """Return the channels of the levels of a backbone."""
    return tuple(create(backbone, weights="random:0").channels) if backbone != "none" else ()


def published_table(name: str) -> str:
    """Return the published means over the categories of MVTec AD."""
    family = FAMILY.get(name, (name,))
    known = published()
    rows: list[dict[str, Cell]] = []
    entries = [*known.categories, *known.means, *(known.rows(7) if name in FAMILY else ())]
    for entry in entries:
        if entry.method in family:
            cells: dict[str, Cell] = {metric: mean_of(entry, metric) for metric in METRICS}
            rows.append({"what": entry.label, "backbone": entry.backbone or UNSET, **cells})
    columns = (
        Column("what", "published, mean of 15"),
        Column("backbone", "backbone"),
        *(Column(metric, title) for metric, title in METRICS.items()),
    )
    return table(columns, rows)


def mean_of(entry: Entry, metric: str) -> Given | None:
    """Return the mean that a source prints, or else that of its values, with all that has to be said of it."""
    known = published()
    printed = {**entry.figures.get(metric, {}), **entry.printed.get(metric, {})}.get("all")
    figure = entry.mean(metric, known.groups["all"]) if printed is None else printed
    if figure is None:
        return None
    source = known.sources[entry.source or "cfa-paper"]
    return Given(figure, (*known.texts(entry.notes), f"{source}."))


def ours_table(name: str, lines: Sequence[records.Line]) -> str:
    """Return our figures by category, beside the published ones of the same category."""
    meant = [
        line
        for line in lines
        if line["recipe"] in recipes_of(name)
        and line.get("measure", "accuracy") == "accuracy"
        and line.get("version") is None
        and line.get("train_images") is None
        # What other settings give is for the ablations in RESULTS.md.
        and not line["changes"]
        # Untrained weights measure nothing but code.
        and not str(line.get("weights") or "").startswith("random:")
    ]
    meant, notes = one_set_of_photos(meant)
    found = groups(meant, recipes_of(name))
    rows: list[dict[str, Cell]] = []
    for category in in_order(category for group in found for category in group.categories):
        for group in found:
            values = {metric: group.by_seed(category, metric) for metric in METRICS}
            if not any(values.values()):
                continue
            cells: dict[str, Cell] = {}
            for metric in METRICS:
                cells[metric] = Spread.of(values[metric].values(), 100.0)
                cells[f"{metric}_published"] = published_cell(group, metric, [category])
            seeds = str(max(len(one) for one in values.values()))
            about = {"category": plain_name(category), "what": group.label, "backbone": group.backbone}
            rows.append({**about, "seeds": seeds, **cells})
    if not rows:
        return f"Ours: {NOT_MEASURED}.\n"
    columns = [Column("category", "ours"), Column("what", "settings")]
    columns += [Column("backbone", "backbone")] if METHODS[name].uses_backbone else []
    columns += [Column("seeds", "seeds")]
    for metric, title in METRICS.items():
        columns += [Column(metric, title), Column(f"{metric}_published", "published")]
    protocol = "Ours: the last checkpoint, mean ± deviation over seeds, in the pixels that the detector sees."
    categories = [category for group in found for category in group.categories]
    return table(columns, rows, (protocol, *development(categories), *notes))


def table(columns: Sequence[Column], rows: Sequence[dict[str, Cell]], notes: Sequence[str] = ()) -> str:
    """Return a table of the benchmark in Markdown, with its footnotes, without a heading."""
    return Table(0, "", tuple(columns), tuple(rows), tuple(notes)).markdown().split("\n\n", 1)[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, only tell which pages would change")
    parser.add_argument("--lines", type=Path, default=LINES)
    given = parser.parse_args()
    lines, problems = records.read([given.lines])
    print(*problems, sep="\n", end="\n" if problems else "", file=sys.stderr)
    pages = {PAGES / f"{name}.md": name for name in METHODS}
    made = {path: filled(path.read_text(encoding="utf-8"), name, lines) for path, name in pages.items()}
    rewrite(made, check=given.check)


if __name__ == "__main__":
    main()
