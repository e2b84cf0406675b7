"""Names that data sets give and that become file names."""

import re
from pathlib import Path


def leads_elsewhere(name: str) -> bool:
    """Return whether a name, used as a path below a folder, may lead out of it.

    Examples:
        >>> [leads_elsewhere(name) for name in ("001", "test/good/001", "lot 3..5")]
        [False, False, False]
        >>> [leads_elsewhere(name) for name in ("../001", "/tmp/001", "good\\\\..\\\\001")]
        [True, True, True]

    """
    return bool(Path(name).anchor) or ".." in re.split(r"[/\\]", name) or "\0" in name
