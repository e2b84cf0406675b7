"""The pages of the methods agree with the code, the published figures and the recorded runs."""

import json
import re
import statistics

import pytest
import torch

from hyperspot.backbones import NONE, create
from hyperspot.benchmark import records
from hyperspot.detector.settings import parse_assignments
from hyperspot.hardware import native
from hyperspot.methods import METHODS, cfa
from hyperspot.utils.progress import SILENT
from tools import method_pages

HEADINGS = ["When to use it", "Settings", "Memory and time", "Figures", "Where code departs from the paper"]
IMAGES, HEIGHT, WIDTH = 6, 96, 128
LONGEST = 190
"""Lines of a page."""


@pytest.fixture(params=list(METHODS))
def name(request):
    return request.param


@pytest.fixture
def page(name):
    return (method_pages.PAGES / f"{name}.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def lines():
    found, problems = records.read([method_pages.LINES])
    assert problems == []
    return found


def test_every_method_has_a_page_of_the_same_build(page, name):
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == HEADINGS
    picture = re.search(r"^!\[(.+)\]\(\.\./images/methods/(.+)\.svg\)$", page, re.MULTILINE)
    assert picture is not None
    assert picture.group(2) == name
    assert len(picture.group(1)) > 60, "the picture needs an alternative text"
    assert (method_pages.ROOT / "docs" / "images" / "methods" / f"{name}.svg").is_file()
    assert len(page.splitlines()) <= LONGEST


def test_every_page_is_in_the_navigation():
    listed = re.findall(r"methods/(\w+)\.md", (method_pages.ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(listed) == sorted(METHODS)


def test_defaults_on_the_page_given_with_set_change_nothing(page, name):
    """Parsed from the table, independently of the code that wrote it."""
    owner = METHODS[name].Settings
    titles, _, *rows = (
        [cell.strip(" `") for cell in row.strip("|").split(" |")]
        for row in method_pages.region(page, "settings", name).splitlines()
    )
    table = {row[0]: dict(zip(titles[1:], row[1:], strict=True)) for row in rows}
    assert set(table) == set(owner.model_fields)
    assert all(cells[""] for cells in table.values())
    for variant in titles[1:-1]:
        shown = {field: cells[variant] or cells["default"] for field, cells in table.items()}
        given = [f"{field}={value}" for field, value in shown.items() if value != method_pages.UNSET]
        meant = owner(variant=variant) if "variant" in owner.model_fields else owner()
        assert owner(**parse_assignments(given)) == meant


def test_settings_named_in_the_text_are_settings(page, name):
    given = re.findall(r"--set\s+(\w+=[\w.,]+)", page)
    assert METHODS[name].Settings(**parse_assignments(given)) != METHODS[name].Settings() or not given


def test_a_setting_without_a_docstring_raises(name, monkeypatch):
    owner = METHODS[name].Settings
    other = type("Settings", (owner,), {"__annotations__": {"added": int}, "added": 3, "__doc__": owner.__doc__})
    monkeypatch.setattr(METHODS[name], "Settings", other)
    with pytest.raises(KeyError, match="added"):
        method_pages.settings_table(name)


def test_regions_are_what_code_and_lines_give(page, name, lines):
    assert method_pages.filled(page, name, lines) == page, "run `python -m tools.method_pages`"


@pytest.fixture(scope="module")
def images():
    return torch.rand(IMAGES, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))


def fitted(name, images):
    owner = METHODS[name]
    short = [field for field in owner.Settings.model_fields if field.endswith(("steps", "_per_step"))]
    changes = {field: 2 for field in short if owner.Settings.model_fields[field].default}
    settings = owner.Settings(**changes)
    if owner.uses_backbone:
        backbone = create("resnet18", weights="random:0", **owner.backbone_options(settings))
    else:
        backbone = create(NONE)
    method = owner(backbone, settings)
    method.fit([images[:4], images[4:]], seed=0, progress=SILENT)
    return method.eval()


def test_formulas_give_the_bytes_and_the_multiplications_of_a_fitted_model(page, name, images, monkeypatch):
    method = fitted(name, images)
    known = method_pages.names(
        method.settings,
        images=IMAGES,
        height=HEIGHT,
        width=WIDTH,
        backbone=method.backbone.name,
        channels=method.backbone.channels if method.uses_backbone else (),
    )
    memory, time = method_pages.evaluated(page, known)
    assert memory == sum(tensor.nbytes for tensor in method.fitted_state().values())

    # The counter does not see the compiled search, which skips products.
    monkeypatch.setattr(native, "level", lambda: 0)
    counted = method_pages.multiplications(method, images[:1])
    if method.uses_backbone:
        counted -= method_pages.multiplications(method.backbone, images[:1])
    # The formulas leave out small products: sums over positions and weights of windows.
    assert time == pytest.approx(counted, rel=0.03)


def test_the_formula_of_cfa_has_the_bound_of_its_bank():
    page = (method_pages.PAGES / "cfa.md").read_text(encoding="utf-8")
    assert f" {cfa.LARGEST_PATCH_BANK}," in method_pages.formulas(page)


def test_our_figures_are_the_means_of_the_lines():
    """From the file itself: seeds 0 to 2 of bottle."""
    raw = [json.loads(text) for text in method_pages.LINES.read_text(encoding="utf-8").splitlines()]
    latest = {
        line["seed"]: line["last"]["at_input"]["aupro_30"]
        for line in raw
        if line["recipe"] in ("default", "cfa default")
        and line["category"] == "bottle"
        and not line["changes"]
        and line.get("backbone", "resnet18") == "compact"
        and line.get("measure", "accuracy") == "accuracy"
    }
    mean, deviation = (100 * take(latest.values()) for take in (statistics.mean, statistics.stdev))
    found, _ = records.read([method_pages.LINES])
    rows = [row for row in method_pages.ours_table("cfa", found).splitlines() if "| bottle | cfa default |" in row]
    assert any(f"{mean:.2f} ± {deviation:.2f}" in row for row in rows)


def test_lines_that_measure_no_accuracy_are_not_ours(lines):
    real = [line for line in lines if line["recipe"] == "cfa default"]
    for other in ({"weights": "random:0"}, {"measure": "cost"}, {"version": 1}, {"train_images": 25}, {"error": "x"}):
        made_up = [{**line, **other} for line in real]
        assert method_pages.NOT_MEASURED in method_pages.ours_table("cfa", made_up)
    assert method_pages.NOT_MEASURED in method_pages.ours_table("cfa", [])
