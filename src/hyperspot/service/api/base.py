"""What the bodies and parameters of all routes have in common: nothing in them that a database or JSON refuses."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, TypeVar

from fastapi import Path
from fastapi.exceptions import RequestValidationError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from hyperspot.service.problems import TITLES

LARGEST = 2**63 - 1
LARGEST_VERSION = 2**31 - 1
DEEPEST = 20
Model = TypeVar("Model", bound=BaseModel)


def plain_text(text: str) -> str:
    """Return a text; raises ValueError if it has characters that no database stores.

    Examples:
        >>> from hyperspot.service.api.base import plain_text
        >>> plain_text("7 Å")
        '7 Å'

    """
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("the text has a NUL or half a surrogate pair; leave it out")
    return text


def with_zone(moment: datetime) -> datetime:
    """Return a time with its zone, by default that of the station; raises ValueError if no database stores it.

    Examples:
        >>> from datetime import UTC, datetime
        >>> from hyperspot.service.api.base import with_zone
        >>> with_zone(datetime(2026, 3, 2, tzinfo=UTC)) == datetime(2026, 3, 2, tzinfo=UTC)
        True

    """
    try:
        aware = moment.astimezone()
    except (OverflowError, ValueError, OSError):
        raise ValueError("the time is out of range") from None
    if not 1900 <= aware.year <= 9000:
        raise ValueError("the time is out of range")
    return aware


def plain_json(values: dict[str, Any]) -> dict[str, Any]:
    """Return JSON values; raises ValueError if some cannot be stored.

    Examples:
        >>> from hyperspot.service.api.base import plain_json
        >>> plain_json({"folder": "C:/images", "seconds": [1, 2.5]})
        {'folder': 'C:/images', 'seconds': [1, 2.5]}

    """
    _check(values, 0)
    return values


def _check(value: Any, depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError(f"the values are nested more than {DEEPEST} times")
    if isinstance(value, str):
        plain_text(value)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number is not finite")
    elif isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError("a number is too large")
    elif isinstance(value, dict):
        for name, one in value.items():
            plain_text(name)
            _check(one, depth + 1)
    elif isinstance(value, list):
        for one in value:
            _check(one, depth + 1)


Text = Annotated[str, AfterValidator(plain_text), Field(min_length=1, max_length=200)]
ShortText = Annotated[str, AfterValidator(plain_text), Field(min_length=1, max_length=100)]
Note = Annotated[str, AfterValidator(plain_text), Field(max_length=500)]
Json = Annotated[dict[str, Any], AfterValidator(plain_json)]
Moment = Annotated[datetime, AfterValidator(with_zone)]
Id = Annotated[int, Path(ge=1, le=LARGEST, description="Number of the row.")]
VersionNumber = Annotated[int, Path(ge=1, le=LARGEST_VERSION, description="Number of the version.")]
ProductId = Annotated[str, Path(description="Id of the product.", examples=["bolt"])]
Digest = Annotated[str, Path(pattern="^[0-9a-f]{64}$", description="SHA-256 of the image.")]


class Body(BaseModel):
    """Base of all bodies and queries: names that are not known are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class ProblemDetails(BaseModel):
    """An error, by RFC 9457."""

    model_config = ConfigDict(
        extra="allow",
        json_schema_extra={
            "examples": [
                {
                    "type": "about:blank",
                    "title": "Not found",
                    "status": 404,
                    "detail": "there is no such product; create it, or check its id",
                }
            ]
        },
    )

    type: str = "about:blank"
    title: str
    status: int
    detail: str = Field(description="One sentence: what is wrong, and the mend.")


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return how a route documents its errors.

    Examples:
        >>> from hyperspot.service.api.base import problems
        >>> problems(404)[404]["description"]
        'Not found'

    """
    return {status: {"model": ProblemDetails, "description": TITLES[status]} for status in statuses}


def checked(model: type[Model], values: dict[str, Any], place: str) -> Model:
    """Return a model of values that FastAPI did not read; raises RequestValidationError as it does."""
    try:
        return model(**values)
    except ValidationError as error:
        details: Sequence[Any] = error.errors(include_context=False)
        raise RequestValidationError([one | {"loc": (place, *one["loc"])} for one in details]) from None
