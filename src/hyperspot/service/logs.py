"""Logs of the station on stderr: one JSON object a line, or readable lines on a terminal; never a secret."""

import json
import logging
import re
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from hyperspot.errors import SettingsError

LEVELS = ("debug", "info", "warning", "error")
REQUEST_ID: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Of the request that is answered; it stands in each of its lines."""
SECRETS = (
    (re.compile(r"hsp_[\w-]+"), "hsp_***"),
    (re.compile(r"\$argon2\w*\$[\w$=,+/.-]+"), "$argon2***"),
    (re.compile(r"(sign-in/link/)[\w%-]+"), r"\1***"),
    (re.compile(r"(\w://[^\s:/@]*:)[^\s/]+@"), r"\1***@"),
    (re.compile(r"((?:hyperspot_session|csrf_token)=)[^\s;&'\"]+"), r"\1***"),
    (re.compile(r"(?i)((?:cookie|authorization|csrf-token)['\"]?\s*[:=,]\s*['\"]?)[^'\"\n]+"), r"\1***"),
    (re.compile(r"(?i)((?:password|passwd|secret)['\"]?\s*[:=]\s*['\"]?)[^\s'\",;&)}]+"), r"\1***"),
)
"""What is taken out of every line, whoever wrote it."""


def without_secrets(text: str) -> str:
    """Return a text with its secrets replaced by asterisks.

    Examples:
        >>> from hyperspot.service.logs import without_secrets
        >>> without_secrets("GET /sign-in/link/abc with Bearer hsp_xyz")
        'GET /sign-in/link/*** with Bearer hsp_***'
        >>> without_secrets("postgresql+psycopg://ann:pass@host/name")
        'postgresql+psycopg://ann:***@host/name'

    """
    for pattern, replacement in SECRETS:
        text = pattern.sub(replacement, text)
    return text


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object: time, level, logger, message, and its fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        values: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": without_secrets(record.getMessage()),
        }
        values |= _fields(record)
        if record.exc_info:
            values["error"] = without_secrets(self.formatException(record.exc_info))
        return json.dumps(values, ensure_ascii=False, default=str)


class ReadableLines(logging.Formatter):
    """Formats a record for people: time, level, message, fields."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, with the lines of an error below it."""
        clock = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        fields = "".join(f"  {name}={value}" for name, value in _fields(record).items() if name != "request_id")
        # A message may quote what a client sent: no line breaks and no control sequences of terminals.
        text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in without_secrets(record.getMessage()) + fields)
        error = f"\n{without_secrets(self.formatException(record.exc_info))}" if record.exc_info else ""
        return f"{clock} {record.levelname.lower():7} {text}{error}"


def configure(level: str = "info") -> None:
    """Send all logs and warnings of this process to stderr; raises SettingsError for an unknown level.

    Examples:
        >>> from hyperspot.service.logs import configure
        >>> configure("loud")
        Traceback (most recent call last):
        ...
        hyperspot.errors.SettingsError: there is no log level 'loud'; choose debug, info, warning or error

    """
    if level not in LEVELS:
        raise SettingsError(f"there is no log level '{level}'; choose {', '.join(LEVELS[:-1])} or {LEVELS[-1]}")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(ReadableLines() if sys.stderr.isatty() else JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # Of every statement and every file event they tell at the level of the station.
    quiet = (
        "alembic",
        "sqlalchemy",
        "watchfiles",
        "asyncio",
        "httpx",
        "httpcore",
        "multipart",
        "PIL",
        "asyncua",
        "pymodbus",
    )
    for name in quiet:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.captureWarnings(True)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return what a record tells beside its message."""
    fields: dict[str, Any] = getattr(record, "fields", {})
    request_id = REQUEST_ID.get()
    return ({} if request_id is None else {"request_id": request_id}) | fields
