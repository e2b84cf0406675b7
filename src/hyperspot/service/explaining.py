"""What people are told about a failure of a source or an output."""

import logging

from sqlalchemy.exc import DBAPIError

from hyperspot.errors import HyperspotError
from hyperspot.service.problems import Problem


def explain(error: BaseException) -> str:
    """Return a sentence about an error, without the SQL that a database error quotes.

    Examples:
        >>> from hyperspot.service.explaining import explain
        >>> explain(ValueError("no frame"))
        'ValueError: no frame'

    """
    if isinstance(error, HyperspotError | Problem):
        return str(error)
    if isinstance(error, DBAPIError):
        return "the database does not answer; it is asked again"
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def log_failure(log: logging.Logger, who: str, error: Exception) -> None:
    """Log an error: expected ones as a line, others with the place where they happened."""
    if isinstance(error, HyperspotError | Problem | DBAPIError):
        log.warning("%s: %s", who, explain(error))
    else:
        log.error("%s failed", who, exc_info=error)
