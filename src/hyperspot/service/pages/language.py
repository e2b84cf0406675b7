"""The texts of the pages, by language."""

import json
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).with_name("texts")
LANGUAGES = ("en", "de")
"""The first one answers browsers that ask for none of them."""


@cache
def texts(language: str) -> dict[str, str]:
    """Return the texts of a language by key.

    Examples:
        >>> from hyperspot.service.pages.language import texts
        >>> texts("de")["verdict.good"]
        'GUT'

    """
    values: dict[str, str] = json.loads((FOLDER / f"{language}.json").read_text(encoding="utf-8"))
    return values


def choose(setting: str | None, accepted: str) -> str:
    """Return the language of a page.

    Args:
        setting: Of the user, if any.
        accepted: The header `Accept-Language`.

    Examples:
        >>> from hyperspot.service.pages.language import choose
        >>> choose(None, "fr;q=0.9, de-AT;q=0.8, en;q=0.5"), choose("en", "de"), choose(None, "")
        ('de', 'en', 'en')

    """
    if setting in LANGUAGES:
        return str(setting)
    wanted: list[tuple[float, str]] = []
    for part in accepted.split(","):
        name, _, quality = part.strip().partition(";q=")
        try:
            wanted.append((float(quality or 1), name[:2].lower()))
        except ValueError:
            # A malformed preference is none.
            continue
    known = [name for quality, name in sorted(wanted, key=lambda one: -one[0]) if name in LANGUAGES and quality > 0]
    return known[0] if known else LANGUAGES[0]


class Translator:
    """Texts in one language, as templates call them.

    Examples:
        >>> from hyperspot.service.pages.language import Translator
        >>> Translator("en")("page.of", page=2, pages=3)
        'Page 2 of 3'

    """

    def __init__(self, language: str) -> None:
        self.language = language
        self._texts = texts(language)

    def __call__(self, key: str, **values: object) -> str:
        """Return a text with its values; raises KeyError if there is none."""
        text = self._texts[key]
        return text.format(**values) if values else text

    def has(self, key: str) -> bool:
        """Whether there is such a text."""
        return key in self._texts

    def number(self, value: float | None, digits: int = 3) -> str:
        """Return a number with its significant digits, or a dash.

        Examples:
            >>> from hyperspot.service.pages.language import Translator
            >>> Translator("de").number(0.01234), Translator("en").number(None)
            ('0,0123', '–')

        """
        return "–" if value is None else self._decimal(f"{value:.{digits}g}")

    def percent(self, share: float | None, digits: int = 1) -> str:
        """Return a share in [0, 1] as a percentage, or a dash.

        Examples:
            >>> from hyperspot.service.pages.language import Translator
            >>> Translator("en").percent(0.0512)
            '5.1 %'

        """
        return "–" if share is None else self._decimal(f"{100 * share:.{digits}f} %")

    def count(self, value: int) -> str:
        """Return a whole number with groups of thousands.

        Examples:
            >>> from hyperspot.service.pages.language import Translator
            >>> Translator("en").count(12345)
            '12,345'

        """
        grouped = f"{value:,}"
        return grouped.replace(",", ".") if self.language == "de" else grouped

    def _decimal(self, number: str) -> str:
        return number.replace(".", ",") if self.language == "de" else number
