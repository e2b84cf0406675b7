"""Everything that decides a result, in one frozen object that is stored in the model file."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError, model_validator

from hyperspot.backbones import DEFAULT, NONE, names
from hyperspot.errors import SettingsError
from hyperspot.methods import MethodSettings, method_class


class Settings(BaseModel):
    """How a detector sees, learns and decides.

    Attributes:
        method: The name of the method, and `method_settings` what is set in it.
        backbone: The name of the frozen feature extractor; `none` for a method that learns its own network, and only
            for such a one. Without it `compact`, or `none`.
        short_side: Pixels of the short side of the common frame all photos are placed in.
        aspect: `keep` gives the frame the median aspect ratio of the good photos; `square` stretches every
            photo to a square, as the papers do.
        views: `whole` sees the whole frame, `crop` its central 7/8 (the papers' 224 of 256), `fused` both,
            each with a model of its own, and averages their standardized maps (CFA++).
        sigma: Deviation in frame pixels of the Gaussian that smooths the map.
        seed: Decides every random choice.
        false_alarm_rate: The promised share of good photos that are called anomalous, in (0, 1); none asks for
            0.01, or the smallest rate that the number of photos supports.
        calibration: `split` holds good photos out; `cross` trains on folds and then on all photos; `auto`
            takes the first where there are enough photos; `none` gives scores without a verdict.
        pixel_false_alarm_rate: The share of pixels of good photos above the threshold of the mask, in (0, 1).

    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str = "cfa"
    method_settings: SerializeAsAny[MethodSettings] = Field(default_factory=dict, validate_default=True)
    backbone: str = DEFAULT
    short_side: int = Field(default=256, ge=64, le=2048, multiple_of=32)
    aspect: Literal["keep", "square"] = "keep"
    crops: Literal["full", "center", "fused"] = "full"
    sigma: float = Field(default=4.0, ge=0, le=64)
    seed: int = Field(default=0, ge=0, lt=2**63)
    false_alarm_rate: float | None = Field(default=None, gt=0, lt=1)
    calibration: Literal["auto", "split", "cross", "none"] = "auto"
    pixel_false_alarm_rate: float = Field(default=0.001, gt=0, lt=1)

    @model_validator(mode="before")
    @classmethod
    def _what_depends_on_the_method(cls, given: dict[str, Any]) -> dict[str, Any]:
        name = given.get("method", "cfa")
        method = method_class(name)
        backbone = given.get("backbone", cls.model_fields["backbone"].default if method.uses_backbone else NONE)
        if backbone == NONE and method.uses_backbone:
            raise SettingsError(f"the method '{name}' needs a backbone; choose one of {', '.join(names())}")
        if backbone != NONE and not method.uses_backbone:
            raise SettingsError(
                f"the method '{name}' learns a network of its own and has no use for a backbone; leave '{backbone}' out"
            )
        settings_class = method.Settings
        inner = given.get("method_settings", {})
        if not isinstance(inner, MethodSettings):
            try:
                inner = settings_class.model_validate(inner)
            except ValidationError as error:
                raise SettingsError(_sentence(error, settings_class)) from None
        elif not isinstance(inner, settings_class):
            raise SettingsError(f"these are not settings of the method '{name}'")
        for setting, value in inner:
            if isinstance(value, float) and not math.isfinite(value):
                raise SettingsError(f"the setting '{setting}' cannot be {value}: input should be a finite number")
        return {**given, "backbone": backbone, "method_settings": inner}


def make_settings(values: Mapping[str, Any]) -> Settings:
    """Return validated settings; raises SettingsError with one sentence on the first mistake."""
    try:
        return Settings.model_validate(dict(values))
    except ValidationError as error:
        raise SettingsError(_sentence(error, Settings)) from None


def parse_assignments(assignments: Sequence[str]) -> dict[str, Any]:
    """Return the method settings given as `name=value` (`--set`); raises SettingsError on another form."""
    values: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        if not (name and equals and value):
            raise SettingsError(f"'{assignment}' is not of the form name=value, for example gamma_c=4")
        values[name.strip()] = tuple(part.strip() for part in value.split(",")) if "," in value else value.strip()
    if isinstance(values.get("levels"), str):
        values["levels"] = (values["levels"],)
    return {name: _number(value) for name, value in values.items()}


def _number(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(_number(part) for part in value)
    try:
        return int(value)
    except ValueError:
        return value


def _sentence(error: ValidationError, model: type[BaseModel]) -> str:
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else "settings"
    if first["type"] == "extra_forbidden":
        return f"there is no setting '{name}'; choose one of {', '.join(sorted(model.model_fields))}"
    if first["type"] == "missing":
        return f"the setting '{name}' has no value"
    message = first["msg"][0].lower() + first["msg"][1:]
    return f"the setting '{name}' cannot be {first['input']!r}: {message}"
