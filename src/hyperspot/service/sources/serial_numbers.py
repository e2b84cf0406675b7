"""Serial numbers in file names, found by a regular expression in a process that can be ended."""

import asyncio
import json
import re
import sys

from hyperspot.service.finishing import finish

SECONDS = 1.0
"""For one file name; some expressions take years on some names."""
LONGEST = 200
"""Characters of a serial number."""
PROGRAM = """
import json, re, sys
pattern = re.compile(json.loads(sys.argv[1]))
for line in sys.stdin:
    match = pattern.search(json.loads(line))
    found = None if match is None else match.group(1) if pattern.groups else match.group()
    print(json.dumps(found), flush=True)
"""


class TooSlowError(Exception):
    """The expression takes too long on a name."""


def check_pattern(pattern: str) -> str:
    """Return a regular expression; raises ValueError if it is none.

    Examples:
        >>> from hyperspot.service.sources.serial_numbers import check_pattern
        >>> check_pattern("SN([0-9]+)")
        'SN([0-9]+)'

    """
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(f"this is no regular expression ({error}); an example is SN([0-9]+)") from None
    return pattern


class SerialNumbers:
    """Finds serial numbers: the first group of the expression, or all of the match.

    Examples:
        >>> import asyncio
        >>> from hyperspot.service.sources.serial_numbers import SerialNumbers
        >>> async def main():
        ...     numbers = SerialNumbers("SN([0-9]+)")
        ...     try:
        ...         return await numbers.find("line3_SN0815.png"), await numbers.find("test.png")
        ...     finally:
        ...         await numbers.close()
        >>> asyncio.run(main())
        ('0815', None)

    """

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._process: asyncio.subprocess.Process | None = None

    async def find(self, name: str) -> str | None:
        """Return the serial number in a file name, or None; raises TooSlowError."""
        if self._process is None:
            self._process = await finish(self._start())
        question = json.dumps(name).encode() + b"\n"
        try:
            async with asyncio.timeout(SECONDS):
                assert self._process.stdin is not None
                assert self._process.stdout is not None
                self._process.stdin.write(question)
                await self._process.stdin.drain()
                answer = await self._process.stdout.readline()
        except (TimeoutError, ConnectionError):
            await self.close()
            raise TooSlowError(
                f"the expression for serial numbers takes more than {SECONDS:g} second on this name; simplify it"
            ) from None
        found = json.loads(answer)
        return found[:LONGEST] if found else None

    async def _start(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-c",
            PROGRAM,
            json.dumps(self._pattern),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        # Its start is no part of the time-out.
        process.stdin.write(b'""\n')
        await process.stdout.readline()
        return process

    async def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            await finish(process.communicate())
