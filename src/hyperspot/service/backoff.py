"""Waiting before something is tried again."""

import random


class Backoff:
    """Seconds to wait, doubled after each failure and spread at random, so that receivers are not hit all at once.

    Args:
        first: Seconds after the first failure.
        most: Seconds at most.

    Examples:
        >>> from hyperspot.service.backoff import Backoff
        >>> backoff = Backoff(first=1.0, most=4.0)
        >>> waits = [backoff.next() for _ in range(4)]
        >>> all(limit / 2 <= wait <= limit for wait, limit in zip(waits, (1, 2, 4, 4)))
        True

    """

    def __init__(self, first: float = 0.5, most: float = 60.0) -> None:
        self._first, self._most = first, most
        self._limit = first

    def next(self) -> float:
        """Return the seconds to wait now."""
        limit = self._limit
        self._limit = min(2 * limit, self._most)
        return limit * random.uniform(0.5, 1)  # noqa: S311 - no secret

    def reset(self) -> None:
        """Start again with the first wait, after a success."""
        self._limit = self._first
