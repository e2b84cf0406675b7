"""Photos, masks, data sets, and the common frame they are placed in. Knows nothing of models."""

from hyperspot.images.datasets import Dataset, list_categories, load_mask, open_dataset
from hyperspot.images.decode import find_images, is_image_file, read_image, read_mask, read_size, resize
from hyperspot.images.geometry import Frame, Placement, View
from hyperspot.images.inspecting import describe_each
from hyperspot.images.layouts import Photo

__all__ = [
    "Dataset",
    "Frame",
    "Photo",
    "Placement",
    "View",
    "describe_each",
    "find_images",
    "is_image_file",
    "list_categories",
    "load_mask",
    "open_dataset",
    "read_image",
    "read_mask",
    "read_size",
    "resize",
]
