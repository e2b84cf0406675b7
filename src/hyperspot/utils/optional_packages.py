"""Which packages are optional, and what to install where one is missing."""

from hyperspot.errors import MissingPackageError

TRAINING = frozenset({"huggingface_hub", "jinja2", "pydantic", "safetensors", "scipy", "sklearn", "torch"})
"""What `hyperspot[train]` brings. To judge an exported file takes none of it."""

BENCHMARK = frozenset({"matplotlib", "pandas"})
"""What `hyperspot[benchmark]` adds to that."""


def explain(error: ModuleNotFoundError, doing: str) -> MissingPackageError:
    """Return the sentence on what `doing` lacks; any error but about an optional package is raised again."""
    package = (error.name or "").partition(".")[0]
    if package not in TRAINING | BENCHMARK:
        raise error
    extra = "benchmark" if package in BENCHMARK else "train"
    return MissingPackageError(f"{doing} needs {package}; `pip install hyperspot[{extra}]` brings it")
