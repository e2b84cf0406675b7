"""Fixtures of several methods."""

import pytest
import torch

from hyperspot.backbones import create


@pytest.fixture(scope="module")
def backbone():
    return create("resnet18", weights="random:0")


@pytest.fixture(scope="module")
def images():
    return torch.randn(6, 3, 64, 96, generator=torch.Generator().manual_seed(1))
