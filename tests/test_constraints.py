"""constraints.txt pins every package that an installation brings along."""

import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
OF_CUDA = ("cuda-", "nvidia-", "triton")
"""Dependencies of CUDA builds of torch, which pins them itself; CPU builds have none."""


def pins() -> dict[str, str]:
    lines = [line.strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    matched = [re.fullmatch(r"([\w.-]+)==([\w.]+)", line) for line in lines if line and not line.startswith("#")]
    assert all(matched)
    return {canonicalize_name(one[1]): one[2] for one in matched if one}


def brought_along(wanted: Iterable[str]) -> set[str]:
    """Return the names of some requirements and of all that they require here, as far as they are installed."""
    waiting = [(Requirement(text), "") for text in wanted]
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        if name.startswith(OF_CUDA):
            continue
        for asked in ("", *requirement.extras):
            if (name, asked) not in seen:
                seen.add((name, asked))
                try:
                    waiting += [(Requirement(text), asked) for text in requires(name) or ()]
                except PackageNotFoundError:
                    continue
    return {name for name, _ in seen}


@pytest.mark.parametrize("part", ["build", "base", "extras", "dev", "docs", "bench"])
def test_every_package_that_is_installed_is_pinned(part: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = {
        # hatchling asks for the second where the package is installed as `make install` does.
        "build": [*project["build-system"]["requires"], "editables"],
        "base": project["project"]["dependencies"],
        "extras": [one for extra in project["project"]["optional-dependencies"].values() for one in extra],
        **project["dependency-groups"],
    }[part]
    names = brought_along(one for one in wanted if not one.startswith("hyperspot"))
    assert names
    assert names - set(pins()) == set()
