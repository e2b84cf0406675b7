"""Conformance checks for methods and backbones, also for those of plugins. No test framework is needed.

`check_method` and `check_backbone` run all rules. To get one test per rule, run the functions in `METHOD_RULES` and
`BACKBONE_RULES` on a `MethodCase` or `BackboneCase`, which fits once for all rules:

    >>> from hyperspot.methods import PaDiM
    >>> case = MethodCase(PaDiM, settings={"channels": 16})
    >>> METHOD_RULES["batch size"](case)
    >>> METHOD_RULES["defects score higher"](case)
    >>> BACKBONE_RULES["random weights"](BackboneCase("compact"))
"""

from hyperspot.testing.backbones import BACKBONE_RULES, BackboneCase, check_backbone
from hyperspot.testing.checks import missing_for_export
from hyperspot.testing.methods import METHOD_RULES, MethodCase, check_method

__all__ = [
    "BACKBONE_RULES",
    "METHOD_RULES",
    "BackboneCase",
    "MethodCase",
    "check_backbone",
    "check_method",
    "missing_for_export",
]
