"""The examples in the docstrings of images, data and utils run."""

import doctest
import inspect
from types import ModuleType

import pytest

import hyperspot.data
import hyperspot.images
from hyperspot.data import datasets, layouts
from hyperspot.images import finding, geometry, reading
from hyperspot.utils import optional_packages, out_of_core

PUBLIC = ("Crop", "Dataset", "InputSize", "Letterbox", "Sample", "open_dataset", "read_image")


def examples(module: ModuleType) -> dict[str, doctest.DocTest]:
    """Return the examples of what a module defines; doctest itself does not see through decorators."""
    found = {}
    for name, thing in vars(module).items():
        if getattr(thing, "__module__", None) != module.__name__:
            continue
        members = vars(thing).items() if inspect.isclass(thing) else ()
        for full, one in ((name, thing), *((f"{name}.{inner}", member) for inner, member in members)):
            text = inspect.getdoc(one) if hasattr(one, "__doc__") else None
            if text and ">>>" in text:
                found[full] = doctest.DocTestParser().get_doctest(text, dict(vars(module)), full, None, None)
    return found


EXAMPLES = {
    name: test
    for module in (finding, geometry, reading, datasets, layouts, optional_packages, out_of_core)
    for name, test in examples(module).items()
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(name: str) -> None:
    printed: list[str] = []
    failed = doctest.DocTestRunner().run(EXAMPLES[name], out=printed.append).failed
    assert not failed, "".join(printed)


def test_every_public_name_has_examples() -> None:
    assert set(PUBLIC) <= set(EXAMPLES)
    assert all(hasattr(hyperspot.images, name) or hasattr(hyperspot.data, name) for name in PUBLIC)
