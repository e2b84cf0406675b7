"""What reading a ZIP archive raises if the archive is to blame."""

import errno
import lzma
import struct
import zipfile
import zlib

from hyperspot.errors import HyperspotError

DAMAGED = (
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    NotImplementedError,
    RuntimeError,
    EOFError,
    ValueError,
    OSError,
)
"""Raised for archives that are broken, encrypted, or compressed in an unknown way; see `damage_of`."""


def damage_of(error: Exception) -> str | None:
    """Return what is wrong with an archive; None if the error is one of the disk, or a sentence already.

    Examples:
        >>> import zipfile
        >>> from hyperspot.utils.zip_damage import damage_of
        >>> damage_of(zipfile.BadZipFile("Bad CRC-32")), damage_of(OSError(28, "No space left on device"))
        ('Bad CRC-32', None)

    """
    if isinstance(error, HyperspotError):
        return None
    # bzip2 raises an OSError without a number for damaged data.
    if isinstance(error, OSError) and error.errno not in (None, errno.ENAMETOOLONG):
        return None
    return getattr(error, "strerror", None) or str(error)
