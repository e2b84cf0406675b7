"""Optional packages, and the one error that names how to install a missing one."""

import importlib
import importlib.metadata
import json
from pathlib import Path
from types import ModuleType

from hyperspot.errors import MissingPackageError

TRAINING = frozenset({"huggingface_hub", "platformdirs", "pydantic", "safetensors", "scipy", "sklearn", "torch"})
"""Packages of the extra `train`; prediction with exported files needs none of them."""
EXTRAS = dict.fromkeys(TRAINING, "train") | dict.fromkeys(
    ("alembic", "argon2", "fastapi", "multipart", "prometheus_client", "python_multipart", "sqlalchemy", "starlette",
     "uvicorn", "watchfiles"),
    "serve",
)  # fmt: skip
"""Extras that commands need as a whole, by package; what needs one of the others names it with `require`."""


def require(module: str, extra: str, doing: str) -> ModuleType:
    """Import a module of an optional package and return it.

    Args:
        module: Its full name.
        extra: The extra of hyperspot that installs its package.
        doing: What needs it, as the subject of the error message.

    Raises:
        MissingPackageError: The package is not installed, or it is and cannot be imported.

    Examples:
        >>> require("json", "train", "training").dumps([1])
        '[1]'

    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and (error.name or "").partition(".")[0] == package:
            raise missing(package, extra, doing) from None
        raise MissingPackageError(
            f"{doing} needs {package}, which is installed but cannot be imported ({error}); "
            f"reinstall it with {install_command(extra)}"
        ) from None


def missing(package: str, extra: str, doing: str) -> MissingPackageError:
    """Return the error that `doing` needs a package, with the command that installs it."""
    return MissingPackageError(
        f"{doing} needs {package}, which is not installed; install it with {install_command(extra)}"
    )


def explain(error: ModuleNotFoundError, doing: str) -> MissingPackageError:
    """Return the error for a missing package of the extra `train` or `serve`; any other error is raised again."""
    package = (error.name or "").partition(".")[0]
    if package not in EXTRAS:
        raise error
    return missing(package, EXTRAS[package], doing)


def install_command(extra: str) -> str:
    """Return the command that installs an extra: in the checkout hyperspot was installed from, else from an index."""
    from urllib.parse import urlsplit
    from urllib.request import url2pathname

    try:
        recorded = importlib.metadata.distribution("hyperspot").read_text("direct_url.json")
        origin = json.loads(recorded or "{}")
        checkout = Path(url2pathname(urlsplit(origin["url"]).path)) if "dir_info" in origin else None
    except (importlib.metadata.PackageNotFoundError, ValueError, KeyError):
        checkout = None
    if checkout is None or not (checkout / "constraints.txt").is_file():
        return f'`pip install "hyperspot[{extra}]"`'
    editable = "-e " if origin["dir_info"].get("editable") else ""
    return f'`pip install -c constraints.txt {editable}".[{extra}]"` in {checkout}'
