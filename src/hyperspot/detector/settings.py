"""All settings that decide a result: one frozen, validated object, stored in the model file."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError, model_validator

from hyperspot.backbones import NONE, names
from hyperspot.choices import DEFAULTS, Aspect, CalibrationMode, Crops, Tile
from hyperspot.errors import SettingsError
from hyperspot.images.tiles import LARGEST_TILE
from hyperspot.methods import MethodSettings, method_class

TILED_SIGMA = 16
"""Smoothing of tiles, at most: their overlap hides its reach."""


class Settings(BaseModel):
    """Settings of a detector.

    Attributes:
        method: Name of the method.
        method_settings: Settings of the method, as its settings class or a mapping.
        backbone: Name of the frozen feature extractor; `none`, and only that, for a method that trains its own network.
            Default: `compact` or `none`.
        short_side: Short side of the input size, in pixels; a multiple of 32.
        aspect: `keep` gives the input the median aspect ratio of the good images; `square` stretches every image to a
            square, as the papers do.
        crops: What the models see of the input: `full`; `center`, its central 7/8 (224 of 256 in the papers); or
            `fused`, one model for each, with their standardized maps averaged (CFA++).
        tile: Side of overlapping tiles that the image is cut into, in pixels of the input; a multiple of 32. One model
            sees all tiles, and the whole image at a smaller size. `off`: the model sees each image whole; `auto`: tiles
            if the images are much larger than `short_side`.
        pixels_per_tile_pixel: Image pixels per pixel of a tile, at least 1. Default: from `smallest_defect`; without it
            1, or with `auto` so that the input has at most twice `short_side`.
        smallest_defect: Width of the smallest defect of interest, in image pixels; it sets the scale of the tiles.
        sigma: Standard deviation of the Gaussian that smooths the anomaly map, in input pixels.
        seed: Of every random choice.
        false_alarm_rate: Promised share of good images called anomalous, in (0, 1), down to 1 / (n + 1) with n
            calibration images. Default: max(0.01, 3 / (n + 1)).
        calibration: `leave-one-out` trains on all images and scores each by the model without it; `split` holds good
            images out; `cross` trains on folds and then on all images; `auto` leaves one out if the method supports
            it, and otherwise splits if there are enough images; `none` gives scores without decisions.
        background_weight: Without an image score of the method, the image score is the maximum of the anomaly map minus
            this share, in [0, 1], of its median. 0 as published.
        mask_false_alarm_rate: Share of good images whose anomaly map exceeds the floor of masks, in (0, 1).

    Examples:
        >>> from hyperspot import Settings
        >>> Settings(method="padim", method_settings={"channels": 100}).method_settings.channels
        100

    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str = DEFAULTS.method
    method_settings: SerializeAsAny[MethodSettings] = Field(default_factory=dict, validate_default=True)
    backbone: str = DEFAULTS.backbone
    short_side: int = Field(default=DEFAULTS.short_side, ge=64, le=2048, multiple_of=32)
    aspect: Aspect = DEFAULTS.aspect
    crops: Crops = DEFAULTS.crops
    tile: Tile = DEFAULTS.tile
    pixels_per_tile_pixel: float | None = Field(default=DEFAULTS.pixels_per_tile_pixel, ge=1, le=1000)
    smallest_defect: float | None = Field(default=DEFAULTS.smallest_defect, gt=0, le=100_000)
    sigma: float = Field(default=DEFAULTS.sigma, ge=0, le=64)
    seed: int = Field(default=DEFAULTS.seed, ge=0, lt=2**63)
    false_alarm_rate: float | None = Field(default=DEFAULTS.false_alarm_rate, gt=0, lt=1)
    calibration: CalibrationMode = DEFAULTS.calibration
    background_weight: float = Field(default=DEFAULTS.background_weight, ge=0, le=1)
    mask_false_alarm_rate: float = Field(default=DEFAULTS.mask_false_alarm_rate, gt=0, lt=1)

    @model_validator(mode="after")
    def _tiles_fit(self) -> "Settings":
        if self.tile == "off" and (self.pixels_per_tile_pixel is not None or self.smallest_defect is not None):
            raise SettingsError("the scale of tiles and the smallest defect need tiles; add --tile auto or a size")
        if self.pixels_per_tile_pixel is not None and self.smallest_defect is not None:
            raise SettingsError("the smallest defect sets the scale of the tiles; leave --pixels-per-tile-pixel out")
        if self.tile != "off" and self.sigma > TILED_SIGMA:
            raise SettingsError(f"tiles cannot be smoothed by more than {TILED_SIGMA} pixels; choose a smaller --sigma")
        if self.tile != "off" and self.crops != "full":
            raise SettingsError(f"tiles are cut from the full input; choose --crops full instead of {self.crops}")
        if isinstance(self.tile, int) and (not 64 <= self.tile <= LARGEST_TILE or self.tile % 32):
            raise SettingsError(f"a tile of {self.tile} pixels cannot be used; choose a multiple of 32, 64 to 2048")
        return self

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
                f"the method '{name}' trains its own network and uses no backbone; leave '{backbone}' out"
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


class SettingsChanges(TypedDict, total=False):
    """Single settings by name, as `Detector.fit` takes them; see `Settings`."""

    method: str
    method_settings: MethodSettings | Mapping[str, Any]
    backbone: str
    short_side: int
    aspect: Aspect
    crops: Crops
    tile: Tile
    pixels_per_tile_pixel: float | None
    smallest_defect: float | None
    sigma: float
    seed: int
    false_alarm_rate: float | None
    calibration: CalibrationMode
    background_weight: float
    mask_false_alarm_rate: float


def make_settings(values: Mapping[str, Any]) -> Settings:
    """Return validated settings; raises SettingsError with one sentence about the first mistake."""
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
    for name in ("levels", "level_weights"):
        if isinstance(values.get(name), str):
            values[name] = (values[name],)
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
