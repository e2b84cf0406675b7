"""Texts of the pages: in all languages, none left in a template; and colors that can be read."""

import json
import re
from html.parser import HTMLParser

import pytest

from hyperspot.service import pages
from hyperspot.service.pages.language import FOLDER, LANGUAGES, Translator
from hyperspot.service.pages.rendering import TEMPLATES

FILES = sorted(TEMPLATES.rglob("*.html"))
SPOKEN = ("aria-label", "title", "placeholder", "alt", "hx-confirm")
"""Attributes that people read or hear."""


def test_all_languages_have_the_same_texts_with_the_same_values():
    english, *others = (json.loads((FOLDER / f"{name}.json").read_text("utf-8")) for name in LANGUAGES)
    for other in others:
        assert english.keys() == other.keys()
        for key, text in english.items():
            assert text.strip()
            assert set(re.findall(r"{(\w+)}", text)) == set(re.findall(r"{(\w+)}", other[key])), key


def test_every_text_that_is_used_exists():
    known = json.loads((FOLDER / "en.json").read_text("utf-8"))
    sources = [*FILES, *pages.STATIC.parent.glob("*.py")]
    used = {
        key
        for path in sources
        for key in re.findall(r"""\bt\(["']([a-z0-9_.-]+)["']\s*[,)]""", path.read_text("utf-8"))
    }
    assert len(used) > 150
    assert used <= known.keys(), used - known.keys()
    beginnings = {
        key for path in sources for key in re.findall(r"""\bt\(["']([a-z0-9_.-]+\.)["'] ~""", path.read_text("utf-8"))
    }
    for beginning in beginnings:
        assert any(key.startswith(beginning) for key in known), beginning


class Texts(HTMLParser):
    """Collects what people would read in a template whose expressions were taken out."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_data(self, data):
        if self.lasttag not in ("kbd", "script", "style"):
            self.found.append(data)

    def handle_starttag(self, tag, attributes):
        self.found += [value or "" for name, value in attributes if name in SPOKEN]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TEMPLATES)))
def test_no_text_of_a_template_is_left_untranslated(path):
    source = re.sub(r"{#.*?#}|{%.*?%}|{{.*?}}", "", path.read_text("utf-8"), flags=re.DOTALL)
    collected = Texts()
    collected.feed(source)
    collected.close()
    letters = [text.strip() for text in collected.found if re.search(r"[A-Za-zÄÖÜäöü]{2,}", text)]
    assert not letters


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TEMPLATES)))
def test_no_template_has_a_script_a_style_or_a_foreign_address_in_it(path):
    source = path.read_text("utf-8")
    assert not re.search(r"\son\w+=|\sstyle=|<style|javascript:|https?://|\|\s*safe\b|hx-on", source)
    assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", source))


def test_numbers_follow_the_language():
    english, german = Translator("en"), Translator("de")
    assert (english.number(0.05), german.number(0.05)) == ("0.05", "0,05")
    assert (english.percent(0.125), german.percent(0.125)) == ("12.5 %", "12,5 %")
    assert (english.count(12345), german.count(12345)) == ("12,345", "12.345")


def brightness(color):
    """Return the relative luminance of `#rrggbb` (WCAG 2.2)."""
    shares = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    light, dark = sorted((brightness(one), brightness(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


SHEET = (pages.STATIC / "station.css").read_text("utf-8")
COLORS = dict(re.findall(r"--([\w-]+): light-dark\((#\w{6}, #\w{6})\)", SHEET))
TEXTS = [
    ("text", "page"), ("text", "surface"), ("text", "sunken"), ("muted", "page"), ("muted", "surface"),
    ("muted", "sunken"), ("accent", "page"), ("accent", "surface"), ("on-accent", "accent"), ("on-good", "good"),
    ("on-bad", "bad"), ("on-none", "none"), ("on-warning", "warning"), ("bad", "surface"),
]  # fmt: skip
LINES = [("control", "surface"), ("control", "page"), ("focus", "page"), ("focus", "surface"), ("accent", "sunken"),
         ("bad", "sunken"), ("good", "sunken"), ("none", "sunken"), ("focus", "sunken")]  # fmt: skip


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("front", "back", "least"), [(*pair, 4.5) for pair in TEXTS] + [(*pair, 3.0) for pair in LINES]
)
def test_colors_have_the_contrast_of_wcag_aa(front, back, least, scheme):
    one, other = (COLORS[name].split(", ")[scheme] for name in (front, back))
    assert contrast(one, other) >= least


def test_all_text_colors_are_in_the_pairs():
    texts = set(re.findall(r"(?<![\w-])color: var\(--([\w-]+)\)", SHEET))
    assert texts <= {front for front, _ in TEXTS}
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
