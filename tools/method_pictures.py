"""Draw the picture of each method: docs/images/methods/NAME.svg.

    python -m tools.method_pictures            # draw
    python -m tools.method_pictures --check    # exit code 1 if a picture would change

From left to right: good images, training, the score of a new image. Images are those of `hyperspot demo`; points are
made up; coresets, centers, Gaussians, neighbors and scores are computed by the functions of the methods.
"""

import argparse
from collections.abc import Callable, Sequence

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from scipy import ndimage

from hyperspot.data.demo_product.product_set import render
from hyperspot.data.demo_product.rendering import Scene, paint
from hyperspot.features.clustering import k_means
from hyperspot.features.coresets import k_centers
from hyperspot.features.neighbors import nearest
from hyperspot.methods.augmentation import move
from hyperspot.methods.cfa import certainty_score
from hyperspot.methods.cutpaste import CutPasteSettings, cut_paste, scar
from tools.canvas import (
    GOOD,
    KEPT,
    NEW,
    QUIET,
    RENDERED,
    STYLE,
    Canvas,
    arrow,
    circle,
    demo,
    field,
    floats,
    gaussian,
    grid_image,
    image,
    legend,
    line,
    note,
    points,
    scatter,
    small,
    square,
    stack,
    to_pixels,
    trapezoid,
)
from tools.method_pages import ROOT, rewrite

PICTURES = ROOT / "docs" / "images" / "methods"
STAINED = 46
"""Number of an image with a stain that is visible at this size."""
PASTED, SCARRED = 19, 8
"""Seeds that paste where it is visible."""
PLACES = (("A", 0.5, 0.5), ("B", 0.79, 0.69), ("C", 0.08, 0.1))
"""Three places of an image, from the lower left."""


def cfa(canvas: Canvas) -> None:
    """Patch features lie in spheres around few memory vectors; a new patch far from all scores high."""
    stack(canvas, "patches of C2, C3 and C4, each", "through a 1 x 1 convolution")
    made = points(3, (0.2, 0.43, 0.055, 0.04, 0.4, 70), (0.42, 0.22, 0.08, 0.04, 0.8, 80))
    made = np.concatenate([made, points(4, (0.78, 0.43, 0.06, 0.05, 2.4, 70), (0.72, 0.13, 0.05, 0.04, 0.1, 60))])
    centers = k_means(floats(made), 6, seed=1).double().numpy()
    axes = canvas.panel(
        1,
        "Few memory vectors, spheres around them",
        "released, paper: trained to pull a patch into",
        "its spheres and push it out of the next ones",
    )
    room, radius = field(axes, 0, 24, 368, 214), 0.085
    for center in centers:
        circle(room, center, radius)
    scatter(room, made, label="patch feature")
    squared, found = nearest(floats(made), floats(centers), 1)
    for number in np.flatnonzero(squared[:, 0].sqrt().numpy() > radius * 1.15):
        goal = centers[int(found[number, 0])]
        arrow(room, made[number], goal + (made[number] - goal) * radius / np.hypot(*(made[number] - goal)), width=1)
    scatter(room, centers, "kept", label="memory vector")
    legend(room)

    axes = canvas.panel(2, "A new patch", "score = distance to the nearest", "x its certainty (softmin)")
    room, new = field(axes, 0, 44, 270, 194), np.array([0.45, 0.6])
    squared, found = nearest(floats(new[None] * 10), floats(centers * 10), 3)
    scatter(room, made, pale=True)
    for rank, column in enumerate(found[0].tolist()):
        line(room, new, centers[column], NEW, *((2, "-") if rank == 0 else (1.2, "--")))
    scatter(room, centers, "kept")
    scatter(room, new, "new", label="new patch and its distances")
    for rank, column in enumerate(found[0].tolist()):
        note(room, 0.4 * new + 0.6 * centers[column], f"{squared[0, rank].sqrt():.1f}")
    legend(room)
    note(axes, (6, 8), f"score {float(certainty_score(squared)[0]):.2f}", NEW, ha="left")


def patchcore(canvas: Canvas) -> None:
    """A coreset covers all good patches; the distance to it is the score."""
    stack(canvas, "every patch of C3 and C4", "is a candidate")
    made = points(
        5, (0.22, 0.36, 0.06, 0.035, 0.9, 110), (0.53, 0.17, 0.08, 0.035, 2.9, 110), (0.8, 0.4, 0.05, 0.05, 0, 90)
    )
    kept = made[list(k_centers(floats(made), 20, torch.Generator().manual_seed(0)))]
    reach = float(nearest(floats(made), floats(kept), 1)[0].max().sqrt())
    axes = canvas.panel(
        1,
        "A coreset that covers all patches",
        f"{len(kept)} of {len(made)} patches are kept, each the farthest from",
        "those before; all others lie in their circles",
    )
    room = field(axes, 0, 24, 368, 214)
    for point in kept:
        circle(room, point, reach, fill=0.08)
    scatter(room, made, label="good patch")
    scatter(room, kept, "kept", label="kept")
    legend(room)

    axes = canvas.panel(2, "A new patch", "score = squared distance to the", "nearest patch of the coreset")
    room, new = field(axes, 0, 44, 270, 194), np.array([0.5, 0.58])
    squared, found = nearest(floats(new[None]), floats(kept), 1)
    scatter(room, made, pale=True)
    line(room, new, kept[int(found[0, 0])], NEW, 2)
    scatter(room, kept, "kept")
    scatter(room, new, "new", label="new patch")
    legend(room)
    note(axes, (6, 8), f"score {float(squared[0, 0]) ** 0.5:.2f}² = {float(squared[0, 0]):.3f}", NEW, ha="left")


def padim(canvas: Canvas) -> None:
    """Each place has its own Gaussian; the same feature is normal at one place, not at another."""
    axes = stack(canvas, "a random choice of the", "channels of C2, C3, C4")
    for letter, x, y in PLACES:
        square(axes, 8 + 150 * x - 11, 40 + 150 * y - 11, 22, KEPT, width=2)
        note(axes, (8 + 150 * x + 19, 40 + 150 * y + 12), letter)
    clouds = [points(11, (0.35, 0.28, 0.10, 0.04, 0.6, 60)), points(12, (0.66, 0.66, 0.12, 0.05, 2.2, 60))]
    clouds.append(points(13, (0.4, 0.7, 0.07, 0.06, 0, 60)))
    axes = canvas.panel(
        1, "A Gaussian for each place", "mean and covariance of the features that", "good images show at that place"
    )
    for number, cloud in enumerate(clouds):
        room = field(axes, 126 * number, 24, 116, 196, f"place {PLACES[number][0]}", full=True)
        gaussian(room, cloud)
        if number == 0:
            legend(room)

    axes = canvas.panel(2, "A new image", "score = Mahalanobis distance: the", "same feature is normal at A only")
    new = np.array([0.43, 0.31])
    for number, cloud in enumerate(clouds[:2]):
        room = field(axes, 139 * number, 24, 131, 196, f"place {PLACES[number][0]}", full=True)
        white = gaussian(room, cloud, pale=True)
        scatter(room, new, "new", label="new feature" if number == 0 else "")
        note(room, (0.5, 0.07), f"score {float(np.linalg.norm(white @ (new - cloud.mean(0)))):.1f}", NEW)
        if number == 0:
            legend(room)


def spade(canvas: Canvas) -> None:
    """The most alike good images are found, then each place is compared with all places of theirs."""
    stack(canvas, "all are kept, with C2, C3, C4", "of every place")
    images, new = [demo(number=number) for number in range(24)], demo("stain", STAINED)
    values = np.array([_pooled(one) for one in [*images, new]])
    low, high = values.min(0), values.max(0)
    scaled = (0.08 + 0.84 * (values - low) / (high - low)) * (1, 0.56)
    alike = nearest(floats(scaled[-1:]), floats(scaled[:-1]), 3)[1][0].tolist()
    axes = canvas.panel(
        1,
        "The most alike images",
        "one pooled feature per image (here: brightness,",
        "light); image score = mean distance",
    )
    room = field(axes, 0, 24, 368, 214)
    for number in alike:
        line(room, scaled[-1], scaled[number], NEW, 1.5, "--")
    scatter(room, scaled[:-1], label="good image")
    scatter(room, scaled[alike], "kept", label="K nearest")
    scatter(room, scaled[-1], "new", label="new image")
    legend(room)

    axes = canvas.panel(2, "A new image", "each place: distance to the nearest", "of all places of those K images")
    grid_image(axes, new, 0, 66, 124)
    rows, columns = np.nonzero(render("stain", RENDERED, (7, STAINED)).mask())
    spot = 124 * columns.mean() / RENDERED, 66 + 124 * (1 - rows.mean() / RENDERED)
    square(axes, spot[0] - 10, spot[1] - 10, 20, NEW, width=2.2)
    for row, number in enumerate(alike):
        image(axes, small(images[number]), 196, 168 - 82 * row, 72, KEPT)
        for step in range(3):
            line(axes, (spot[0] + 10, spot[1]), (206, 182 - 82 * row + 22 * step), NEW, 0.8)


def cflow(canvas: Canvas) -> None:
    """A flow maps good features to a standard Gaussian; features far out are unlikely."""
    stack(canvas, "each feature of each level,", "with a code of its place")
    latent = np.random.default_rng(21).normal(0, 1, (160, 2))
    latent, new = latent[np.hypot(*latent.T) < 2.9], np.array([[0.1, 4.2]])
    axes = canvas.panel(
        1,
        "A flow to a standard Gaussian",
        "coupling blocks (here one) shift and scale half of",
        "the channels by the other half and the place",
    )
    for left, title, bend in ((0, "features", _bent), (218, "after the flow", _placed)):
        room = field(axes, left, 24, 150, 196, title, full=True)
        _contours(room, bend)
        scatter(room, bend(latent), label="good feature")
        if left == 0:
            legend(room)
    arrow(axes, (158, 122), (210, 122), width=2.5)
    axes.text(184, 140, "flow", ha="center", va="center", fontweight="bold")

    axes = canvas.panel(2, "A new feature", "score = 1 - p / the largest p of good", "images, added over the levels")
    for left, title, bend in ((0, "features", _bent), (139, "after the flow", _placed)):
        room = field(axes, left, 24, 131, 196, title, full=True)
        _contours(room, bend)
        scatter(room, bend(latent), pale=True)
        scatter(room, bend(new), "new", label="new feature")
        if left == 0:
            legend(room, columns=1)
    note(room, (0.5, 0.07), f"{float(np.linalg.norm(new)):.1f} from 0", NEW)


def cutpaste(canvas: Canvas) -> None:
    """A network learns to tell made defects from good images; a Gaussian over its features scores."""
    axes = canvas.panel(0, "Synthetic defects", "rectangles or rotated strips,", "pasted elsewhere (here larger)")
    settings, share = CutPasteSettings(), RENDERED / 256
    good = floats(demo() / 255).permute(2, 0, 1)
    pasted = cut_paste(good, settings.area, settings.aspect, torch.Generator().manual_seed(PASTED))
    wide, long = (2 * share * one[1] for one in (settings.scar_width, settings.scar_length))
    sizes = (wide, wide), (2 * long, 2 * long)
    scarred = scar(good, *sizes, settings.scar_degrees, torch.Generator().manual_seed(SCARRED))
    for row, (words, shown) in enumerate((("good", good), ("rectangle", pasted), ("strip", scarred))):
        image(axes, small(to_pixels(shown.permute(1, 2, 0))), 0, 165 - 81 * row, 74, KEPT if row else GOOD)
        axes.text(86, 202 - 81 * row, words, va="center", fontweight="bold")
        arrow(axes, (164, 202 - 81 * row), (206, 202 - 81 * row), QUIET)
    axes = canvas.panel(
        1,
        "A network tells the three apart",
        "trained from scratch; then a Gaussian is fitted",
        "to its features of good images alone",
    )
    trapezoid(axes, 0, 104, (190, 96), 131, "ResNet-18", "from scratch")
    arrow(axes, (108, 131), (134, 131), QUIET)
    room = field(axes, 140, 24, 228, 214, full=True)
    made = points(31, (0.34, 0.36, 0.11, 0.06, 0.7, 90))
    others = points(32, (0.76, 0.62, 0.08, 0.07, 0, 50), (0.62, 0.14, 0.1, 0.05, 0.2, 50))
    room.scatter(others[:, 0], others[:, 1], 9, marker="s", color=QUIET, alpha=0.6, linewidths=0)
    gaussian(room, made)
    note(room, (0.76, 0.86), "rectangle", QUIET)
    note(room, (0.84, 0.27), "strip", QUIET)
    legend(room, columns=2)

    axes = canvas.panel(2, "A new image", "score = Mahalanobis distance; map: the", "same for windows, or GradCAM")
    image(axes, small(demo("stain", STAINED)), 0, 130, 104)
    rows, _ = np.nonzero(render("stain", RENDERED, (7, STAINED)).mask())
    for step in range(6):
        square(axes, 5 + 14 * step, 130 + 104 * (1 - rows.mean() / RENDERED) - 12, 24, NEW, width=1.1)
    axes.text(52, 116, "windows", ha="center", va="center", color=QUIET)
    room, new = field(axes, 118, 24, 152, 214, full=True), np.array([0.72, 0.8])
    white = gaussian(room, made, pale=True)
    line(room, new, made.mean(0), NEW, 1.5, "--")
    scatter(room, new, "new")
    note(room, (0.5, 0.06), f"score {float(np.sum((white @ (new - made.mean(0))) ** 2) / 2):.0f}", NEW)


def patch_svdd(canvas: Canvas) -> None:
    """Nearby patches get like codes, directions are predicted; the nearest code scores."""
    axes = canvas.panel(0, "Good images", "pairs of patches: near together,", "and in one of eight directions")
    image(axes, small(demo()), 14, 34, 190)
    spots = {"p": (78, 164, GOOD, (-20, 20)), "p′": (90, 154, GOOD, (-22, -20)), "q": (146, 100, KEPT, (22, -20))}
    for name, (x, y, color, shift) in spots.items():
        square(axes, x - 24, y - 24, 48, color, width=2.2)
        note(axes, (x + shift[0] * 1.7, y + shift[1] * 1.7), name, color)
    arrow(axes, (78, 164), (146, 100), KEPT, width=2.2)
    axes = canvas.panel(
        1,
        "Codes of good patches",
        "trained: like codes for p and p′; from the codes of",
        "p and q the direction is predicted",
    )
    trapezoid(axes, 0, 96, (180, 90), 131, "encoder", "64, 32 px")
    arrow(axes, (100, 131), (126, 131), QUIET)
    made = points(41, (0.2, 0.18, 0.05, 0.04, 0, 40), (0.3, 0.72, 0.07, 0.035, 0.5, 40))
    made = np.concatenate([made, points(42, (0.72, 0.25, 0.06, 0.04, 2.5, 40), (0.8, 0.74, 0.045, 0.04, 0, 30))])
    room = field(axes, 132, 24, 236, 214)
    found = nearest(floats(made), floats(made), 2)[1]
    for number in range(0, len(made), 3):
        line(room, made[number], made[int(found[number, 1])], GOOD, 1.1)
    scatter(room, made, label="codes of good patches, kept")
    arrow(room, (0.3, 0.68), (0.68, 0.3), KEPT, width=2)
    note(room, (0.5, 0.49), "which of 8?", QUIET)
    legend(room)

    axes = canvas.panel(2, "A new patch", "score = distance to the nearest code;", "map of 64 px x map of 32 px")
    room, new = field(axes, 0, 44, 270, 194), np.array([0.5, 0.5])
    scatter(room, made * (1, 0.8), pale=True)
    squared, found = nearest(floats(new[None]), floats(made * (1, 0.8)), 1)
    line(room, new, made[int(found[0, 0])] * (1, 0.8), NEW, 2)
    scatter(room, new, "new", label="new patch")
    legend(room)
    note(axes, (6, 8), f"score {float(squared[0, 0]) ** 0.5:.2f}", NEW, ha="left")


def vae(canvas: Canvas) -> None:
    """An image is reconstructed from few numbers; what cannot be reconstructed scores."""
    axes = canvas.panel(0, "Good images", "slightly rotated and shifted", "at each training step")
    batch = floats(demo() / 255).permute(2, 0, 1)[None].expand(2, -1, -1, -1)
    for step, moved in enumerate(move(batch, 8.0, 0.06, torch.Generator().manual_seed(2)).permute(0, 2, 3, 1)):
        image(axes, small(to_pixels(moved)), 4 + 64 * step, 88 - 68 * step, 146, "white")
    axes = canvas.panel(
        1,
        "Few numbers, and back",
        "a Gaussian at each place of an 8 x 8 grid;",
        "the decoder reconstructs the image from them",
    )
    trapezoid(axes, 0, 112, (190, 100), 131, "encoder", "ResNet-18")
    trapezoid(axes, 256, 368, (100, 190), 131, "decoder", "5 doublings")
    random = np.random.default_rng(51)
    for row, column in np.ndindex(8, 8):
        circle(axes, (141 + 12.3 * column, 88 + 12.3 * row), 2.6 + 2.2 * float(random.random()), fill=0.35)
    axes.text(184, 16, "only the network is kept", ha="center", va="center", fontsize=8.5)

    axes = canvas.panel(2, "A new image", "score = squared difference per pixel", "(reconstruction: schematic)")
    new = demo("stain", STAINED)
    clean = paint(Scene.draw(RENDERED, (7, STAINED))).image().astype(np.float64)
    made = ndimage.gaussian_filter(clean, (0.8, 0.8, 0))
    squared = ((new / 255 - made / 255) ** 2).sum(2)
    hot = np.clip(squared / np.quantile(squared, 0.995), 0, 1)[..., None]
    heat = (1 - hot) * np.array([250.0, 250, 252]) + hot * np.array([178.0, 24, 43])
    for words, pixels, left, bottom in (
        ("new", new, 16, 126),
        ("reconstructed", made, 156, 126),
        ("difference", heat, 86, 0),
    ):
        image(axes, small(np.floor(pixels + 0.5).astype(np.uint8)), left, bottom, 98)
        axes.text(left + 49, bottom + 108, words, ha="center", va="center", color=QUIET)


SKETCHES: dict[str, tuple[str, Callable[[Canvas], None]]] = {
    "cfa": ("CFA", cfa),
    "patchcore": ("PatchCore", patchcore),
    "padim": ("PaDiM", padim),
    "spade": ("SPADE", spade),
    "cflow": ("CFLOW", cflow),
    "cutpaste": ("CutPaste", cutpaste),
    "patch_svdd": ("Patch SVDD", patch_svdd),
    "vae": ("VAE", vae),
}
"""By method: its name for people, and the function that draws its picture."""


def draw(name: str) -> Canvas:
    """Return the picture of a method."""
    with mpl.rc_context(STYLE):
        canvas = Canvas()
        SKETCHES[name][1](canvas)
    return canvas


def svg(name: str) -> str:
    """Return the SVG file of a method, with its description."""
    title, sketch = SKETCHES[name]
    return draw(name).svg(title, sketch.__doc__ or "")


def _pooled(pixels: np.ndarray) -> tuple[float, float]:
    """Return two features of a whole image: its brightness, and how much brighter its upper left is."""
    gray = pixels.mean(2, dtype=np.float64) / 255
    half = len(gray) // 2
    return float(gray.mean()), float(gray[:half, :half].mean() - gray[half:, half:].mean())


def _placed(latent: np.ndarray) -> np.ndarray:
    return 0.5 + latent * (0.14, 0.095)


def _bent(latent: np.ndarray) -> np.ndarray:
    """Undo an affine coupling: the first channel shifts and scales the second."""
    first, second = latent[:, 0], latent[:, 1]
    return np.stack([0.5 + 0.155 * first, 0.24 + 0.058 * first**2 + 0.052 * second * np.exp(0.1 * first)], axis=1)


def _contours(axes: Axes, bend: Callable[[np.ndarray], np.ndarray]) -> None:
    angles = np.linspace(0, 2 * np.pi, 97)
    for reach in (1, 2, 3):
        ring = bend(reach * np.stack([np.cos(angles), np.sin(angles)], axis=1))
        axes.plot(*ring.T, color=KEPT, linewidth=1.1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw or check all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; list the pictures that would change")
    given = parser.parse_args(arguments)
    PICTURES.mkdir(parents=True, exist_ok=True)
    rewrite({PICTURES / f"{name}.svg": svg(name) for name in SKETCHES}, check=given.check)


if __name__ == "__main__":
    main()
