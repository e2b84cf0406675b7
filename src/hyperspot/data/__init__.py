"""Data sets: layouts, samples, their problems, and the synthetic demo product."""

from hyperspot.data.checking import describe_each
from hyperspot.data.datasets import Dataset, list_categories, load_mask, open_dataset
from hyperspot.data.layouts import Sample

__all__ = ["Dataset", "Sample", "describe_each", "list_categories", "load_mask", "open_dataset"]
