"""No test here sees the weights, the cache or the hub of the machine it runs on."""

from pathlib import Path

import pytest
from huggingface_hub import constants


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the empty cache folder that is in force."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("HYPERSPOT_CACHE", str(folder))
    monkeypatch.delenv("HYPERSPOT_WEIGHTS", raising=False)
    # Nothing listens on port 1: a test that reaches for the hub fails at once instead of leaving the machine.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path_factory.mktemp("hub")))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return folder
