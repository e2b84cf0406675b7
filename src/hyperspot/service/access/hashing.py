"""What is kept of passwords and other secrets: hashes alone."""

import hashlib
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

HASHER = PasswordHasher()
"""Argon2id, with the parameters of RFC 9106 for little memory."""


def hash_password(password: str) -> str:
    """Return the salted Argon2id hash of a password.

    Examples:
        >>> from hyperspot.service.access.hashing import hash_password
        >>> hash_password("correct horse").startswith("$argon2id$")
        True

    """
    return HASHER.hash(password)


def is_password(hashed: str | None, password: str) -> bool:
    """Whether a password has this hash; takes as long without a hash, so that the time tells nothing.

    Examples:
        >>> from hyperspot.service.access.hashing import is_password
        >>> is_password(None, "correct horse")
        False

    """
    nobody = _hash_of_nobody()
    try:
        return HASHER.verify(hashed or nobody, password) and bool(hashed)
    except (VerificationError, InvalidHashError):
        return False


def is_outdated(hashed: str) -> bool:
    """Whether a hash was made with other parameters than today's."""
    return HASHER.check_needs_rehash(hashed)


def digest(secret: str) -> str:
    """Return the SHA-256 of a random secret; one of 32 random bytes needs no salt.

    Examples:
        >>> from hyperspot.service.access.hashing import digest
        >>> len(digest("hsp_secret"))
        64

    """
    return hashlib.sha256(secret.encode()).hexdigest()


@cache
def _hash_of_nobody() -> str:
    return HASHER.hash("")
