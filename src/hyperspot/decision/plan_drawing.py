"""An inspection plan on its way to a page that draws it, and back."""

from typing import Any

import numpy as np
from jaxtyping import UInt8

from hyperspot.decision.inspection_plan import InspectionPlan
from hyperspot.errors import DataError
from hyperspot.images.registration import Reference


def plan_at(plan: InspectionPlan, width: int, height: int) -> InspectionPlan:
    """Return a plan with its polygons in the pixels of an image of this size; raises DataError for a mask of another.

    Examples:
        >>> from hyperspot import InspectionPlan
        >>> from hyperspot.decision.plan_drawing import plan_at
        >>> plan = InspectionPlan.from_dict({"image_size": [640, 480], "include": [[[0, 0], [640, 0], [640, 480]]]})
        >>> plan_at(plan, 320, 240).area.include
        (((0.0, 0.0), (320.0, 0.0), (320.0, 240.0)),)

    """
    values = plan.to_dict()
    size = values.get("image_size", [width, height])
    if size == [width, height]:
        return plan
    if "mask" in values:
        raise DataError(
            f"the region of interest is a mask of {size[0]} x {size[1]} pixels, and this image has {width} x {height}; "
            "give the image that it belongs to"
        )
    scale = width / size[0], height / size[1]

    def scaled(polygons: list[list[list[float]]]) -> list[list[list[float]]]:
        return [[[x * scale[0], y * scale[1]] for x, y in polygon] for polygon in polygons]

    for name in ("include", "ignore"):
        values[name] = scaled(values.get(name, []))
    for zone in values.get("zones", []):
        zone["polygons"] = scaled(zone["polygons"])
    if "mm_per_pixel" in values:
        values["mm_per_pixel"] /= (scale[0] * scale[1]) ** 0.5
    return InspectionPlan.from_dict({**values, "image_size": [width, height]})


def drawn_plan(values: dict[str, Any], image: UInt8[np.ndarray, "h w 3"]) -> InspectionPlan:
    """Return the plan that was drawn on an image.

    Args:
        values: `InspectionPlan.to_dict()`, and `register`: whether the image becomes the reference of registration.
        image: On which it was drawn.

    Raises:
        HyperspotError, TypeError, ValueError: If it is no plan, or no pixel counts.
    """
    plan = InspectionPlan.from_dict(
        {name: value for name, value in values.items() if name not in ("register", "registration")}
    )
    # An empty region of interest is refused here, not in training.
    inside = plan.area.mask(*image.shape[:2])
    return plan.with_reference(Reference.from_image(image, inside)) if values.get("register") else plan
