"""Rules on regions: which defects count, by their sizes, their number and their distance."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

from hyperspot.errors import SettingsError
from hyperspot.results.measurements import Measured, Scale, gap
from hyperspot.results.regions import Region

Unit = Literal["px", "mm"]
MOST_NAMED = 5
"""Regions that reasons name; a noisy image may have thousands."""
_LIMIT = re.compile(r"\s*(\d+\.?\d*|\.\d+)\s*(px2?|mm2?)?\s*")


@dataclass(frozen=True)
class Limit:
    """A length or an area, in pixels of the product or in millimeters.

    Examples:
        >>> from hyperspot.decision.region_rules import Limit
        >>> Limit.parse("0.3mm2", area=True), str(Limit.parse(12, area=False))
        (Limit(value=0.3, unit='mm', area=True), '12px')

    """

    value: float
    unit: Unit
    area: bool = False

    @classmethod
    def parse(cls, given: "str | float | int | Limit", *, area: bool) -> "Limit":
        """Return the limit given as a number of pixels or with a unit; raises SettingsError."""
        if isinstance(given, Limit):
            return given
        found = _LIMIT.fullmatch(str(given))
        unit = "px" if found is None else (found[2] or "px")
        if found is None or not math.isfinite(float(found[1])) or (unit.endswith("2") and not area):
            wanted = "an area such as 40px or 0.3mm2" if area else "a length such as 8px or 0.3mm"
            raise SettingsError(f"'{given}' is not {wanted}")
        if area and unit == "mm":
            raise SettingsError(f"'{given}' is a length; give an area in mm2")
        return cls(float(found[1]), "mm" if unit.startswith("mm") else "px", area)

    def __str__(self) -> str:
        """Show the number and the unit, as `parse` reads it."""
        return f"{self.value:g}{self.unit}{'2' if self.area else ''}"


@dataclass(frozen=True)
class RegionRules:
    """What an image called anomalous may have and still pass.

    A region counts if it reaches every smallest size that is given. The image passes if no more than `max_count`
    regions count, and no two of them are nearer than `min_distance`. Numbers without a unit are pixels of the product.

    Attributes:
        min_area: Smallest area that counts.
        min_length: Smallest length, the longest caliper, that counts.
        min_width: Smallest width, the shortest caliper, that counts.
        max_count: Number of regions that count and are still accepted.
        min_distance: Smallest accepted distance between two regions that count.

    Examples:
        >>> from hyperspot import RegionRules
        >>> rules = RegionRules(min_length="0.3mm", max_count=1)
        >>> rules.to_dict()
        {'min_length': '0.3mm', 'max_count': 1}
        >>> RegionRules.from_dict(rules.to_dict()) == rules
        True

    """

    min_area: Limit | str | float | int | None = None
    min_length: Limit | str | float | int | None = None
    min_width: Limit | str | float | int | None = None
    max_count: int = 0
    min_distance: Limit | str | float | int | None = None

    def __post_init__(self) -> None:
        """Read the limits; raises SettingsError if one is malformed."""
        for name in LIMITS:
            given = getattr(self, name)
            if given is not None:
                object.__setattr__(self, name, Limit.parse(given, area=name == "min_area"))
        if isinstance(self.max_count, bool) or not isinstance(self.max_count, int) or self.max_count < 0:
            raise SettingsError(f"the accepted number of regions is {self.max_count!r}; give 0 or more")

    @property
    def is_empty(self) -> bool:
        """Whether every region is rejected, as without rules."""
        return self == RegionRules()

    @property
    def needs_millimeters(self) -> bool:
        """Whether a limit is in millimeters."""
        return any(limit.unit == "mm" for _, limit in self._limits())

    def _limits(self) -> Iterator[tuple[str, Limit]]:
        for name in LIMITS:
            limit = getattr(self, name)
            if isinstance(limit, Limit):
                yield name, limit

    def reasons(self, regions: Sequence[tuple[int, Measured]], scale: Scale, where: str = "") -> list[str]:
        """Return why regions are not accepted, one sentence each; none if they are.

        Args:
            regions: With their numbers in the verdict.
            scale: Of the image.
            where: Appended to the number of a region, for example ` in zone rim`.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import RegionRules
            >>> from hyperspot.results.measurements import Scale, measure_regions
            >>> from hyperspot.results.regions import find_regions
            >>> mask = np.zeros((9, 9), bool)
            >>> mask[4, 1:8] = True
            >>> measured = measure_regions(mask, find_regions(mask, mask.astype(float)))
            >>> RegionRules(min_length="5px").reasons(list(enumerate(measured, 1)), Scale(), " in zone rim")
            ['region 1 in zone rim: length 7.07px >= 5px']

        """
        counted = [(number, one, self._reached(one.region, scale)) for number, one in regions]
        counting = [(number, one, reached) for number, one, reached in counted if reached is not None]
        reasons = []
        if len(counting) > self.max_count:
            if self.max_count:
                reasons.append(f"{len(counting)} regions{where} > {self.max_count}")
            else:
                reasons += [f"region {number}{where}{reached}" for number, _, reached in counting[:MOST_NAMED]]
            if not self.max_count and len(counting) > MOST_NAMED:
                reasons.append(f"{len(counting) - MOST_NAMED} more regions{where}")
            return reasons
        limit = self.min_distance
        if isinstance(limit, Limit):
            for (number, one, _), (other_number, other, _) in itertools.combinations(counting, 2):
                distance = gap(one, other, scale) * _factor(limit, scale)
                if distance < limit.value:
                    shown = Limit(_rounded(distance), limit.unit)
                    reasons.append(f"regions {number} and {other_number}{where}: distance {shown} < {limit}")
        return reasons

    def _reached(self, region: Region, scale: Scale) -> str | None:
        """Return the limits that a region reaches, as text; None if it misses one."""
        reached = []
        for name, limit in self._limits():
            if name == "min_distance":
                continue
            size = _size(region, name.removeprefix("min_"), limit, scale)
            if size < limit.value:
                return None
            reached.append(f"{name.removeprefix('min_')} {Limit(_rounded(size), limit.unit, limit.area)} >= {limit}")
        return f": {', '.join(reached)}" if reached else ""

    def to_dict(self) -> dict[str, Any]:
        """Return the rules that are set, as JSON values."""
        limits: dict[str, Any] = {name: str(limit) for name, limit in self._limits()}
        if self.max_count:
            limits["max_count"] = self.max_count
        return {one.name: limits[one.name] for one in fields(self) if one.name in limits}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RegionRules":
        """Return the rules of JSON values; raises SettingsError if one is unknown or malformed."""
        known = {one.name for one in fields(cls)}
        for name in values:
            if name not in known:
                raise SettingsError(f"there is no rule '{name}'; choose one of {', '.join(sorted(known))}")
        return cls(**values)


LIMITS = ("min_area", "min_length", "min_width", "min_distance")


def _size(region: Region, name: str, limit: Limit, scale: Scale) -> float:
    """Return the area, the length or the width of a region in the unit of a limit."""
    if limit.unit == "mm":
        size = region.area_mm2 if limit.area else getattr(region, f"{name}_mm")
        assert size is not None
        return float(size)
    if limit.area:
        return region.area * scale.x * scale.y
    # The geometric mean of both directions; they differ only if an image is stretched.
    return float(getattr(region, f"{name}_px")) * math.sqrt(scale.x * scale.y)


def _factor(limit: Limit, scale: Scale) -> float:
    if limit.unit == "px":
        return 1.0
    assert scale.mm_per_pixel is not None
    return scale.mm_per_pixel


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")
