"""All kinds of sources by name: built in, registered by a call, or from installed plugins."""

from typing import Any

from hyperspot.service.sources.base import Source
from hyperspot.service.sources.camera import Camera
from hyperspot.service.sources.folder import Folder
from hyperspot.service.sources.genicam import GenicamCamera
from hyperspot.utils.registry import Registry


def _check(name: str, part: Any) -> None:
    if not (isinstance(part, type) and issubclass(part, Source)):
        raise TypeError(f"'{name}' is {part!r}, not a subclass of Source")


SOURCES: Registry[type[Source]] = Registry(
    "kind of source",
    "hyperspot.sources",
    {"folder": Folder, "camera": Camera, "genicam": GenicamCamera},
    check=_check,
)
"""Classes by kind, as the table `sources` names it."""
