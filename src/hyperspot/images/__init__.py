"""Reads images and masks safely, and maps them to the input size of a model and back (letterbox)."""

from hyperspot.images.finding import find_images, is_image_file
from hyperspot.images.geometry import Crop, InputSize, Letterbox
from hyperspot.images.preprocessing import LetterboxedImage, PreparedImage, prepare
from hyperspot.images.reading import ImageInput, read_image, read_mask, read_size
from hyperspot.images.resampling import resize

__all__ = [
    "Crop",
    "ImageInput",
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
