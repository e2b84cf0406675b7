"""Fill the marked tables of benchmarks/RESULTS.md from benchmarks/runs.jsonl.

    python -m tools.results_page            # fill, and draw the plots
    python -m tools.results_page --check    # exit code 1 if the page would change

A mark `<!-- benchmark --table N [--method A,B] [--backbone A,B] [--category A,B] [--standard] -->` selects the lines of
a table; --standard leaves out runs with changed settings.
"""

import argparse
import re
from collections.abc import Sequence

from hyperspot.benchmark import records
from hyperspot.benchmark.plots import plot
from hyperspot.benchmark.render import Table
from hyperspot.benchmark.tables import draw
from tools.method_pages import LINES, ROOT, rewrite

PAGE, IMAGES = ROOT / "benchmarks" / "RESULTS.md", ROOT / "docs" / "images"
MARK = re.compile(r"(<!-- benchmark (--table .*?) -->\n).*?(<!-- /benchmark -->)", re.DOTALL)
PLOTS = {"complexity": "--table 1 --backbone resnet18,none", "compression": "--table 6", "latency": "--table 8"}


def table(options: str, lines: Sequence[records.Line]) -> Table:
    """Return the table of a mark."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--table", type=int)
    parser.add_argument("--standard", action="store_true")
    for field in ("method", "backbone", "category"):
        parser.add_argument(f"--{field}", type=lambda names: names.split(","), default=[])
    given = vars(parser.parse_args(options.split()))
    wanted = {field: given[field] for field in ("method", "backbone", "category") if given[field]}
    chosen = [line for line in lines if all(line[field] in names for field, names in wanted.items())]
    return draw(given["table"], [line for line in chosen if not (given["standard"] and line["changes"])])


def filled(page: str, lines: Sequence[records.Line]) -> str:
    """Return the page with all tables drawn, their notes folded."""

    def drawn(mark: re.Match[str]) -> str:
        rows, _, notes = table(mark[2], lines).markdown(level=0).partition("\n\n")
        folded = f"<details><summary>Notes</summary>\n\n{notes}\n</details>\n"
        return f"{mark[1]}{rows}\n\n{folded}{mark[3]}"

    return MARK.sub(drawn, page)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit with code 1 if the page would change"
    )
    given = parser.parse_args()
    lines, _ = records.read([LINES])
    if not given.check:
        for name, options in PLOTS.items():
            plot(table(options, lines), IMAGES / f"{name}.svg")
    rewrite({PAGE: filled(PAGE.read_text(encoding="utf-8"), lines)}, check=given.check)


if __name__ == "__main__":
    main()
