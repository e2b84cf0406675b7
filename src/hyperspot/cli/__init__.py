"""The command line."""

from hyperspot.cli.app import main

__all__ = ["main"]
