"""Counts the forks that a process comes from.

Threads of engines do not survive a fork, and what waits for them hangs.
"""

import os

_forks = 0


def forks() -> int:
    """Return how many forks since the program started led to this process.

    Examples:
        >>> from hyperspot.utils.forking import forks
        >>> forks()
        0

    """
    return _forks


def _count() -> None:
    global _forks
    _forks += 1


# Windows has no fork.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count)
