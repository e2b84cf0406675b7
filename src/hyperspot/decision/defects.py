"""The defects of a verdict: the mask of an image, and the rules applied to its regions."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, Shaped

from hyperspot.decision.inspection_plan import InspectionPlan, Zone
from hyperspot.decision.masks import defect_mask
from hyperspot.images import PreparedImage
from hyperspot.results.measurements import Measured, Scale, measure_regions
from hyperspot.results.regions import Region, find_regions


class ImageMaps:
    """The anomaly map of an image, and the places that count, in the pixels of the image as it was given.

    Attributes:
        input_map: At the input size, cold outside of the region of interest.
        input_within: Pixels of the input that count; None if all inside the image do.
        within: Pixels of the image that count; None if all do.

    """

    def __init__(
        self, image: PreparedImage, input_map: Float[np.ndarray, "H W"], cold: float, plan: InspectionPlan
    ) -> None:
        self._image, self._aligned_map, self._cold, self._plan = image, input_map, cold, plan
        self._letterbox, self._alignment = image.letterbox, image.alignment
        self.input_map = self._shown(image.inside)
        self.input_within = image.inside
        self.within = plan.area.mask(self._letterbox.height, self._letterbox.width)
        if self._alignment is not None:
            everything = np.zeros(input_map.shape, dtype=bool)
            everything[self._letterbox.content] = True
            self.input_within = self._back(everything if image.inside is None else image.inside, beyond=0.0)
            (self.within,) = self._in_image(
                [np.ones((self._letterbox.height, self._letterbox.width), bool) if self.within is None else self.within]
            )

    def empty_mask(self) -> Bool[np.ndarray, "_h _w"]:
        """Return a mask of the image without a defect."""
        return np.zeros((self._letterbox.height, self._letterbox.width), dtype=bool)

    def find_defects(self, floors: Mapping[int, float]) -> tuple[Bool[np.ndarray, "_h _w"], tuple[Region, ...]]:
        """Return the mask of the image and its regions, from the parts of the heatmap that exceed the floors.

        Args:
            floors: By number of the plan's `groups`, those that are searched.

        """
        mask = self.empty_mask()
        input_pixels = self._aligned_map[self._letterbox.content].size / mask.size
        groups, limits = self._groups()
        boxes = []
        heatmap = np.empty((0, 0), np.float32)
        for number, floor in floors.items():
            input_map = self.input_map if groups is None else self._shown(groups[number])
            box = self._letterbox.box_above(input_map, floor)
            if box is not None:
                heatmap = self._letterbox.invert(input_map, *box)
                inside = None if limits is None else limits[number][box]
                mask[box] |= _within(defect_mask(heatmap, floor, self._cold, input_pixels), inside)
                boxes.append(box)
        if not boxes:
            return mask, ()
        rows, columns = (
            slice(min(box[axis].start for box in boxes), max(box[axis].stop for box in boxes)) for axis in (0, 1)
        )
        if groups is not None:
            heatmap = self._letterbox.invert(self.input_map, rows, columns)
        return mask, find_regions(mask[rows, columns], heatmap, (rows.start, columns.start))

    def apply_rules(
        self, mask: Bool[np.ndarray, "h w"], regions: Sequence[Region]
    ) -> tuple[tuple[Region, ...], list[str]]:
        """Return the regions with sizes and zones, and why the rules reject them."""
        size = self._letterbox.height, self._letterbox.width
        scale = self._plan.scale(*size)
        zones = self._in_image(self._plan.zone_masks(*size))
        return apply_rules(measure_regions(mask, regions, scale), self._plan, zones, scale)

    def _groups(
        self,
    ) -> tuple[Sequence[Bool[np.ndarray, "H W"]] | None, Sequence[Bool[np.ndarray, "h w"]] | None]:
        """Return the pixels of each of the plan's `groups`, at the input size and in the image; None are all."""
        if not self._plan.own_rates:
            return None, None if self.within is None else [self.within]
        masks = self._plan.group_masks(self._letterbox.height, self._letterbox.width)
        return self._plan.input_groups(self._letterbox), self._in_image(masks)

    def _shown(self, inside: Bool[np.ndarray, "H W"] | None) -> Float[np.ndarray, "H W"]:
        """Return the map in the pixels of the image, cold outside."""
        shown = self._aligned_map
        if inside is not None:
            shown = np.where(inside, shown, shown.dtype.type(self._cold))
        return shown if self._alignment is None else self._back(shown, beyond=self._cold)

    def _back(self, values: Shaped[np.ndarray, "H W"], beyond: float) -> Shaped[np.ndarray, "H W"]:
        assert self._alignment is not None
        back = np.full_like(values, beyond)
        size = self._letterbox.height, self._letterbox.width
        back[self._letterbox.content] = self._alignment.back(values[self._letterbox.content], size, beyond)
        return back

    def _in_image(self, masks: Sequence[Bool[np.ndarray, "h w"]]) -> tuple[Bool[np.ndarray, "h w"], ...]:
        """Return masks of the aligned image in the pixels of the image."""
        if self._alignment is None:
            return tuple(masks)
        return tuple(self._alignment.back(mask, mask.shape, beyond=0.0) for mask in masks)


def _within(mask: Bool[np.ndarray, "_h _w"], inside: Bool[np.ndarray, "_h _w"] | None) -> Bool[np.ndarray, "_h _w"]:
    if inside is not None:
        mask &= inside
    return mask


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
