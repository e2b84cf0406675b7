"""Files that are made from code: written where they changed, or told of."""

import sys
from collections.abc import Mapping
from pathlib import Path


def rewrite(made: Mapping[Path, str], *, check: bool) -> None:
    """Write the files that are not what was made, or with `check` only tell which; ends with exit code 1 for those."""
    changed = []
    for path, new in made.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != new:
            changed.append(path.name)
            if not check:
                path.write_text(new, encoding="utf-8")
    print(f"{'would change' if check else 'changed'}: {', '.join(changed) or 'nothing'}")
    sys.exit(1 if check and changed else 0)
