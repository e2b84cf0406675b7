"""The inspection plan: which part of an image is inspected, in which zones, and which regions are defects."""

import functools
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool

from hyperspot.decision.region_rules import RegionRules
from hyperspot.errors import DataError, SettingsError
from hyperspot.images import Letterbox, read_image
from hyperspot.images.inspected_area import InspectedArea, Polygon, check_polygons, rasterize
from hyperspot.images.reading import ChannelOrder, ImageInput
from hyperspot.images.registration import Reference
from hyperspot.results.measurements import Scale

ELSEWHERE = "elsewhere"
"""Name of the pixels outside all zones that have a rate of their own."""
NAMES = ("image_size", "include", "ignore", "mask", "zones", "mm_per_pixel", "rules", "registration")
ZONE_NAMES = ("name", "polygons", "false_alarm_rate", "rules")


@dataclass(frozen=True)
class Zone:
    """A named part of the region of interest.

    Attributes:
        name: Of the zone.
        polygons: Its pixels lie in one of them. A pixel of several zones belongs to the first.
        false_alarm_rate: The zone's part of the promised false-alarm rate, in (0, 1); None shares what the other zones
            leave.
        rules: Of the regions that touch the zone; None takes those of the plan.

    Examples:
        >>> from hyperspot import RegionRules, Zone
        >>> corners = ((0.0, 0.0), (20.0, 0.0), (20.0, 10.0))
        >>> Zone("rim", (corners,), false_alarm_rate=0.002, rules=RegionRules(min_length="8px")).to_dict()["rules"]
        {'min_length': '8px'}

    """

    name: str
    polygons: tuple[Polygon, ...]
    false_alarm_rate: float | None = None
    rules: RegionRules | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name, as JSON values."""
        rules = {} if self.rules is None else {"rules": self.rules.to_dict()}
        rate = {} if self.false_alarm_rate is None else {"false_alarm_rate": self.false_alarm_rate}
        return {"name": self.name, "polygons": _listed(self.polygons), **rate, **rules}


@dataclass(frozen=True, eq=False)
class InspectionPlan:
    """Region of interest, zones, scale and rules, in the pixels of a reference image.

    Attributes:
        area: Region of interest and reference for registration.
        zones: Parts of it.
        rules: Of regions outside of zones with rules of their own.
        mm_per_pixel: Side of a pixel of the reference image, or without one of each image; None without millimeters.

    Examples:
        >>> from hyperspot import InspectionPlan
        >>> plan = InspectionPlan.from_dict(
        ...     {
        ...         "image_size": [640, 480],
        ...         "include": [[[40, 40], [600, 40], [600, 440], [40, 440]]],
        ...         "mm_per_pixel": 0.05,
        ...         "rules": {"min_length": "0.3mm"},
        ...     }
        ... )
        >>> plan.area.mask(48, 64).mean().round(2), plan.rules.min_length
        (np.float64(0.73), Limit(value=0.3, unit='mm', area=False))
        >>> InspectionPlan.from_dict(plan.to_dict()).to_dict() == plan.to_dict()
        True
        >>> plan.scale(height=240, width=320)
        Scale(x=2.0, y=2.0, mm_per_pixel=0.05)

        Zones, and the parts of the image with thresholds of their own:

        >>> from hyperspot.images import InputSize
        >>> rim = {"name": "rim", "polygons": [[[40, 40], [600, 40], [600, 120], [40, 120]]], "false_alarm_rate": 0.002}
        >>> zoned = InspectionPlan.from_dict({**plan.to_dict(), "zones": [rim]})
        >>> zoned.groups, [int(mask.sum()) for mask in zoned.group_masks(48, 64)]
        (('rim', 'elsewhere'), [448, 1792])
        >>> [int(mask.sum()) for mask in zoned.zone_masks(48, 64)]
        [448]
        >>> len(zoned.input_groups(InputSize(48, 64, "stretch").letterbox(48, 64)))
        2
        >>> zoned.rules_of(zoned.zones[0]) == zoned.rules_of(None)
        True

    """

    area: InspectedArea = field(default_factory=InspectedArea)
    zones: tuple[Zone, ...] = ()
    rules: RegionRules = field(default_factory=RegionRules)
    mm_per_pixel: float | None = None

    def __post_init__(self) -> None:
        """Raise SettingsError if the parts do not fit together."""
        if self.mm_per_pixel is not None and not 0 < self.mm_per_pixel < math.inf:
            raise SettingsError(f"a pixel has {self.mm_per_pixel} mm; give a positive number")
        names = [zone.name for zone in self.zones]
        if len({*names, ELSEWHERE, ""}) != len(names) + 2:
            raise SettingsError(f"each zone needs a name of its own, other than '{ELSEWHERE}'")
        for zone in self.zones:
            if not zone.polygons:
                raise SettingsError(f"the zone '{zone.name}' has no polygon")
            check_polygons(zone.polygons, self.area.image_size)
            if zone.false_alarm_rate is not None and not 0 < zone.false_alarm_rate < 1:
                raise SettingsError(
                    f"the zone '{zone.name}' has a false-alarm rate of {zone.false_alarm_rate}; give one in 0..1"
                )
        if self.mm_per_pixel is None and any(rules.needs_millimeters for rules in self._all_rules()):
            raise SettingsError("a rule in mm needs the size of a pixel; give it with --mm-per-pixel")

    @classmethod
    def read(cls, path: Path | str) -> "InspectionPlan":
        """Return the plan of a JSON file, or the region of interest of a mask image, whose black pixels do not count.

        Raises:
            DataError: If the file is missing or is no plan.
            ImageError: If it is an image that cannot be read.

        Examples:
            >>> import tempfile
            >>> from hyperspot import InspectionPlan
            >>> with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            ...     _ = file.write('{"mm_per_pixel": 0.05, "rules": {"min_length": "0.3mm"}}')
            ...     file.flush()
            ...     print(InspectionPlan.read(file.name).rules.min_length)
            0.3mm

        """
        path = Path(path)
        if path.suffix.lower() != ".json":
            return cls(InspectedArea.read_mask(path))
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls.from_dict(values)
        except OSError as error:
            raise DataError(
                f"{path} cannot be read: {(error.strerror or str(error)).lower()}; check the name"
            ) from None
        except (ValueError, TypeError, RecursionError, SettingsError) as error:
            raise DataError(f"{path} is no region of interest: {error}; make one with `hyperspot roi`") from None

    @property
    def is_empty(self) -> bool:
        """Whether it changes nothing."""
        return not (
            self.area.is_limited
            or self.area.reference is not None
            or self.zones
            or not self.rules.is_empty
            or self.mm_per_pixel is not None
        )

    @property
    def has_rules(self) -> bool:
        """Whether rules decide which regions are defects."""
        return any(not rules.is_empty for rules in self._all_rules())

    @property
    def own_rates(self) -> tuple[float, ...]:
        """False-alarm rates of the zones that have one, in the order of `groups` without the last."""
        return tuple(zone.false_alarm_rate for zone in self.zones if zone.false_alarm_rate is not None)

    @property
    def groups(self) -> tuple[str, ...]:
        """Names of the parts that have thresholds of their own: zones with a rate, then everything else."""
        return (*(zone.name for zone in self.zones if zone.false_alarm_rate is not None), ELSEWHERE)

    def scale(self, height: int, width: int) -> Scale:
        """Return the scale of an image of this size."""
        if self.area.image_size is None:
            return Scale(mm_per_pixel=self.mm_per_pixel)
        columns, rows = self.area.image_size
        return Scale(columns / width, rows / height, self.mm_per_pixel)

    def zone_masks(self, height: int, width: int) -> tuple[Bool[np.ndarray, "h w"], ...]:
        """Return the pixels of each zone at a size; no pixel is in two of them."""
        return _zone_masks(self, height, width) if self.zones else ()

    def group_masks(self, height: int, width: int) -> tuple[Bool[np.ndarray, "h w"], ...]:
        """Return the pixels of each of `groups` at a size, inside the region of interest."""
        inside = self.area.mask(height, width)
        everything = np.ones((height, width), dtype=bool) if inside is None else inside
        masks = [
            mask & everything
            for zone, mask in zip(self.zones, self.zone_masks(height, width), strict=True)
            if zone.false_alarm_rate is not None
        ]
        return (*masks, everything & ~np.logical_or.reduce(masks)) if masks else (everything,)

    def input_groups(self, letterbox: Letterbox) -> tuple[Bool[np.ndarray, "H W"], ...]:
        """Return the pixels of the input of each of `groups`."""
        return _input_groups(self, letterbox)

    def rules_of(self, zone: Zone | None) -> RegionRules:
        """Return the rules of a zone, or outside of zones."""
        return self.rules if zone is None or zone.rules is None else zone.rules

    def with_rules(self, rules: RegionRules | None = None, mm_per_pixel: float | None = None) -> "InspectionPlan":
        """Return the plan with other rules outside of zones with rules of their own, or another scale.

        Examples:
            >>> from hyperspot import InspectionPlan, RegionRules
            >>> InspectionPlan().with_rules(RegionRules(min_length="0.3mm"), mm_per_pixel=0.05).to_dict()
            {'mm_per_pixel': 0.05, 'rules': {'min_length': '0.3mm'}}

        """
        return replace(
            self,
            rules=self.rules if rules is None else rules,
            mm_per_pixel=self.mm_per_pixel if mm_per_pixel is None else mm_per_pixel,
        )

    def with_reference(self, reference: Reference | None) -> "InspectionPlan":
        """Return the plan with registration to a reference, or without.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import InspectionPlan
            >>> from hyperspot.images.registration import Reference
            >>> reference = Reference.from_image(np.zeros((48, 64, 3), np.uint8))
            >>> InspectionPlan().with_reference(reference).to_dict()["registration"]["size"]
            [192, 144]

        """
        return replace(self, area=replace(self.area, reference=reference))

    def _all_rules(self) -> Iterator[RegionRules]:
        yield self.rules
        yield from (zone.rules for zone in self.zones if zone.rules is not None)

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON values, without parts that are not set; `from_dict` reads them."""
        area = self.area
        values: dict[str, Any] = {
            "image_size": None if area.image_size is None else list(area.image_size),
            "include": _listed(area.include),
            "ignore": _listed(area.ignore),
            "mask": None if area.runs is None else list(area.runs),
            "zones": [zone.to_dict() for zone in self.zones],
            "mm_per_pixel": self.mm_per_pixel,
            "rules": self.rules.to_dict(),
            "registration": None if area.reference is None else area.reference.to_dict(),
        }
        return {name: value for name, value in values.items() if value not in (None, [], {})}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "InspectionPlan":
        """Return the plan of JSON values; raises SettingsError, TypeError or ValueError if they are malformed."""
        _check_names(values, NAMES, "a region of interest")
        size, runs, registration = (values.get(name) for name in ("image_size", "mask", "registration"))
        if size is not None and (len(size) != 2 or any(not isinstance(side, int) for side in size)):
            raise SettingsError("the image size is not two whole numbers, width and height")
        zones = []
        for zone in values.get("zones", ()):
            _check_names(zone, ZONE_NAMES, "a zone")
            rate, rules = zone.get("false_alarm_rate"), zone.get("rules")
            zones.append(
                Zone(
                    str(zone.get("name", "")),
                    _polygons(zone.get("polygons", ())),
                    None if rate is None else float(rate),
                    None if rules is None else RegionRules.from_dict(rules),
                )
            )
        area = InspectedArea(
            None if size is None else (size[0], size[1]),
            _polygons(values.get("include", ())),
            _polygons(values.get("ignore", ())),
            None if runs is None else tuple(map(int, runs)),
            None if registration is None else Reference.from_dict(registration),
        )
        scale = values.get("mm_per_pixel")
        rules = RegionRules.from_dict(values.get("rules", {}))
        return cls(area, tuple(zones), rules, None if scale is None else float(scale))


def prepare_plan(
    given: InspectionPlan | Path | str | None, register: bool, first: ImageInput, channel_order: ChannelOrder
) -> InspectionPlan:
    """Return the plan to train with: read, and with the reference of registration if it is asked for.

    Args:
        given: A plan, or its file; None inspects the whole image.
        register: Without a reference in the plan, the first image becomes it.
        first: The first good image.
        channel_order: Of arrays and tensors.

    """
    plan = (
        given
        if isinstance(given, InspectionPlan)
        else InspectionPlan()
        if given is None
        else InspectionPlan.read(given)
    )
    if register and plan.area.reference is None:
        image = read_image(first, channel_order=channel_order)
        plan = plan.with_reference(Reference.from_image(image, plan.area.mask(*image.shape[:2])))
    return plan


def _check_names(values: Any, known: tuple[str, ...], what: str) -> None:
    if not isinstance(values, Mapping):
        raise SettingsError(f"{what} is a JSON object, not {values!r}")
    for name in values:
        if name not in known:
            raise SettingsError(f"{what} has no '{name}'; choose one of {', '.join(known)}")


def _polygons(values: Any) -> tuple[Polygon, ...]:
    return tuple(tuple((float(x), float(y)) for x, y in polygon) for polygon in values)


def _listed(polygons: tuple[Polygon, ...]) -> list[list[list[float]]]:
    return [[list(point) for point in polygon] for polygon in polygons]


@functools.lru_cache(maxsize=4)
def _zone_masks(plan: InspectionPlan, height: int, width: int) -> tuple[Bool[np.ndarray, "h w"], ...]:
    masks: list[Bool[np.ndarray, "h w"]] = []
    taken = np.zeros((height, width), dtype=bool)
    for zone in plan.zones:
        assert plan.area.image_size is not None
        mask = rasterize(zone.polygons, plan.area.image_size, height, width) & ~taken
        taken |= mask
        mask.flags.writeable = False
        masks.append(mask)
    return tuple(masks)


@functools.lru_cache(maxsize=16)
def _input_groups(plan: InspectionPlan, letterbox: Letterbox) -> tuple[Bool[np.ndarray, "H W"], ...]:
    masks = []
    for name, mask in zip(
        plan.groups, plan.group_masks(letterbox.content_height, letterbox.content_width), strict=True
    ):
        if not mask.any() and name != ELSEWHERE:
            raise SettingsError(f"the zone '{name}' has no pixel of its own at the input size; draw it larger")
        whole = np.zeros((letterbox.input_size.height, letterbox.input_size.width), dtype=bool)
        whole[letterbox.content] = mask
        whole.flags.writeable = False
        masks.append(whole)
    return tuple(masks)
