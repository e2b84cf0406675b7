"""Draw the picture of each method: docs/images/methods/NAME.svg.

    python -m tools.method_pictures            # draw
    python -m tools.method_pictures --check    # exit code 1 where a picture would change

Photos are those of `hyperspot demo`; points are made up, and what is shown of them (coresets, centres, Gaussians,
neighbours, scores) is computed by the methods' own functions.
"""

import argparse
import sys

from tools.drawing import Drawing
from tools.method_pages import ROOT
from tools.sketches import SKETCHES

PICTURES = ROOT / "docs" / "images" / "methods"


def draw(name: str) -> str:
    """Return the SVG file of a method."""
    title, sketch = SKETCHES[name]
    drawing = Drawing(title, sketch.__doc__ or "")
    sketch(drawing)
    return drawing.svg()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing, only tell which pictures would change")
    given = parser.parse_args()
    PICTURES.mkdir(parents=True, exist_ok=True)
    changed = []
    for name in SKETCHES:
        path, new = PICTURES / f"{name}.svg", draw(name)
        if not path.is_file() or path.read_text(encoding="utf-8") != new:
            changed.append(path.name)
            if not given.check:
                path.write_text(new, encoding="utf-8")
    print(f"{'would change' if given.check else 'changed'}: {', '.join(changed) or 'nothing'}")
    sys.exit(1 if given.check and changed else 0)


if __name__ == "__main__":
    main()
