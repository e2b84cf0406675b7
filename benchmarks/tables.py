"""Draw the tables of RESULTS.md from the lines that `benchmarks.accuracy` wrote.

python -m benchmarks.tables runs.jsonl
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

METRICS = (("image_auroc", "I-AUROC"), ("pixel_auroc", "P-AUROC"), ("aupro_30", "AUPRO"))
DEVELOPMENT = {"transistor", "screw"}
Run = dict[str, Any]


def value(figures: dict[str, Any], metric: str) -> float | None:
    """Image metrics as they are; pixel metrics at the detector's input, as published ones are."""
    inside = figures.get("at_input", {})
    return inside.get(metric, figures.get(metric))


def several(values: Sequence[float | None], scale: float = 100) -> str:
    known = [scale * one for one in values if one is not None]
    if not known:
        return "–"
    if len(known) == 1:
        return f"{known[0]:.2f}"
    return f"{statistics.mean(known):.2f} ± {statistics.stdev(known):.2f}"


def named(category: str) -> str:
    return f"{category} (dev.)" if category in DEVELOPMENT else category


def line(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def head(*cells: str) -> list[str]:
    return [line(*cells), "|" + "---|" * len(cells)]


def of(runs: Sequence[Run], recipe: str, category: str | None = None) -> list[Run]:
    return [one for one in runs if one["recipe"] == recipe and (category is None or one["category"] == category)]


def categories(runs: Sequence[Run]) -> list[str]:
    return sorted({one["category"] for one in runs}, key=lambda name: (name in DEVELOPMENT, name))


def against_published(runs: Sequence[Run], recipe: str, published: dict[str, Any]) -> list[str]:
    rows = head("category", "metric", "last checkpoint", "best of 10 checkpoints (oracle)", "published (WRN50, oracle)")
    for category in categories(of(runs, recipe)):
        chosen = of(runs, recipe, category)
        for metric, title in METRICS:
            known = published.get(category, {}).get(metric)
            oracle = several([one["oracle"][metric] for one in chosen if "oracle" in one])
            rows.append(
                line(
                    named(category),
                    title,
                    several([value(one["last"], metric) for one in chosen]),
                    oracle,
                    "–" if known is None else f"{known:.1f}",
                )
            )
    return rows


def side_by_side(runs: Sequence[Run], recipes: Sequence[str], keys: Sequence[str] = ("last",)) -> list[str]:
    rows = head("category", "what", "seeds", *(title for _, title in METRICS), "AUPRO 0.05", "AUPIMO")
    chosen_runs = [one for one in runs if one["recipe"] in recipes]
    for category in categories(chosen_runs):
        for recipe in recipes:
            chosen = of(runs, recipe, category)
            for key in keys:
                found = [one[key] for one in chosen if key in one]
                if not found:
                    continue
                what = recipe if key == "last" else f"{recipe}: its {key} view alone"
                cells = [
                    several([value(one, metric) for one in found])
                    for metric in ("image_auroc", "pixel_auroc", "aupro_30", "aupro_05", "aupimo")
                ]
                rows.append(line(named(category), what, str(len(found)), *cells))
    return rows


def promises(runs: Sequence[Run], recipe: str) -> list[str]:
    rows = head("category", "good test photos", "promised", "observed", "defects found", "segmentation F1")
    for category in categories(of(runs, recipe)):
        found = [one["last"] for one in of(runs, recipe, category)]
        rows.append(
            line(
                named(category),
                str(found[0]["good_images"]),
                several([one["promised_false_alarm_rate"] for one in found]) + " %",
                several([one["observed_false_alarm_rate"] for one in found]) + " %",
                several([one["found_rate"] for one in found]) + " %",
                several([one["seg_f1"] for one in found]) + " %",
            )
        )
    return rows


def seconds(runs: Sequence[Run]) -> list[str]:
    rows = head("recipe", "category", "training, seconds", "peak memory, MB")
    for recipe in sorted({one["recipe"] for one in runs}):
        for category in categories(of(runs, recipe)):
            chosen = [one for one in of(runs, recipe, category) if one["training_seconds"] is not None]
            if chosen:
                times = several([one["training_seconds"] for one in chosen], 1)
                memory = max(one["peak_memory_mb"] for one in chosen)
                rows.append(line(recipe, named(category), times, str(memory)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="?", default=Path("benchmarks/runs.jsonl"))
    given = parser.parse_args()
    runs = [json.loads(one) for one in given.runs.read_text().splitlines()]
    runs = [one for one in runs if not one["changes"]]
    published = json.loads(Path(__file__).with_name("published.json").read_text())
    defaults = [recipe for recipe in ("released", "default, paper's geometry", "default") if of(runs, recipe)]
    ablation = [
        "released, no descriptor training",
        "released, attraction only",
        "released",
        "released, attraction only, fixed radius",
        "released, fixed radius",
        "paper",
    ]
    ablated = [one for one in runs if one["category"] in {run["category"] for run in of(runs, ablation[0])}]
    sections = [
        ("CFA `released` beside the published figures", against_published(runs, "released", published["cfa"])),
        ("The variants", side_by_side(runs, defaults)),
        ("Ablation of the losses and of the radius", side_by_side(ablated, ablation)),
        (
            "CFA++: fusion against each geometry alone",
            side_by_side(runs, ["released, fused"], ("crop", "whole", "last")),
        ),
        ("Promised and observed false alarms", promises(runs, "default, calibrated")),
        ("Training time", seconds(runs)),
    ]
    for title, rows in sections:
        print(f"### {title}\n\n" + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
