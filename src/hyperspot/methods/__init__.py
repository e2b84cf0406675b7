"""The methods: one file each, one line in the registry each."""

from hyperspot.errors import SettingsError
from hyperspot.methods.base import Method, MethodSettings
from hyperspot.methods.cfa import CFA, CFASettings
from hyperspot.methods.cflow import CFlow, CFlowSettings
from hyperspot.methods.cutpaste import CutPaste, CutPasteSettings
from hyperspot.methods.padim import PaDiM, PaDiMSettings
from hyperspot.methods.patch_svdd import PatchSVDD, PatchSVDDSettings
from hyperspot.methods.patchcore import PatchCore, PatchCoreSettings
from hyperspot.methods.spade import SPADE, SPADESettings
from hyperspot.methods.vae import VAE, VAESettings

METHODS: dict[str, type[Method]] = {
    CFA.name: CFA,
    PatchCore.name: PatchCore,
    PaDiM.name: PaDiM,
    SPADE.name: SPADE,
    CFlow.name: CFlow,
    CutPaste.name: CutPaste,
    PatchSVDD.name: PatchSVDD,
    VAE.name: VAE,
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
    "VAE",
    "CFASettings",
    "CFlow",
    "CFlowSettings",
    "CutPaste",
    "CutPasteSettings",
    "Method",
    "MethodSettings",
    "PaDiM",
    "PaDiMSettings",
    "PatchCore",
    "PatchCoreSettings",
    "PatchSVDD",
    "PatchSVDDSettings",
    "SPADESettings",
    "VAESettings",
    "method_class",
]
