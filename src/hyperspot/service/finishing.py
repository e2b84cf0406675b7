"""Work that is finished even if the task that waits for it is canceled."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def finish(work: Awaitable[T]) -> T:
    """Await `work`; if canceled meanwhile, wait for its end first, so that a stop leaves nothing half done.

    Examples:
        >>> import asyncio
        >>> from hyperspot.service.finishing import finish
        >>> asyncio.run(finish(asyncio.sleep(0, "done")))
        'done'

    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        if not task.cancelled():
            await asyncio.wait([task])
            if not task.cancelled():
                # Marks an exception as seen.
                task.exception()
        raise


async def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking function in a thread; a cancellation waits for its end.

    Examples:
        >>> import asyncio
        >>> from hyperspot.service.finishing import in_thread
        >>> asyncio.run(in_thread(sum, [1, 2]))
        3

    """
    return await finish(asyncio.to_thread(function, *args, **kwargs))
