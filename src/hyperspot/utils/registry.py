"""A registry of named parts that installed packages can extend by entry points."""

import importlib.metadata
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any, TypeVar

from hyperspot.errors import PluginWarning, SettingsError

T = TypeVar("T")


class Registry(MutableMapping[str, T]):
    """A mapping from names to parts: built-in, registered by a call, or from the entry points of installed packages.

    Entry points are loaded once, at the first lookup of a name that is neither built in nor registered, or when the
    names are listed. A plugin that cannot be loaded gives one PluginWarning and leaves all other names usable.

    Args:
        kind: Of the parts, for messages: `method`, `backbone`.
        group: Entry-point group.
        parts: Built-in parts by name.
        check: Called with name and object of an entry point; raises an exception if the object is no such part.
        hint: Appended to the list of names in the error for an unknown name.

    Examples:
        >>> colors = Registry("color", "example.colors", {"red": 0xFF0000}, check=lambda name, part: None)
        >>> colors.register("green", 0x00FF00)
        >>> list(colors)
        ['red', 'green']
        >>> colors.register("red", 0xEE0000)
        Traceback (most recent call last):
        ...
        hyperspot.errors.SettingsError: the color name 'red' is taken; choose another name

    """

    def __init__(
        self, kind: str, group: str, parts: Mapping[str, T], *, check: Callable[[str, Any], None], hint: str = ""
    ) -> None:
        self._kind, self._group, self._check, self._hint = kind, group, check, hint
        self._parts = dict(parts)
        self._builtin = frozenset(parts)
        self._origins: dict[str, str] = {}
        self._broken: dict[str, str] = {}
        self._loaded = False

    def register(self, name: str, part: T) -> None:
        """Add a part; raises SettingsError if the name is taken by another part."""
        if self._parts.get(name) is part:
            return
        if name in self._parts:
            raise SettingsError(f"the {self._kind} name '{name}' is taken; choose another name")
        self._parts[name] = part

    def find(self, name: str) -> T:
        """Return a part by name; raises SettingsError that lists the names if there is none."""
        if name in self:
            return self._parts[name]
        if name in self._broken:
            raise SettingsError(f"the {self._kind} '{name}' is not available: {self._broken[name]}")
        raise SettingsError(f"there is no {self._kind} '{name}'; choose one of {', '.join(self)}{self._hint}")

    def origin(self, name: str) -> str | None:
        """Return the package (name and version) or the module that registered a name; None for a built-in part."""
        if name in self._builtin or name not in self:
            return None
        return self._origins.get(name, f"the module {getattr(self._parts[name], '__module__', '__main__')}")

    def __getitem__(self, name: str) -> T:
        """Return a part by name; raises KeyError."""
        if name not in self._parts:
            self._load()
        return self._parts[name]

    def __setitem__(self, name: str, part: T) -> None:
        """Set a part, replacing one of the same name."""
        self._parts[name] = part

    def __delitem__(self, name: str) -> None:
        """Remove a part; raises KeyError."""
        del self._parts[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names: built-in ones first."""
        self._load()
        return iter(tuple(self._parts))

    def __len__(self) -> int:
        """Return the number of names."""
        self._load()
        return len(self._parts)

    def _load(self) -> None:
        if self._loaded:
            return
        self._loaded = True
        for entry in importlib.metadata.entry_points(group=self._group):
            source = "a package" if entry.dist is None else f"the package {entry.dist.name} {entry.dist.version}"
            try:
                part = entry.load()
                self._check(entry.name, part)
                self.register(entry.name, part)
                self._origins[entry.name] = source
            # Any exception: a plugin is foreign code, and must not take the built-in names down with it.
            except Exception as error:  # noqa: BLE001
                reason = " ".join(f"{type(error).__name__}: {error}".split())
                self._broken[entry.name] = f"{source} cannot be loaded ({reason}); update or uninstall it"
                warnings.warn(
                    f"the {self._kind} '{entry.name}' is not available: {self._broken[entry.name]}",
                    PluginWarning,
                    stacklevel=3,
                )
