"""Frozen feature extractors and their weights."""

from hyperspot.backbones.base import Backbone, WeightsSource
from hyperspot.backbones.registry import BACKBONES, DEFAULT, NONE, create, names, register_backbone, restore

__all__ = [
    "BACKBONES",
    "DEFAULT",
    "NONE",
    "Backbone",
    "WeightsSource",
    "create",
    "names",
    "register_backbone",
    "restore",
]
