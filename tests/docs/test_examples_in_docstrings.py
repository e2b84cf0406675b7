"""Examples in docstrings run, and every public name has one."""

import doctest
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest

import hyperspot

SHOWN_TOO = ("Crop", "InputSize", "Letterbox")
"""Classes of `hyperspot.images` that the attributes of public objects lead to."""
PUBLIC = [name for name in hyperspot.__all__ if not name.startswith("__")]


def members(thing: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield a function or class and the public functions that a class defines itself."""
    yield name, thing
    if inspect.isclass(thing):
        for inner, member in vars(thing).items():
            if not inner.startswith("_") and inspect.isroutine(getattr(thing, inner)):
                yield f"{name}.{inner}", member


def documentation(thing: Any) -> str:
    return inspect.cleandoc(getattr(thing, "__doc__", None) or "")


def public_members() -> dict[str, Any]:
    return {full: member for name in PUBLIC for full, member in members(getattr(hyperspot, name), name)}


def internal_examples() -> Iterator[tuple[str, doctest.DocTest]]:
    """Yield the examples of every module, with the names of the module."""
    for found in pkgutil.walk_packages(hyperspot.__path__, "hyperspot."):
        # The program itself, and the compiled kernels, which are no Python modules.
        if found.name.rpartition(".")[2].startswith("_"):
            continue
        module = importlib.import_module(found.name)
        things = [(found.name, module)]
        for name, thing in vars(module).items():
            if getattr(thing, "__module__", None) == found.name and callable(thing):
                things += [(f"{found.name}.{full}", member) for full, member in members(thing, name)]
        for name, thing in things:
            if ">>>" in documentation(thing):
                yield (
                    name,
                    doctest.DocTestParser().get_doctest(documentation(thing), dict(vars(module)), name, None, None),
                )


PUBLIC_MEMBERS = public_members()
PUBLIC_EXAMPLES = {name: documentation(member) for name, member in PUBLIC_MEMBERS.items()}
PUBLIC_TEXTS = set(PUBLIC_EXAMPLES.values())
INTERNAL_EXAMPLES = {name: test for name, test in internal_examples() if test.docstring not in PUBLIC_TEXTS}


def run(test: doctest.DocTest) -> None:
    printed: list[str] = []
    failed = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test, out=printed.append).failed
    assert not failed, "".join(printed)


@pytest.mark.parametrize("name", [name for name, text in PUBLIC_EXAMPLES.items() if ">>>" in text])
def test_public_examples_run_as_they_are_copied(name: str):
    """They import everything they use: the namespace is empty."""
    run(doctest.DocTestParser().get_doctest(PUBLIC_EXAMPLES[name], {}, name, None, None))


@pytest.mark.parametrize("name", INTERNAL_EXAMPLES)
def test_internal_examples_run(name: str):
    run(INTERNAL_EXAMPLES[name])


def test_every_public_name_has_an_example():
    missing = [
        name
        for name in PUBLIC
        if ">>>" not in PUBLIC_EXAMPLES[name] and not issubclass(_class(name), (Exception, Warning))
    ]
    assert missing == []
    assert {f"hyperspot.images.geometry.{name}" for name in SHOWN_TOO} <= set(INTERNAL_EXAMPLES)


def test_every_public_method_has_an_example_or_stands_in_that_of_its_class():
    """Overridden methods are documented in their base class."""
    missing = []
    for full, member in PUBLIC_MEMBERS.items():
        owner, _, method = full.partition(".")
        if not method or _overrides(owner, method):
            continue
        shown = f".{method}(" in PUBLIC_EXAMPLES[owner] or f"def {method}(" in PUBLIC_EXAMPLES[owner]
        if ">>>" not in documentation(member) and not shown:
            missing.append(full)
    assert missing == []


def test_the_exception_tree_is_complete():
    """The docstring of `errors` shows every class below its base class."""
    from hyperspot import errors

    classes = [one for one in vars(errors).values() if inspect.isclass(one)]
    lines = errors.__doc__.split("```")[1].strip("\n").splitlines()
    path: list[str] = []
    shown = {}
    for line in lines:
        depth = len(line) - len(line.lstrip("│├└─ "))
        path = [*path[: depth // 4], line[depth:].split(" ")[0]]
        shown[path[-1]] = path[-2] if len(path) > 1 else None
    assert {one.__name__: one.__bases__[0].__name__ for one in classes} == {
        name: base for name, base in shown.items() if base is not None
    }
    assert {one.__name__ for one in classes} <= set(hyperspot.__all__)


def _class(name: str) -> type:
    thing = getattr(hyperspot, name)
    return thing if inspect.isclass(thing) else object


def _overrides(owner: str, method: str) -> bool:
    return any(method in vars(base) for base in _class(owner).__mro__[1:])
