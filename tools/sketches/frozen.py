"""The methods on a frozen backbone."""

import numpy as np
import torch

from hyperspot.data.demo_product.product_set import render
from hyperspot.features.clustering import k_means
from hyperspot.features.coresets import k_centers
from hyperspot.features.neighbors import nearest
from hyperspot.methods.cfa import certainty_score
from tools.drawing import INK, KEPT, NEW, PAPER, RULE, Box, Drawing
from tools.sketches.shared import (
    RENDERED,
    STAINED,
    draw_gaussian,
    floats,
    label,
    legend,
    photo,
    plot,
    points,
    small,
    stack,
)


def cfa(drawing: Drawing) -> None:
    """Patch features lie in spheres around few memory vectors; a new patch far from all scores high."""
    left = drawing.panel(0, "Good photos", ("patches of C3 and C4, each", "through a 1 x 1 convolution"))
    stack(drawing, left)
    made = points(
        3,
        (0.2, 0.43, 0.055, 0.04, 0.4, 70),
        (0.42, 0.22, 0.08, 0.04, 0.8, 80),
        (0.78, 0.43, 0.06, 0.05, 2.4, 70),
        (0.72, 0.13, 0.05, 0.04, 0.1, 60),
    )
    centers = k_means(floats(made), 6, generator=torch.Generator().manual_seed(1)).double().numpy()
    room = drawing.panel(
        1,
        "Few memory vectors, spheres around them",
        ("released, paper: trained to pull a patch into", "its spheres and push it out of the next ones"),
    )
    field, radius = plot(room), 0.085
    for center in centers:
        drawing.ring(field.at(center), radius * field.width)
    drawing.dots([field.at(point) for point in made])
    squared, found = nearest(floats(made), floats(centers), 1)
    outside = np.flatnonzero(squared[:, 0].sqrt().numpy() > radius * 1.15)
    for number in outside:
        start, goal = made[number], centers[int(found[number, 0])]
        edge = goal + (start - goal) * radius / np.hypot(*(start - goal))
        drawing.arrow(field.at(start), field.at(edge), INK, width=1.3, head=5)
    drawing.diamonds([field.at(center) for center in centers])
    legend(drawing, room, ("good", "described patch"), ("kept", "memory vector"))

    room = drawing.panel(2, "A new patch", ("score = distance to the nearest", "x how certain it is (softmin)"))
    field, new = plot(room, lift=22), np.array([0.38, 0.56])
    distances = nearest(floats(new[None] * 10), floats(centers * 10), 3)
    drawing.dots([field.at(point) for point in made], opacity=0.3)
    for rank, column in enumerate(distances[1][0].tolist()):
        drawing.line(field.at(new), field.at(centers[column]), NEW, width=2 if rank == 0 else 1.2, dashed=rank > 0)
    drawing.diamonds([field.at(center) for center in centers])
    drawing.star(field.at(new))
    for rank, column in enumerate(distances[1][0].tolist()):
        middle = field.at(0.45 * new + 0.55 * centers[column])
        label(drawing, middle, f"{distances[0][0, rank].sqrt():.1f}", anchor="middle")
    score = float(certainty_score(distances[0])[0])
    label(drawing, (field.left + 4, field.top + field.height + 10), f"score {score:.2f}", color=NEW)
    legend(drawing, room, ("new", "new patch and its distances"))


def patchcore(drawing: Drawing) -> None:
    """A coreset covers all good patches; the distance to it is the score."""
    left = drawing.panel(0, "Good photos", ("every patch of C3 and C4", "is a candidate"))
    stack(drawing, left)
    made = points(
        5, (0.22, 0.36, 0.06, 0.035, 0.9, 110), (0.53, 0.17, 0.08, 0.035, 2.9, 110), (0.8, 0.4, 0.05, 0.05, 0, 90)
    )
    count = 20
    chosen = list(k_centers(floats(made), count, torch.Generator().manual_seed(0)))
    kept = made[chosen]
    squared, _ = nearest(floats(made), floats(kept), 1)
    reach = float(squared.max().sqrt())
    room = drawing.panel(
        1,
        "A coreset that covers all of them",
        (
            f"{count} of {len(made)} patches kept, each the farthest from",
            "those before: all others lie in their circles",
        ),
    )
    field = plot(room)
    for point in kept:
        drawing.ring(field.at(point), reach * field.width, fill=0.08, width=0.7)
    drawing.dots([field.at(point) for point in made])
    drawing.diamonds([field.at(point) for point in kept])
    legend(drawing, room, ("good", "good patch"), ("kept", "kept"))

    room = drawing.panel(2, "A new patch", ("score = squared distance to the", "nearest patch that is kept"))
    field, new = plot(room, lift=22), np.array([0.5, 0.58])
    squared, found = nearest(floats(new[None]), floats(kept), 1)
    drawing.dots([field.at(point) for point in made], opacity=0.3)
    drawing.line(field.at(new), field.at(kept[int(found[0, 0])]), NEW, width=2)
    drawing.diamonds([field.at(point) for point in kept])
    drawing.star(field.at(new))
    written = f"score {float(squared[0, 0]) ** 0.5:.2f}² = {float(squared[0, 0]):.3f}"
    label(drawing, (field.left + 4, field.top + field.height + 10), written, color=NEW)
    legend(drawing, room, ("new", "new patch"))


PLACES = (("A", 0.5, 0.5, 0), ("B", 0.79, 0.69, 1), ("C", 0.08, 0.1, 2))
"""Three places of a photo, from the lower left, and which cluster of features they show."""


def _lettered(drawing: Drawing, front: Box) -> None:
    for letter, x, y, _ in PLACES:
        at = front.at((x, y))
        drawing.square(Box(at[0] - 10, at[1] - 10, 20, 20), KEPT, width=2.5)
        drawing.add("rect", x=at[0] + 8, y=at[1] - 22, width=14, height=15, rx=3, fill=PAPER)
        drawing.text((at[0] + 15, at[1] - 10), letter, bold=True, anchor="middle")


def padim(drawing: Drawing) -> None:
    """Each place has a Gaussian of its own; the same feature is normal at one, not at another."""
    left = drawing.panel(0, "Good photos", ("a random choice of the", "channels of C2, C3, C4"))
    stack(drawing, left)
    _lettered(drawing, Box(left.left + 8, left.top + 34, 128, 128))
    clouds = [
        points(11, (0.35, 0.28, 0.10, 0.04, 0.6, 60)),
        points(12, (0.66, 0.66, 0.12, 0.05, 2.2, 60)),
        points(13, (0.4, 0.7, 0.07, 0.06, 0, 60)),
    ]
    room = drawing.panel(
        1,
        "A Gaussian for each place",
        ("mean and covariance of the features that", "good photos show at that very place"),
    )
    width = (room.width - 16) / 3
    for letter, _, _, cluster in PLACES:
        field = Box(room.left + cluster * (width + 8), room.top + 20, width, room.height - 46)
        drawing.square(field, RULE, width=1, fill=PAPER)
        drawing.text((field.center[0], field.top - 6), f"place {letter}", anchor="middle", bold=True)
        draw_gaussian(drawing, field, clouds[cluster])
    legend(drawing, room, ("good", "good photos"), ("line", "Gaussian, 1 to 3 deviations"))

    room = drawing.panel(2, "A new photo", ("score = Mahalanobis distance: the", "same feature is normal at A only"))
    new, width = np.array([0.43, 0.31]), (room.width - 8) / 2
    for letter, _, _, cluster in PLACES[:2]:
        field = Box(room.left + cluster * (width + 8), room.top + 20, width, room.height - 46)
        drawing.square(field, RULE, width=1, fill=PAPER)
        drawing.text((field.center[0], field.top - 6), f"at place {letter}", anchor="middle", bold=True)
        white = draw_gaussian(drawing, field, clouds[cluster], pale=True)
        drawing.star(field.at(new))
        score = float(np.linalg.norm(white @ (new - clouds[cluster].mean(0))))
        label(drawing, (field.center[0], field.top + field.height - 8), f"{score:.1f}", color=NEW, anchor="middle")
    legend(drawing, room, ("new", "new feature and its score"))


def spade(drawing: Drawing) -> None:
    """The most alike good photos are found, then each place is compared with all of theirs."""
    left = drawing.panel(0, "Good photos", ("all are kept, with C2, C3, C4", "of every place"))
    stack(drawing, left)
    photos = [photo(number=number) for number in range(24)]
    new = photo("stain", STAINED)
    values = np.array([_pooled(one) for one in [*photos, new]])
    low, high = values.min(0), values.max(0)
    scaled = (0.08 + 0.84 * (values - low) / (high - low)) * (1, 0.6)
    count = 3
    _, found = nearest(floats(scaled[-1:]), floats(scaled[:-1]), count)
    alike = found[0].tolist()
    room = drawing.panel(
        1,
        "The photos most alike",
        ("one pooled feature a photo (here: brightness,", "light); mean distance = image score"),
    )
    field = plot(room)
    for number in alike:
        drawing.line(field.at(scaled[-1]), field.at(scaled[number]), NEW, width=1.5, dashed=True)
    drawing.dots([field.at(one) for one in scaled[:-1]], radius=4)
    drawing.diamonds([field.at(scaled[number]) for number in alike], 7)
    drawing.star(field.at(scaled[-1]))
    legend(drawing, room, ("good", "good photo"), ("kept", "K nearest"), ("new", "new photo"))

    room = drawing.panel(2, "A new photo", ("each place: distance to the nearest", "of all places of those K photos"))
    front = Box(room.left, room.top + 46, 104, 104)
    drawing.photo(small(new), front)
    drawing.grid(front, 6)
    mask = render("stain", RENDERED, (7, STAINED)).mask()
    rows, columns = np.nonzero(mask)
    spot = front.at((columns.mean() / RENDERED, 1 - rows.mean() / RENDERED))
    drawing.square(Box(spot[0] - 9, spot[1] - 9, 18, 18), NEW, width=2.5)
    for row, number in enumerate(alike):
        back = Box(room.left + room.width - 62, room.top + 4 + 66 * row, 60, 60)
        drawing.photo(small(photos[number]), back)
        drawing.square(back, KEPT, width=2)
        for step in range(3):
            goal = (back.left + 8, back.top + 12 + 18 * step)
            drawing.line((spot[0] + 9, spot[1]), goal, NEW, width=0.8)


def _pooled(pixels: np.ndarray) -> tuple[float, float]:
    """Return two features of a whole photo: its brightness, and how much brighter its upper left is."""
    gray = pixels.mean(2, dtype=np.float64) / 255
    half = len(gray) // 2
    return float(gray.mean()), float(gray[:half, :half].mean() - gray[half:, half:].mean())


def cflow(drawing: Drawing) -> None:
    """A flow turns good features into a standard Gaussian; what lands far out is unlikely."""
    left = drawing.panel(0, "Good photos", ("each feature of each level,", "with a code of its place"))
    stack(drawing, left)
    random = np.random.default_rng(21)
    latent = random.normal(0, 1, (160, 2))
    latent = latent[np.hypot(*latent.T) < 2.9]
    room = drawing.panel(
        1,
        "A flow to a standard Gaussian",
        ("coupling blocks (here one) shift and scale half", "of the channels by the other half and the place"),
    )
    width = (room.width - 52) / 2
    bent, even = (Box(room.left + side * (width + 52), room.top + 20, width, room.height - 46) for side in (0, 1))
    drawing.text((bent.center[0], bent.top - 6), "features", anchor="middle", bold=True)
    drawing.text((even.center[0], even.top - 6), "after the flow", anchor="middle", bold=True)
    for field, made in ((bent, _bend(latent)), (even, _placed(latent))):
        drawing.square(field, RULE, width=1, fill=PAPER)
        _contours(drawing, field, bent is field)
        drawing.dots([field.at(one) for one in made])
    middle = bent.center[1]
    drawing.arrow((bent.left + width + 6, middle), (even.left - 6, middle), width=3, head=11)
    drawing.text((bent.left + width + 26, middle - 10), "flow", anchor="middle", bold=True)
    legend(drawing, room, ("good", "good features"), ("line", "equal likelihood"))

    room = drawing.panel(2, "A new feature", ("score = 1 - p / the largest p in good", "photos, added over the levels"))
    width = (room.width - 8) / 2
    new = np.array([[0.1, 4.2]])
    for side, (title, made, star) in enumerate(
        (("features", _bend(latent), _bend(new)), ("after the flow", _placed(latent), _placed(new)))
    ):
        field = Box(room.left + side * (width + 8), room.top + 20, width, room.height - 46)
        drawing.square(field, RULE, width=1, fill=PAPER)
        drawing.text((field.center[0], field.top - 6), title, anchor="middle", bold=True)
        _contours(drawing, field, side == 0)
        drawing.dots([field.at(one) for one in made], opacity=0.3)
        drawing.star(field.at(star[0]))
    away = float(np.linalg.norm(new))
    label(
        drawing,
        (field.left + field.width - 8, field.top + field.height - 8),
        f"{away:.1f} from 0",
        color=NEW,
        anchor="end",
    )
    legend(drawing, room, ("new", "new feature"))


def _placed(latent: np.ndarray) -> np.ndarray:
    return 0.5 + latent * (0.14, 0.095)


def _bend(latent: np.ndarray) -> np.ndarray:
    """Undo an affine coupling: the second channel is shifted and scaled by what the first says."""
    first, second = latent[:, 0], latent[:, 1]
    return np.stack([0.5 + 0.155 * first, 0.24 + 0.058 * first**2 + 0.052 * second * np.exp(0.1 * first)], axis=1)


def _contours(drawing: Drawing, field: Box, bent: bool) -> None:
    angles = np.linspace(0, 2 * np.pi, 97)
    for reach in (1, 2, 3):
        circle = reach * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        drawing.curve([field.at(one) for one in (_bend if bent else _placed)(circle)], KEPT)
