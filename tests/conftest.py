"""What all tests share: where the real photos and weights are, and small made-up ones."""

import os
from pathlib import Path

import pytest


def _shared(folder: str, variable: str) -> Path:
    named = os.environ.get(variable)
    path = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / folder
    if not path.is_dir():
        pytest.skip(f"no real {folder} here: set {variable} to a folder that holds them")
    return path


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real data sets, or skip where there is none."""
    return _shared("data", "HYPERSPOT_REAL_DATA")


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """Return the folder of real ImageNet weights, or skip where there is none."""
    return _shared("weights", "HYPERSPOT_REAL_WEIGHTS")
