"""Where images come from."""

from hyperspot.service.sources.manager import Sources
from hyperspot.service.sources.registry import SOURCES

__all__ = ["SOURCES", "Sources"]
