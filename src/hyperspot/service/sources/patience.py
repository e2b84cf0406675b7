"""Waiting for the station's queue."""

import asyncio

from hyperspot.service.backoff import Backoff
from hyperspot.service.database.tables import Inspection
from hyperspot.service.problems import Problem
from hyperspot.service.sources.base import Capture, Inspect

IMAGE_PROBLEMS = frozenset({400, 413, 415, 422})
"""Statuses that say that the image itself cannot be inspected, now or later."""


async def inspect_patiently(inspect: Inspect, capture: Capture) -> Inspection:
    """Inspect an image that must not be lost: while the queue is full, wait and try again."""
    backoff = Backoff(first=0.05, most=2.0)
    while True:
        try:
            return await inspect(capture)
        except Problem as problem:
            if problem.status != 429:
                raise
        await asyncio.sleep(backoff.next())
