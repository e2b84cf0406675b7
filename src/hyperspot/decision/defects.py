"""The defects of a verdict: the mask of an image, and the rules applied to its regions."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from hyperspot.decision.inspection_plan import InspectionPlan, Zone
from hyperspot.images.registration import Alignment
from hyperspot.results.measurements import Measured, Scale
from hyperspot.results.regions import Region


def in_image(
    masks: Sequence[Bool[np.ndarray, "h w"]], alignment: Alignment | None
) -> tuple[Bool[np.ndarray, "h w"], ...]:
    """Return masks of the aligned image in the pixels of the image."""
    return tuple(masks) if alignment is None else tuple(alignment.invert_mask(mask) for mask in masks)


def apply_rules(
    measured: Sequence[Measured], plan: InspectionPlan, zones: Sequence[Bool[np.ndarray, "h w"]], scale: Scale
) -> tuple[tuple[Region, ...], list[str]]:
    """Return the regions with their zones, and why the rules reject them; no reasons without rules.

    A region is subject to the rules of every zone that it touches, so that a strict zone is never overruled by a
    neighbor.

    Args:
        measured: The regions.
        plan: With zones and rules.
        zones: Pixels of each zone of the plan, in the image.
        scale: Of the image.

    """
    touching: dict[int, list[tuple[int, Measured]]] = {number: [] for number in (*range(len(zones)), -1)}
    regions = []
    for number, one in enumerate(measured, 1):
        pixels = [_pixels(one, mask) for mask in zones]
        for index, count in enumerate(pixels):
            if count:
                touching[index].append((number, one))
        if sum(pixels) < one.region.area:
            touching[-1].append((number, one))
        name = plan.zones[int(np.argmax(pixels))].name if any(pixels) else None
        regions.append(replace(one.region, zone=name))
    reasons: list[str] = []
    if plan.has_rules:
        for index, some in touching.items():
            zone: Zone | None = None if index < 0 else plan.zones[index]
            where = "" if zone is None else f" in zone {zone.name}"
            reasons += plan.rules_of(zone).reasons(some, scale, where)
    return tuple(regions), reasons


def _pixels(measured: Measured, mask: Bool[np.ndarray, "h w"]) -> int:
    """Return how many pixels of a region are in a mask."""
    return sum(int(np.count_nonzero(mask[row, start:stop])) for row, start, stop in zip(*measured.runs, strict=True))
