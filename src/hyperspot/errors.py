"""Every error and warning of hyperspot.

```
Exception
└── HyperspotError            base class: catch it to catch them all
    ├── ImageError            an image or a mask cannot be read, or a picture not be written
    ├── DataError             a folder or a table lacks what the task needs
    ├── SettingsError         a setting is unknown or out of range
    ├── WeightsError          backbone weights are missing, damaged or of another network
    ├── ModelFileError        a model file is missing, damaged, foreign or too new
    ├── CalibrationError      too few good images for the promised false-alarm rate
    ├── DeviceError           a device is missing or out of memory
    └── MissingPackageError   an optional package is not installed; also an ImportError
UserWarning
├── ImageWarning              an image is readable and probably wrong
│   └── ExifWarning           the orientation of an image is unreadable
├── CalibrationWarning        the promised false-alarm rate is high or not exact
├── DeviceWarning             a device computes more slowly or less exactly than expected
└── PluginWarning             an installed plugin cannot be loaded
```

The message of an error is one sentence that names the file and the remedy. The command line prints it and exits with 1.

Examples:
    >>> from hyperspot import HyperspotError, ImageError, read_image
    >>> try:
    ...     read_image("missing.png")
    ... except HyperspotError as error:
    ...     print(type(error).__name__, error, sep=": ")
    ImageError: missing.png does not exist; check the name
    >>> issubclass(ImageError, HyperspotError)
    True

"""


class HyperspotError(Exception):
    """Base class of all errors of hyperspot: wrong input, files or settings, never a bug of the library."""


class ImageError(HyperspotError):
    """An image or a mask cannot be read, or a picture is too large for its format."""


class DataError(HyperspotError):
    """A folder or a table does not hold what the task needs."""


class WeightsError(HyperspotError):
    """Backbone weights are missing, damaged or of another network."""


class ModelFileError(HyperspotError):
    """A model file or an exported file is missing, damaged, foreign, made by a newer version, or cannot be written."""


class SettingsError(HyperspotError):
    """A setting has an unknown name or a value outside its range."""


class MissingPackageError(HyperspotError, ImportError):
    """An optional package is not installed; the message names the command that installs it."""


class CalibrationError(HyperspotError):
    """There are too few good images for the promised false-alarm rate, or no calibration."""


class DeviceError(HyperspotError):
    """A device does not exist, lacks the precision, or is out of memory."""


class ImageWarning(UserWarning):
    """An image is readable and probably wrong, for example nearly black."""


class ExifWarning(ImageWarning):
    """The EXIF orientation of an image is unreadable; the image is taken as upright."""


class CalibrationWarning(UserWarning):
    """The promised false-alarm rate is high, as few images calibrate the threshold, or does not hold exactly."""


class DeviceWarning(UserWarning):
    """A device computes more slowly or less exactly than expected."""


class PluginWarning(UserWarning):
    """An installed plugin cannot be loaded; everything else works."""
