"""Draw the picture of each method: docs/images/methods/NAME.svg.

    python -m tools.method_pictures            # draw
    python -m tools.method_pictures --check    # exit code 1 where a picture would change

Photos are those of `hyperspot demo`; points are made up, and what is shown of them (coresets, centers, Gaussians,
neighbors, scores) is computed by the methods' own functions.
"""

import argparse

from tools.drawing import Drawing
from tools.method_pages import ROOT
from tools.rewriting import rewrite
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
    rewrite({PICTURES / f"{name}.svg": draw(name) for name in SKETCHES}, check=given.check)


if __name__ == "__main__":
    main()
