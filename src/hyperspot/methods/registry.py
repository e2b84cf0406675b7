"""All methods by name: built in, registered by a call, or from installed plugins."""

from typing import Any, TypeVar

from hyperspot.backbones.registry import BACKBONES
from hyperspot.errors import ModelFileError
from hyperspot.methods.base import Method
from hyperspot.methods.cfa import CFA
from hyperspot.methods.cflow import CFlow
from hyperspot.methods.cutpaste import CutPaste
from hyperspot.methods.padim import PaDiM
from hyperspot.methods.patch_svdd import PatchSVDD
from hyperspot.methods.patchcore import PatchCore
from hyperspot.methods.spade import SPADE
from hyperspot.methods.vae import VAE
from hyperspot.utils.registry import Registry

M = TypeVar("M", bound=type[Method])


def _check(name: str, cls: Any) -> None:
    if not (isinstance(cls, type) and issubclass(cls, Method)):
        raise TypeError(f"{cls!r} is not a subclass of Method")
    if cls.name != name:
        raise TypeError(f"{cls.__name__}.name is '{cls.name}', and its entry point is '{name}'")


METHODS: Registry[type[Method]] = Registry(
    "method",
    "hyperspot.methods",
    {cls.name: cls for cls in (CFA, PatchCore, PaDiM, SPADE, CFlow, CutPaste, PatchSVDD, VAE)},
    check=_check,
)
"""Method classes by name."""


def register_method(cls: M) -> M:
    """Add a method under its `name`. Usable as a decorator.

    Installed packages use the entry-point group `hyperspot.methods` instead.

    Raises:
        SettingsError: If the name is taken by another class.

    Examples:
        >>> from hyperspot import Method, MethodSettings, register_method
        >>> from hyperspot.methods import METHODS, method_class
        >>> @register_method
        ... class Nothing(Method):
        ...     name = "nothing"
        ...     Settings = MethodSettings
        ...
        ...     def fit(self, images, *, seed, progress):
        ...         pass
        ...
        ...     def forward(self, images):
        ...         return images.sum(1) * 0, None
        >>> method_class("nothing") is Nothing
        True
        >>> del METHODS["nothing"]

    """
    _check(cls.name, cls)
    METHODS.register(cls.name, cls)
    return cls


def method_class(name: str) -> type[Method]:
    """Return the class of a method; raises SettingsError if there is none of that name.

    Examples:
        >>> method_class("padim").__name__
        'PaDiM'

    """
    return METHODS.find(name)


def plugins_of(method: str, backbone: str) -> dict[str, str]:
    """Return where a method and a backbone come from, by kind and name, without those of hyperspot itself."""
    used = {f"method '{method}'": METHODS.origin(method), f"backbone '{backbone}'": BACKBONES.origin(backbone)}
    return {part: origin for part, origin in used.items() if origin is not None}


def require_plugins(plugins: Any, path: Any) -> None:
    """Raise ModelFileError if a method or backbone of a model file is not registered.

    Args:
        plugins: Result of `plugins_of`, stored in the file.
        path: Of the file, named in the error.

    """
    for part, origin in plugins.items() if isinstance(plugins, dict) else ():
        kind, _, quoted = str(part).partition(" ")
        if quoted.strip("'") not in (METHODS if kind == "method" else BACKBONES):
            mend = "import it" if str(origin).startswith("the module ") else "install it"
            raise ModelFileError(f"{path} needs the {part} from {origin}; {mend} first")
