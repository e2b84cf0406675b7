"""Draws docs/images/demo.png: images of the synthetic product above, the overlays of their verdicts below.

Run it after a change of the overlay, the default method or the synthetic product: `python -m tools.demo_picture`.
"""

import tempfile
from pathlib import Path

from PIL import Image

from hyperspot import Detector, Verdict, make_product_set

TARGET = Path(__file__).parents[1] / "docs" / "images" / "demo.png"
SIDE, GAP = 200, 6
COLORS = 256
"""Of the palette, which makes the file a third as large."""
SHOWN = ("good/000", "missing_bolt/000", "scratch/001", "stain/000")


def draw(verdicts: list[Verdict]) -> Image.Image:
    """Return the picture: one column per verdict."""
    step = SIDE + GAP
    picture = Image.new("RGB", (step * len(verdicts) - GAP, 2 * step - GAP), "white")
    for column, verdict in enumerate(verdicts):
        for row, image in enumerate((Image.fromarray(verdict.image), verdict.overlay())):
            picture.paste(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS), (column * step, row * step))
    palette = picture.quantize(COLORS, method=Image.Quantize.MAXCOVERAGE)
    return picture.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)


def main() -> None:
    """Train, predict and write the picture."""
    with tempfile.TemporaryDirectory() as folder:
        product = make_product_set(folder, train=120, good=1, defective=6, size=256)
        detector = Detector.fit(product, false_alarm_rate=0.02, device="cpu", seed=0)
        draw([detector.predict(product / "test" / f"{name}.png") for name in SHOWN]).save(TARGET, optimize=True)


if __name__ == "__main__":
    main()
