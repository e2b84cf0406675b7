"""Signing in by name and password, with a limit on guessing."""

import contextlib
import ipaddress
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator

from fastapi import Request
from sqlalchemy.orm import Session

from hyperspot.service.access.accounts import find_user
from hyperspot.service.access.audit import audit
from hyperspot.service.access.hashing import hash_password, is_outdated, is_password
from hyperspot.service.database.tables import User
from hyperspot.service.problems import Problem

WINDOW = 300.0
"""Seconds in which attempts are counted."""
PER_NAME, PER_ADDRESS = 10, 30
"""Failed attempts in the window; an address may be a proxy of many people."""
MOST_KEYS = 10_000
"""Of names and addresses that are remembered; beyond it the oldest are forgotten."""


class Attempts:
    """Counts failed sign-ins per name and per address, in memory.

    Args:
        clock: Seconds that never go back.

    Examples:
        >>> from hyperspot.service.access.sign_in import Attempts
        >>> attempts = Attempts(clock=lambda: 0.0)
        >>> for _ in range(10):
        ...     attempts.begin("ann", "192.0.2.1")
        >>> try:
        ...     attempts.begin("ann", "192.0.2.7")
        ... except Problem as problem:
        ...     problem.status, problem.headers
        (429, {'Retry-After': '300'})

    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._times: OrderedDict[str, list[float]] = OrderedDict()
        self._lock = threading.Lock()

    def begin(self, name: str, address: str) -> None:
        """Count an attempt before it is tried, so that parallel ones count too; raises Problem 429 beyond the limit."""
        moment = self._clock()
        with self._lock:
            keys = _keys(name, address)
            lists = [self._recent(key, moment) for key in keys]
            waits = [
                times[-limit] + WINDOW - moment
                for times, limit in zip(lists, (PER_NAME, PER_ADDRESS), strict=True)
                if len(times) >= limit
            ]
            if waits:
                seconds = max(1, math.ceil(max(waits)))
                raise Problem(
                    429, f"too many attempts to sign in; wait {seconds} s", headers={"Retry-After": str(seconds)}
                )
            for key, times in zip(keys, lists, strict=True):
                times.append(moment)
                self._times[key] = times
                self._times.move_to_end(key)
            while len(self._times) > MOST_KEYS:
                self._times.popitem(last=False)

    def succeed(self, name: str, address: str) -> None:
        """Forget the attempts on a name, and the last one of the address."""
        by_name, by_address = _keys(name, address)
        with self._lock:
            self._times.pop(by_name, None)
            if self._times.get(by_address):
                self._times[by_address].pop()

    @contextlib.contextmanager
    def trying(self, name: str, address: str) -> Iterator[None]:
        """Count an attempt, and forget it if the block succeeds; raises Problem 429 beyond the limit."""
        self.begin(name, address)
        yield
        self.succeed(name, address)

    def _recent(self, key: str, moment: float) -> list[float]:
        return [time for time in self._times.get(key, []) if time > moment - WINDOW]


def check_sign_in(session: Session, name: str, password: str) -> User | None:
    """Return the user whom a name and a password sign in; None tells neither which of them is wrong nor why."""
    user = find_user(session, name)
    usable = user is not None and not user.is_disabled
    if not is_password(user.password_hash if user is not None and usable else None, password) or user is None:
        return None
    if is_outdated(user.password_hash):
        user.password_hash = hash_password(password)
    audit(session, user.name, "sign_in", user.name, by="password")
    return user


def address_of(request: Request) -> str:
    """Return the address of who sends a request."""
    return "unknown" if request.client is None else request.client.host


def _keys(name: str, address: str) -> tuple[str, str]:
    """Return the keys of an attempt; who has an IPv6 address has all of its /64 network."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return f"name {name.strip().casefold()}", f"address {address}"
    if parsed.version == 6:
        address = str(ipaddress.ip_network((int(parsed), 64), strict=False))
    return f"name {name.strip().casefold()}", f"address {address}"
