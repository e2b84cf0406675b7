"""Exports detectors to files that need no torch."""

from hyperspot.export.exporting import export

__all__ = ["export"]
