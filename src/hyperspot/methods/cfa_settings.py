"""The settings of CFA and its three variants."""

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from hyperspot.methods.base import Level, MethodSettings

Variant = Literal["default", "released", "paper"]

VARIANTS: dict[Variant, dict[str, Any]] = {
    "released": {
        "levels": (2, 3, 4),
        "bank": "mean",
        "initialization": "torch",
        "radius": 1e-5,
        "learn_radius": True,
        "output_negative_slope": 0.01,
        "steps": 1500,
    },
    "paper": {
        "levels": (2, 3, 4),
        "bank": "algorithm1",
        "initialization": "he",
        "radius": 1e-5,
        "learn_radius": False,
        "output_negative_slope": 0.0,
        "steps": 1500,
    },
    "default": {
        "levels": (2, 3, 4),
        "grid_level": 3,
        "level_weights": (0.5, 1.0, 1.0),
        "bank": "coreset",
        "bank_ratio": 4,
        "gamma_d": 2,
        "neighbors": 1,
        "initialization": "whitened",
        "radius": 1e-5,
        "learn_radius": True,
        "output_negative_slope": 0.0,
        "steps": 0,
    },
}
"""`released`: as the published code. `paper`: as the text. `default`: recommended."""

LARGEST_PATCH_BANK = 16_384
"""Maximum size of a bank of patches, so that cost does not grow with the square of the pixels."""
MOST_NEIGHBORS = 1024
"""Sorting more neighbors would cost more than computing all distances."""
LARGEST = 1_000_000
"""Bound on counts against typing errors: over 300 times the longest published training."""


TRAINING_SETTINGS = frozenset(
    {
        *("hard_negatives", "radius", "learn_radius", "alpha", "loss_scale", "losses", "steps", "images_per_step"),
        *("patches_per_step", "learning_rate", "weight_decay"),
    }
)
"""Without effect if the descriptor is not trained."""


class CFASettings(MethodSettings):
    """The settings of CFA. The variant sets all of them; explicit settings override it.

    Counts larger than the images or the backbone provide are capped, and stored as given.

    Attributes:
        variant: `default`, `released` or `paper`; see `VARIANTS`.
        levels: Pyramid levels of the backbone, each once; stored fine to coarse.
        grid_level: Level with one patch per position; finer levels are averaged to its grid. Default: the finest one.
        level_weights: Factor of each level in a `whitened` descriptor, fine to coarse. Default: 1 for each.
        bank: Source of the memory vectors: the `mean` of each position, `algorithm1` of the paper, a `coreset` of
            training patches, or K-means `clusters` of them.
        bank_ratio: Memory vectors per position, before division by γ_c. A `mean` or `algorithm1` bank has at most one
            per position; a bank of patches at most `LARGEST_PATCH_BANK`, and fewer with few images.
        initialization: Of the descriptor: `torch` or `he`, as published; or `whitened`, the principal axes of each
            level, divided by their variance to the power `whitening`.
        whitening: From 0, all distances are kept, to 0.5, all axes weigh the same.
        whitened_channels: Principal axes per level, at most.
        gamma_c: The paper's γ_c, divides the memory vectors; at least one is kept.
        gamma_d: The paper's γ_d, divides the channels, those of each level if `whitened`; at least one is kept.
            `released` divides twice the channels of EfficientNet.
        neighbors: The paper's K, attracting memory vectors.
        hard_negatives: The paper's J, the next ones, which repel.
        radius: The paper's r, or its initial value if it is trained.
        learn_radius: Whether the radius is trained.
        alpha: The paper's α.
        beta: The paper's β of Algorithm 1, which states no value.
        loss_scale: Factor of the loss, 1/ν.
        losses: Loss terms; `none` disables training.
        output_negative_slope: Slope below zero of the activation of the levels.
        steps: Training steps; 0 disables training.
        images_per_step: Images that the patches of a step are drawn from.
        patches_per_step: Patches per step; 0 takes all patches of its images.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW.

    Examples:
        >>> CFASettings(variant="released").steps
        1500
        >>> CFASettings(levels=(4, 3)).levels
        (3, 4)

    """

    variant: Variant = "default"
    levels: tuple[Level, ...] = Field(min_length=1)
    grid_level: Level | None = None
    level_weights: tuple[Annotated[float, Field(gt=0)], ...] = ()
    bank: Literal["mean", "algorithm1", "coreset", "clusters"]
    bank_ratio: int = Field(default=1, ge=1, le=LARGEST_PATCH_BANK)
    initialization: Literal["torch", "he", "whitened"]
    whitening: float = Field(default=0.15, ge=0, le=0.5)
    whitened_channels: int = Field(default=64, ge=1, le=LARGEST)
    gamma_c: int = Field(default=1, ge=1, le=LARGEST)
    gamma_d: int = Field(default=1, ge=1, le=LARGEST)
    neighbors: int = Field(default=3, ge=1, le=MOST_NEIGHBORS)
    hard_negatives: int = Field(default=3, ge=1, le=MOST_NEIGHBORS)
    radius: float = Field(ge=0)
    learn_radius: bool
    alpha: float = Field(default=0.1, ge=0)
    beta: float = Field(default=0.1, gt=0, le=1)
    loss_scale: float = Field(default=1000.0, gt=0)
    losses: Literal["none", "attraction", "both"] = "both"
    output_negative_slope: float = Field(ge=0, lt=1)
    steps: int = Field(ge=0, le=LARGEST)
    images_per_step: int = Field(default=4, ge=1, le=LARGEST)
    patches_per_step: int = Field(default=512, ge=0, le=LARGEST)
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=5e-4, ge=0)

    @field_validator("levels")
    @classmethod
    def _each_level_once(cls, levels: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(levels)) < len(levels):
            raise PydanticCustomError("repeated", "each level can be named once")
        return tuple(sorted(levels))

    @model_validator(mode="before")
    @classmethod
    def _fill_from_variant(cls, given: dict[str, Any]) -> dict[str, Any]:
        preset = VARIANTS.get(given.get("variant", "default"), {})
        levels = given.get("levels", preset.get("levels"))
        if isinstance(levels, tuple | list) and sorted(map(str, levels)) != sorted(map(str, preset.get("levels", ()))):
            # The weights of the variant belong to its levels.
            preset = {name: value for name, value in preset.items() if name != "level_weights"}
        return {**preset, **given}

    @field_validator("level_weights")
    @classmethod
    def _one_weight_per_level(cls, weights: tuple[float, ...], info: Any) -> tuple[float, ...]:
        levels = info.data.get("levels", ())
        if weights and levels and len(weights) != len(levels):
            raise PydanticCustomError("weights", "the {levels} levels need as many weights", {"levels": len(levels)})
        return weights
