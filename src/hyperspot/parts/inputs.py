"""From the images of a part to one input per view."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import get_args

from hyperspot.choices import LightingMode
from hyperspot.data.part_sets import Part, PartSet
from hyperspot.errors import DataError, SettingsError
from hyperspot.images.lightings import MOST, Lightings
from hyperspot.images.reading import ImageInput, is_gray

Images = Mapping[str, ImageInput]
"""The images of a part by name: `VIEW` or `VIEW/LIGHTING`."""
PartInput = Part | Images


def images_of(part: PartInput) -> Images:
    """Return the images of a part by name."""
    return part.images if isinstance(part, Part) else part


def good_parts(data: PartSet | Sequence[PartInput]) -> list[Images]:
    """Return the images of good parts, all with the same names; raises DataError if there is none or one lacks some."""
    if isinstance(data, PartSet):
        where = f"{data.root} has"
        named: list[tuple[str, Images]] = [(part.name, part.images) for part in data.train]
    else:
        where = "there is"
        named = [(f"number {number}", images_of(part)) for number, part in enumerate(data)]
    if not named:
        raise DataError(f"{where} no good training part; add images of good parts")
    names = list(dict.fromkeys(name for _, images in named for name in images))
    for part, images in named:
        refuse_missing(part, (name for name in names if name not in images), "add it or remove the part")
    return [{name: images[name] for name in names} for _, images in named]


def plan_views(parts: Sequence[Images], lightings: str) -> dict[str, tuple[str, ...]]:
    """Return the names of the images that make the input of each view.

    Args:
        parts: Training parts; the first one names the images.
        lightings: `channels` stacks the lightings of a view as the channels of one input, `views` takes each as a view
            of its own, and `auto` stacks two or three if all of them are gray in the first part.

    Raises:
        SettingsError: If `channels` is asked for and a view has more than three lightings, or the mode is unknown.
        ImageError: If an image cannot be read.

    Examples:
        >>> import numpy as np
        >>> gray, color = np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.uint8)
        >>> plan_views([{"top/dark": gray, "top/bright": gray, "side": color}], "auto")
        {'top': ('top/dark', 'top/bright'), 'side': ('side',)}
        >>> plan_views([{"top/dark": color, "top/bright": color}], "auto")
        {'top/dark': ('top/dark',), 'top/bright': ('top/bright',)}

    """
    if lightings not in get_args(LightingMode):
        raise SettingsError(
            f"there is no mode of lightings '{lightings}'; choose one of {', '.join(get_args(LightingMode))}"
        )
    by_view: dict[str, list[str]] = {}
    for image in parts[0]:
        by_view.setdefault(image.partition("/")[0], []).append(image)
    planned: dict[str, tuple[str, ...]] = {}
    for view, images in by_view.items():
        stackable = 2 <= len(images) <= MOST
        if lightings == "channels" and len(images) > MOST:
            raise SettingsError(
                f"the view {view} has {len(images)} lightings and an input three channels; take each as a view"
            )
        if len(images) == 1:
            planned[view] = (images[0],)
        elif stackable and (
            lightings == "channels" or (lightings == "auto" and all(is_gray(parts[0][one]) for one in images))
        ):
            planned[view] = tuple(images)
        else:
            planned |= {image: (image,) for image in images}
    return planned


def view_input(images: Images, names: Sequence[str]) -> ImageInput:
    """Return the input of a view: its image, or its lightings as channels."""
    return images[names[0]] if len(names) == 1 else Lightings(tuple(images[name] for name in names))


def missing_views(images: Images, planned: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Return the views that a part has no image, or not all lightings, of."""
    return tuple(view for view, names in planned.items() if any(name not in images for name in names))


def refuse_missing(part: str, missing: Iterable[str], mend: str) -> None:
    """Raise DataError if views are missing."""
    named = ", ".join(missing)
    if named:
        raise DataError(f"the part {part} lacks the view{'s' * (', ' in named)} {named}; {mend}")


def refuse_unknown(part: str, images: Iterable[str], known: Collection[str]) -> None:
    """Raise DataError if a part has an image that belongs to no view of the model."""
    unknown = [name for name in images if name not in known]
    if unknown:
        raise DataError(
            f"the part {part} has the view {unknown[0]}, which the model does not know; its images are "
            f"{', '.join(known)}"
        )
