"""Settings of sources and outputs by their kind, as the API and the Set-up page read and write them."""

from collections.abc import Mapping
from typing import Any

from hyperspot.errors import SettingsError
from hyperspot.service.form_settings import REDACTED, FormSettings, merge_settings
from hyperspot.service.outputs.registry import OUTPUTS
from hyperspot.service.sources.registry import SOURCES

__all__ = ["REDACTED", "check_settings", "form_of", "merge_settings", "public_settings"]


def form_of(kind: str) -> type[FormSettings]:
    """Return the model of the settings of a kind of source or output; raises SettingsError if there is none."""
    if kind in SOURCES:
        return SOURCES[kind].form
    if kind in OUTPUTS:
        return OUTPUTS[kind].form
    raise SettingsError(f"there is no kind '{kind}'; choose one of {', '.join([*SOURCES, *OUTPUTS])}")


def check_settings(kind: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings as the database keeps them: checked, complete, with their secrets; raises SettingsError.

    Examples:
        >>> from hyperspot.service.connections import check_settings
        >>> check_settings("webhook", {"address": "https://mes.local/verdicts", "secret": "s"})["secret"]
        's'

    """
    return form_of(kind).read(settings).stored()


def public_settings(kind: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings for the API and pages: REDACTED stands for each secret.

    Examples:
        >>> from hyperspot.service.connections import public_settings
        >>> public_settings("webhook", {"address": "https://mes.local/verdicts", "secret": "s"})["secret"]
        '********'

    """
    try:
        return form_of(kind).public(settings)
    except SettingsError:
        # Of a plugin that is gone: nobody knows which are secrets.
        return dict.fromkeys(settings, REDACTED)
