"""JSON lines as a DataFrame: one row per run, and from it the means and deviations that tables show."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from hyperspot.benchmark.protocol import DEVELOPMENT, key, label_of, recorded_settings
from hyperspot.benchmark.records import Line
from hyperspot.benchmark.render import Spread

Where = Literal["input", "original"]
IMAGE, PIXEL, PRO = "image_auroc", "pixel_auroc", "aupro_30"
METRICS = (IMAGE, PIXEL, PRO)
RATES = ("detection_rate", "observed_false_alarm_rate", "promised_false_alarm_rate")
PUBLISHED_AS = {"cfa released, fused": "cfa++", "cfa released, resize only": "cfa_resize"}
"""Recipes whose published counterpart is not named like their method."""


def frame(lines: Sequence[Line]) -> pd.DataFrame:
    """Return one row per run: the fields of its line, those of objects joined by points, and the line itself.

    Columns added: `line`, `run` (equal for equal runs), `same` (equal for runs that differ in category and seed only),
    `failed` and `timed` (whether the run had the machine for itself).
    """
    wide = pd.json_normalize(lines) if lines else pd.DataFrame(columns=["category", "recipe"])
    weights = wide.get("weights", pd.Series(None, index=wide.index, dtype=object))
    trained = {
        line["backbone"]: line["weights"]
        for line in sorted(lines, key=lambda line: str(line.get("weights")), reverse=True)
        if "settings" in line and line.get("weights") and not line["weights"].startswith("random:")
    }
    return wide.assign(
        line=list(lines),
        run=[key(line) for line in lines],
        same=[_same(line, trained) for line in lines],
        weights=weights.astype(object),
        failed=["error" in line for line in lines],
        timed=["latency_ms" in line and line.get("jobs") == 1 for line in lines],
    )


def _same(line: Line, trained: dict[str, str]) -> str:
    """Return a text that is equal for the runs of one table row."""
    if "settings" not in line:
        return ""
    settings = {name: part for name, part in recorded_settings(line).items() if name != "seed"}
    weights = line.get("weights") or trained.get(line["backbone"], "")
    limits = [line.get(name) for name in ("train_images", "test_images")] if line.get("measure") != "cost" else []
    parts = [line["recipe"], line["changes"], line["backbone"], line.get("budget", "full"), weights, settings, limits]
    return json.dumps(parts, sort_keys=True)


@dataclass(frozen=True)
class Row:
    """The runs of one table row: one recipe, backbone, budget and weights; all categories and seeds.

    Attributes:
        label: Name of the row.
        recipe: Name of its settings.
        method: Name in the registry.
        backbone: The frozen feature extractor.
        runs: Rows of `frame`; of equal runs the latest.

    """

    label: str
    recipe: str
    method: str
    backbone: str
    runs: pd.DataFrame

    @property
    def published_as(self) -> str:
        """Name of the published counterpart."""
        return PUBLISHED_AS.get(self.recipe, self.method)

    @property
    def categories(self) -> list[str]:
        """Its categories, those for development last."""
        return in_order(self.runs.category)

    @property
    def line(self) -> Line:
        """Its latest line."""
        latest: Line = self.runs.line.iloc[-1]
        return latest

    @property
    def departs(self) -> bool:
        """Whether settings were changed, training or images reduced, or weights untrained."""
        line = self.runs.line.iloc[0]
        random = str(line.get("weights") or "").startswith("random:")
        return bool(line["changes"]) or line.get("budget", "full") != "full" or bool(line.get("reduced")) or random

    def values(
        self, metric: str, *, part: str = "last", where: Where = "input", by: str | list[str] = "seed"
    ) -> pd.DataFrame:
        """Return a metric in per cent: one row per seed, one column per category; of equal runs the latest counts.

        Args:
            metric: JSON name.
            part: `last` checkpoint, `oracle`, or one crop of a fusion (`center`, `full`).
            where: Pixel metrics in the pixels of the `input`, as published ones, or of the `original` image.
            by: Fields that tell the rows apart.

        """
        known = self.runs.assign(value=100 * pick(self.runs, f"{part}.{metric}"))
        if where == "input":
            known["value"] = (100 * pick(self.runs, f"{part}.at_input.{metric}")).fillna(known.value)
        known = known.dropna(subset=["value"])
        return known.pivot_table(index=by, columns="category", values="value", aggfunc="last")

    def mean(self, metric: str, categories: Sequence[str], *, where: Where = "input") -> Spread | None:
        """Return mean and deviation over seeds of the mean over categories, in per cent."""
        return mean_over(self.values(metric, where=where), categories)


def rows(runs: pd.DataFrame, recipes: Sequence[str]) -> list[Row]:
    """Return the table rows of some recipes in their order; failed runs are left out."""
    made: list[Row] = []
    chosen = runs[runs.recipe.isin(recipes) & ~runs.failed & (runs.same != "")]
    chosen = chosen.assign(watched=[("oracle" in line) for line in chosen.line])
    for _, own in chosen.groupby("same", sort=False):
        first = own.line.iloc[0]
        label = label_of(first)
        weights = str(json.loads(first_same(own))[4])
        label += f", {weights}" if weights.startswith("random:") else ""
        twins = sum(row.label.split(" (settings")[0] == label and row.backbone == first["backbone"] for row in made)
        label += f" (settings {twins + 1})" if twins else ""
        latest = own.drop_duplicates(["run", "watched", "timed"], keep="last")
        made.append(Row(label, first["recipe"], first["method"], first["backbone"], latest))
    return sorted(made, key=lambda row: (recipes.index(row.recipe), row.backbone, row.label))


def first_same(runs: pd.DataFrame) -> str:
    """Return the identity that the runs of one row share."""
    return str(runs.same.iloc[0])


def select(runs: pd.DataFrame, wanted: Callable[[Line], bool]) -> pd.DataFrame:
    """Return the runs whose line is wanted."""
    return runs[pd.Series([wanted(line) for line in runs.line], runs.index, dtype=bool)]


def pick(runs: pd.DataFrame, column: str) -> pd.Series:
    """Return a column as numbers; all missing if no run has it."""
    return pd.to_numeric(runs[column]) if column in runs else pd.Series(float("nan"), index=runs.index)


def spread(values: pd.Series) -> Spread | None:
    """Return mean and sample deviation of the known values; None if there are none."""
    known = values.dropna()
    if known.empty:
        return None
    return Spread(float(known.mean()), float(known.std()) if len(known) > 1 else None, len(known))


def mean_over(values: pd.DataFrame, categories: Sequence[str]) -> Spread | None:
    """Return mean and deviation over rows (seeds) of the mean over columns (categories).

    Only seeds that every category has count, so no deviation comes from a different choice of categories. Without such
    a seed the mean of the categories' means is returned, without a deviation; None if a category is missing.
    """
    if not categories or not set(categories) <= set(values):
        return None
    chosen = values[list(categories)]
    whole = chosen.dropna()
    return spread(whole.mean(axis=1)) if len(whole) else Spread(float(chosen.mean().mean()), None, 1)


def shared_categories(found: Sequence[Row], row: Row) -> tuple[list[str], int]:
    """Return the categories that all rows of a row's backbone have, and how many of them the row itself lacks.

    Means are comparable over these only. Rows that depart from their recipe are ignored unless there are only such: a
    single one of them would exclude all but its own category.
    """
    own = [one for one in found if one.backbone == row.backbone]
    standard = [one for one in own if not one.departs] or own
    shared = set.intersection(*(set(one.categories) for one in standard))
    return in_order(shared), len(shared.difference(row.categories))


def one_fingerprint(runs: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """Return the runs on the latest data of each category, and the categories with runs on other data."""
    if "fingerprint" not in runs:
        return runs, []
    latest = runs[~runs.failed].groupby("category").fingerprint.last().to_dict()
    expected = [latest.get(category, own) for category, own in zip(runs.category, runs.fingerprint, strict=True)]
    other = runs.fingerprint.notna() & (runs.fingerprint != pd.Series(expected, runs.index, dtype=object))
    return runs[~other], in_order(runs.category[other])


def in_order(categories: Iterable[str]) -> list[str]:
    """Return category names once each in alphabetical order, those for development last."""
    return sorted(set(categories), key=lambda name: (name in DEVELOPMENT, name))


def shown(category: str) -> str:
    """Return the name of a category, marked if it is for development."""
    return f"{category} (dev.)" if category in DEVELOPMENT else category
