"""The methods: one file each, one line in the registry each."""

from hyperspot.errors import SettingsError
from hyperspot.methods.base import Method, MethodSettings
from hyperspot.methods.cfa import CFA, CFASettings

METHODS: dict[str, type[Method]] = {
    CFA.name: CFA,
}


def method_class(name: str) -> type[Method]:
    """Return the class of a method; raises SettingsError where there is none of that name."""
    if name not in METHODS:
        raise SettingsError(f"there is no method '{name}'; choose one of {', '.join(METHODS)}")
    return METHODS[name]


__all__ = ["CFA", "METHODS", "CFASettings", "Method", "MethodSettings", "method_class"]
