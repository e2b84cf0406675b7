"""Made-up lines with figures that are easy to add up."""

import pytest

from hyperspot.benchmark.protocol import settings_of


@pytest.fixture
def line():
    """Return the function that makes a line."""
    return _line


@pytest.fixture
def figures():
    """Return the function that makes the figures of an evaluation."""
    return _figures


def _line(recipe, category, seed, image, pixel=0.9, pro=0.8, *, backbone="resnet18", changes=None, **more):
    """Return a line of the second format with the given figures in 0..1."""
    settings = settings_of(recipe, backbone=backbone, seed=seed, changes=changes)
    return {
        "format": 2,
        "recipe": recipe,
        "changes": changes or {},
        "method": settings.method,
        "backbone": backbone,
        "category": category,
        "seed": seed,
        "version": None,
        "train_images": None,
        "budget": "full",
        "reduced": [],
        "measure": "accuracy",
        "fingerprint": f"images of {category}",
        "weights": "abc",
        "settings": settings.model_dump(mode="json"),
        "command": "hyperspot benchmark DATA --budget full",
        "jobs": 1,
        "threads": 2,
        "processor": "test",
        "training_seconds": 10.0,
        "peak_memory_mb": 1000,
        "bank_mb": 5.0,
        "latency_ms": 40.0,
        "images_per_second": 25.0,
        "watched": False,
        "last": _figures(image, pixel, pro),
        **more,
    }


def _figures(image, pixel=0.9, pro=0.8, **more):
    """Return the figures of an evaluation; those at the original resolution are 0.05 lower."""
    return {
        "image_auroc": image,
        "pixel_auroc": pixel - 0.05,
        "aupro_30": pro - 0.05,
        "at_input": {"pixel_auroc": pixel, "aupro_30": pro},
        "good_images": 20,
        **more,
    }
