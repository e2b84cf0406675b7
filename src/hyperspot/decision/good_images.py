"""Scores of images by their anomaly maps, and all that a decision rule takes from a good image."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, UInt8

from hyperspot.decision.inspection_plan import InspectionPlan
from hyperspot.errors import SettingsError
from hyperspot.images import Letterbox, LetterboxedImage

Run = Callable[[UInt8[np.ndarray, "b H W 3"]], tuple[Float32[np.ndarray, "b H W"], Float32[np.ndarray, "b"] | None]]
"""What runs a model: 8-bit images at the input size to anomaly maps and, if the method has its own, image scores."""

MEDIAN_STEP = 4
"""Rows and columns of the input map from one value to the next, for its median."""
MOST_VALUES = 50_000
"""Map values that are kept of an image, at most."""


@dataclass(frozen=True, eq=False)
class GoodImage:
    """What a decision rule takes from a good image.

    Attributes:
        scores: Of each of the plan's `groups`; one without zones that have rates.
        maxima: Of the anomaly map, likewise.
        values: A sample of the map values inside the region of interest, and their maximum.
        correlation: With the reference; None without registration.

    """

    scores: Float64[np.ndarray, "zones"]
    maxima: Float64[np.ndarray, "zones"]
    values: Float[np.ndarray, "_pixels"]
    correlation: float | None = None


def image_score(
    input_map: Float[np.ndarray, "H W"],
    letterbox: Letterbox,
    method_score: float | None,
    background_weight: float,
    inside: Bool[np.ndarray, "H W"] | None = None,
) -> float:
    """Return the image score: the method's or, without one, the maximum of the map inside the image.

    A share of the median is left out, because texture and exposure move the whole map of an image, and a defect a part.

    Args:
        input_map: At the input size.
        letterbox: Of the image.
        method_score: None takes the map.
        background_weight: Share of the median, in 0..1.
        inside: Pixels in the region of interest; default: all of the image.

    """
    if method_score is not None:
        return method_score
    values = input_map[letterbox.content] if inside is None else input_map[inside]
    if background_weight == 0:
        return float(values.max())
    return float(values.max()) - background_weight * float(np.median(_sample(input_map, letterbox, inside)))


def zone_scores(
    input_map: Float[np.ndarray, "H W"],
    image: LetterboxedImage,
    method_score: float | None,
    background_weight: float,
    inspection: InspectionPlan,
) -> Float64[np.ndarray, "zones"]:
    """Return the score of each of the plan's `groups`: its maximum, less the share of the median of the whole image.

    Raises SettingsError if zones have rates and the method scores images as a whole.
    """
    if not inspection.own_rates:
        return np.array([image_score(input_map, image.letterbox, method_score, background_weight, image.inside)])
    if method_score is not None:
        raise SettingsError(
            "this method scores images as a whole, so that zones cannot have false-alarm rates of their own; "
            "leave the rates out or choose another method"
        )
    background = 0.0
    if background_weight:
        background = background_weight * float(np.median(_sample(input_map, image.letterbox, image.inside)))
    return zone_maxima(input_map, image, inspection) - background


def zone_maxima(
    input_map: Float[np.ndarray, "H W"], image: LetterboxedImage, inspection: InspectionPlan
) -> Float64[np.ndarray, "zones"]:
    """Return the maximum of the map in each of the plan's `groups`; 0 where zones cover all of the image."""
    if not inspection.own_rates:
        inside = image.letterbox.content if image.inside is None else image.inside
        return np.array([input_map[inside].max()], dtype=np.float64)
    masks = inspection.input_groups(image.letterbox)
    return np.array([float(input_map[mask].max()) if mask.any() else 0.0 for mask in masks])


def score_good_images(
    run: Run, images: Iterable[LetterboxedImage], background_weight: float, inspection: InspectionPlan | None = None
) -> list[GoodImage]:
    """Return scores, and a sample of the map values with their maximum, of each good image.

    Args:
        run: Of the model.
        images: Prepared with the area of the plan.
        background_weight: See `image_score`.
        inspection: Default: the whole image.

    """
    plan = InspectionPlan() if inspection is None else inspection
    good = []
    for image in images:
        maps, method_scores = run(image.pixels[None])
        method_score = None if method_scores is None else float(method_scores[0])
        maxima = zone_maxima(maps[0], image, plan)
        # All that a rule takes from a map: its maximum, and a median over all images that a sample gives.
        sampled = _sample(maps[0], image.letterbox, image.inside)
        values = np.append(sampled[:: -(-sampled.size // MOST_VALUES)], maps[0].dtype.type(maxima.max()))
        scores = zone_scores(maps[0], image, method_score, background_weight, plan)
        correlation = None if image.alignment is None else image.alignment.correlation
        good.append(GoodImage(scores, maxima, values, correlation))
    return good


def _sample(
    input_map: Float[np.ndarray, "H W"], letterbox: Letterbox, inside: Bool[np.ndarray, "H W"] | None
) -> Float[np.ndarray, "_pixels"]:
    """Return few values of a map: it is smooth, so that they give its median."""
    every = slice(None, None, MEDIAN_STEP)
    values = input_map[letterbox.content][every, every]
    if inside is None:
        return values.ravel()
    sampled: Float[np.ndarray, "_pixels"] = values[inside[letterbox.content][every, every]]
    # A region of interest may lie between the sampled pixels.
    return sampled if sampled.size else input_map[inside]
