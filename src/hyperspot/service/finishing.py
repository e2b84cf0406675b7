"""Work that is finished even if the task that waits for it is canceled, and answers from other threads."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, InvalidStateError
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


def resolve(future: "Future[T]", result: T | Exception) -> None:
    """Give the answer that a coroutine awaits by `asyncio.wrap_future`, from any thread, unless it was given up.

    Examples:
        >>> from concurrent.futures import Future
        >>> from hyperspot.service.finishing import resolve
        >>> future = Future()
        >>> resolve(future, "first")
        >>> resolve(future, "second")
        >>> future.result()
        'first'

    """
    with contextlib.suppress(InvalidStateError):
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
