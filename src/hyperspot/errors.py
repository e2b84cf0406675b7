"""Every mistake a person can make, as one sentence that names the file and the mend."""


class HyperspotError(Exception):
    """A person's mistake: the message is one sentence that names what is wrong and how to mend it.

    The command line prints the message alone and exits with 1; nothing is lost by it.
    """


class ImageError(HyperspotError):
    """A file that should be a photo or a mask cannot be read as one."""


class DataError(HyperspotError):
    """A folder or manifest does not hold what the task needs."""


class WeightsError(HyperspotError):
    """Backbone weights are missing, damaged or not those that were asked for."""


class ModelFileError(HyperspotError):
    """A model file is missing, damaged, foreign or made by a newer version."""


class SettingsError(HyperspotError):
    """A setting has an unknown name or a value outside its range."""


class MissingPackageError(HyperspotError, ImportError):
    """What was asked for takes a package that is not installed."""


class CalibrationError(HyperspotError):
    """A promised false-alarm rate cannot be kept with so few good photos."""


class DeviceError(HyperspotError):
    """A device was asked for that is not there, or whose memory is too small."""


class ImageWarning(UserWarning):
    """A photo can be read, but probably does not show what it should."""


class ExifWarning(ImageWarning):
    """A photo can be read, but not how the camera was held."""


class DeviceWarning(UserWarning):
    """A device computes what it should, but not in the way that it should."""


class PluginWarning(UserWarning):
    """An installed plugin cannot be loaded; everything else works."""
