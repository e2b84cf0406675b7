"""Reading images and masks safely, and the letterbox that brings them to the input size. Knows nothing of models."""

from hyperspot.images.geometry import Crop, InputSize, Letterbox
from hyperspot.images.preprocessing import LetterboxedImage, PreparedImage, prepare
from hyperspot.images.reading import find_images, is_image_file, read_image, read_mask, read_size, resize

__all__ = [
    "Crop",
    "InputSize",
    "Letterbox",
    "LetterboxedImage",
    "PreparedImage",
    "find_images",
    "is_image_file",
    "prepare",
    "read_image",
    "read_mask",
    "read_size",
    "resize",
]
