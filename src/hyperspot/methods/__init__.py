"""The methods: one file each, one line in the registry each."""

from hyperspot.errors import SettingsError
from hyperspot.methods.base import Method, MethodSettings
from hyperspot.methods.cfa import CFA, CFASettings
from hyperspot.methods.padim import PaDiM, PaDiMSettings
from hyperspot.methods.patchcore import PatchCore, PatchCoreSettings
from hyperspot.methods.spade import SPADE, SPADESettings

METHODS: dict[str, type[Method]] = {
    CFA.name: CFA,
    PatchCore.name: PatchCore,
    PaDiM.name: PaDiM,
    SPADE.name: SPADE,
}


def method_class(name: str) -> type[Method]:
    """Return the class of a method; raises SettingsError where there is none of that name."""
    if name not in METHODS:
        raise SettingsError(f"there is no method '{name}'; choose one of {', '.join(METHODS)}")
    return METHODS[name]


__all__ = [
    "CFA",
    "METHODS",
    "SPADE",
    "CFASettings",
    "Method",
    "MethodSettings",
    "PaDiM",
    "PaDiMSettings",
    "PatchCore",
    "PatchCoreSettings",
    "SPADESettings",
    "method_class",
]
