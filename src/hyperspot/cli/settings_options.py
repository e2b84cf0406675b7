"""From the options of a training to the settings of a detector, for images and for parts."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hyperspot.decision.inspection_plan import InspectionPlan
    from hyperspot.detector.settings import Settings


def settings_of(
    *,
    setting: list[str] | None,
    backbone: str | None,
    tile: str,
    smallest_defect: str | None,
    plan: "InspectionPlan | None",
    **others: Any,
) -> "Settings":
    """Return validated settings.

    Args:
        setting: `NAME=VALUE` of each setting of the method.
        backbone: None takes the default of the method.
        tile: `auto`, `off` or a number.
        smallest_defect: A length, for example `8px`, or `0.5mm` if the plan has a scale.
        plan: Of the images; None for views of a part, which have no scale.
        **others: Settings by name.

    Raises:
        SettingsError: If a setting is unknown or out of range, or there is no scale for a length.

    """
    from hyperspot.cli.inspection import in_pixels
    from hyperspot.detector.settings import make_settings, parse_assignments

    return make_settings(
        {
            **others,
            "method_settings": parse_assignments(setting or []),
            **({} if backbone is None else {"backbone": backbone}),
            "tile": int(tile) if tile.isdecimal() else tile,
            "smallest_defect": None if smallest_defect is None else in_pixels(smallest_defect, plan),
        }
    )
