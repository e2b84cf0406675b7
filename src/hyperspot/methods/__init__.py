"""Anomaly detection methods, one file each."""

from hyperspot.methods.base import Finalize, LeftOut, Level, Method, MethodSettings, StepCallback
from hyperspot.methods.cfa import CFA
from hyperspot.methods.cfa_settings import CFASettings
from hyperspot.methods.cflow import CFlow, CFlowSettings
from hyperspot.methods.cutpaste import CutPaste, CutPasteSettings
from hyperspot.methods.padim import PaDiM, PaDiMSettings
from hyperspot.methods.patch_svdd import PatchSVDD, PatchSVDDSettings
from hyperspot.methods.patchcore import PatchCore, PatchCoreSettings
from hyperspot.methods.registry import METHODS, method_class, plugins_of, register_method, require_plugins
from hyperspot.methods.spade import SPADE, SPADESettings
from hyperspot.methods.vae import VAE, VAESettings

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
    "Finalize",
    "LeftOut",
    "Level",
    "Method",
    "MethodSettings",
    "PaDiM",
    "PaDiMSettings",
    "PatchCore",
    "PatchCoreSettings",
    "PatchSVDD",
    "PatchSVDDSettings",
    "SPADESettings",
    "StepCallback",
    "VAESettings",
    "method_class",
    "plugins_of",
    "register_method",
    "require_plugins",
]
