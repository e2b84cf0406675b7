"""The tables of RESULTS.md are those of the recorded runs, and the plots match them."""

import re

import numpy as np
import pytest

from hyperspot.benchmark import records
from hyperspot.benchmark.plots import plot
from tools import results_page

NUMBER = re.compile(r"\d+\.\d+")


@pytest.fixture(scope="module")
def lines():
    found, problems = records.read([results_page.LINES])
    assert problems == []
    return found


@pytest.fixture(scope="module")
def page():
    return results_page.PAGE.read_text(encoding="utf-8")


def test_tables_are_those_of_the_runs(page, lines):
    assert len(results_page.MARK.findall(page)) >= 11
    assert results_page.filled(page, lines) == page, "run `python -m tools.results_page`"


def test_a_changed_run_changes_the_page(page, lines):
    other = [{**line, "latency_ms": 1.0} if "latency_ms" in line else line for line in lines]
    assert results_page.filled(page, other) != page


@pytest.mark.parametrize("name", results_page.PLOTS)
def test_plots_are_those_of_the_runs(name, lines, tmp_path):
    plot(results_page.table(results_page.PLOTS[name], lines), tmp_path / "new.svg")
    found, expected = (path.read_text() for path in (tmp_path / "new.svg", results_page.IMAGES / f"{name}.svg"))
    identity = re.compile(r"#?\b[mp][0-9a-f]{10}\b")
    found, expected = (identity.sub("#id", text) for text in (found, expected))
    assert NUMBER.sub("#", found) == NUMBER.sub("#", expected), "run `python -m tools.results_page`"
    values = [[float(one) for one in NUMBER.findall(text)] for text in (found, expected)]
    np.testing.assert_allclose(*values, atol=0.01)


def test_no_figure_of_void_runs_is_left(page, lines):
    """KolektorSDD held images twice; its figures come from runs on the corrected set alone."""
    found = [line for line in lines if "kolektor" in line["category"]]
    assert found
    assert len({line["fingerprint"] for line in found}) == 1
    assert min(line["created"] for line in found) >= "2026-11-25T12"
    rows = [row for row in page.splitlines() if row.startswith("| kolektor")]
    assert rows
    assert all("| cfa" in row for row in rows)


def test_the_contents_link_to_every_section(page):
    linked = set(re.findall(r"\]\(#([\w-]+)\)", page))
    headings = re.findall(r"^#{2,3} (.*)$", page, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}
    assert linked <= anchors
    assert anchors - linked == {"contents", "accuracy", "cost", "speed"}
