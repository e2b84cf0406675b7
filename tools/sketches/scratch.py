"""The methods that train a network of their own."""

import numpy as np
import torch
from scipy import ndimage

from hyperspot.data.demo_product.product_set import render
from hyperspot.data.demo_product.rendering import Scene, paint
from hyperspot.features.neighbors import nearest
from hyperspot.methods.augmentation import move
from hyperspot.methods.cutpaste import CutPasteSettings, cut_paste, scar
from tools.drawing import GOOD, KEPT, NEW, PAPER, QUIET, RULE, Box, Drawing
from tools.sketches.shared import RENDERED, STAINED, draw_gaussian, floats, label, legend, photo, plot, points, small

PASTED, SCARRED = 19, 8
"""Seeds that paste where it is seen."""


def cutpaste(drawing: Drawing) -> None:
    """A network learns to tell made defects from good photos; a Gaussian over its features scores."""
    left = drawing.panel(0, "Defects are made", ("rectangles or turned strips,", "pasted elsewhere (here larger)"))
    settings = CutPasteSettings()
    image = floats(photo() / 255).permute(2, 0, 1)
    share = RENDERED / 256
    pasted = cut_paste(image, settings.area, settings.aspect, torch.Generator().manual_seed(PASTED))
    wide, long = (2 * share * one[1] for one in (settings.scar_width, settings.scar_length))
    scarred = scar(
        image, (wide, wide), (2 * long, 2 * long), settings.scar_degrees, torch.Generator().manual_seed(SCARRED)
    )
    for row, (words, shown) in enumerate((("good", image), ("rectangle", pasted), ("strip", scarred))):
        front = Box(left.left + 4, left.top + 67 * row, 62, 62)
        pixels = np.floor(shown.permute(1, 2, 0).double().numpy() * 255 + 0.5).astype(np.uint8)
        drawing.photo(small(pixels), front)
        drawing.square(front, GOOD if row == 0 else KEPT, width=1.5)
        drawing.text((front.left + 72, front.center[1] + 4), words, bold=True)
        drawing.arrow((left.left + 138, front.center[1]), (left.left + 172, front.center[1]), QUIET)
    room = drawing.panel(
        1,
        "A network tells the three apart",
        ("trained from scratch; then a Gaussian is laid", "over its features of good photos alone"),
    )
    trunk = [
        (room.left + 2, room.top + 20),
        (room.left + 78, room.top + 52),
        (room.left + 78, room.top + 138),
        (room.left + 2, room.top + 170),
    ]
    drawing.polygon(trunk, PAPER, stroke=QUIET)
    drawing.text((room.left + 40, room.top + 92), "ResNet-18", anchor="middle", bold=True)
    drawing.text((room.left + 40, room.top + 108), "from scratch", anchor="middle", size=11, color=QUIET)
    field = Box(room.left + 104, room.top + 4, room.width - 106, room.height - 30)
    drawing.arrow((room.left + 80, room.top + 95), (field.left - 2, room.top + 95), QUIET)
    made = points(31, (0.34, 0.36, 0.11, 0.06, 0.7, 90))
    others = points(32, (0.76, 0.62, 0.08, 0.07, 0, 50), (0.62, 0.14, 0.1, 0.05, 0.2, 50))
    drawing.square(field, RULE, width=1, fill=PAPER)
    for x, y in (field.at(one) for one in others):
        drawing.add("rect", x=x - 2, y=y - 2, width=4, height=4, fill=QUIET, opacity="0.6")
    draw_gaussian(drawing, field, made)
    label(drawing, field.at((0.76, 0.86)), "rectangle", color=QUIET, anchor="middle")
    label(drawing, field.at((0.87, 0.24)), "strip", color=QUIET, anchor="middle")
    legend(drawing, room, ("good", "good photo"), ("line", "Gaussian, 1 to 3 deviations"))

    room = drawing.panel(2, "A new photo", ("score = Mahalanobis form; map: the", "same for windows, or GradCAM"))
    front = Box(room.left, room.top + 8, 88, 88)
    drawing.photo(small(photo("stain", STAINED)), front)
    rows, _ = np.nonzero(render("stain", RENDERED, (7, STAINED)).mask())
    height = front.top + front.height * rows.mean() / RENDERED - 11
    for step in range(6):
        drawing.square(Box(front.left + 5 + 11 * step, height, 22, 22), NEW, width=1.2)
    drawing.text((front.center[0], front.top + 106), "windows", anchor="middle", color=QUIET)
    field = Box(room.left + 98, room.top + 4, room.width - 98, room.height - 30)
    drawing.square(field, RULE, width=1, fill=PAPER)
    white, new = draw_gaussian(drawing, field, made, pale=True), np.array([0.72, 0.8])
    drawing.line(field.at(new), field.at(made.mean(0)), NEW, width=1.5, dashed=True)
    drawing.star(field.at(new))
    form = float(np.sum((white @ (new - made.mean(0))) ** 2) / 2)
    label(drawing, field.at((0.5, 0.04)), f"score {form:.0f}", color=NEW, anchor="middle")
    legend(drawing, room, ("new", "new photo or window"))


def patch_svdd(drawing: Drawing) -> None:
    """Patches close together get like codes, directions are told; the nearest code scores."""
    left = drawing.panel(0, "Good photos", ("pairs of patches: near together,", "and in one of eight directions"))
    front = Box(left.left + 14, left.top + 22, 148, 148)
    drawing.photo(small(photo()), front)
    side = 40.0
    first, near, other = ((0.34, 0.68), (0.39, 0.64), (0.70, 0.34))
    places = [front.at(one) for one in (first, near, other)]
    for (x, y), color, words in zip(places, (GOOD, GOOD, KEPT), ("p", "p′", "q"), strict=True):
        drawing.square(Box(x - side / 2, y - side / 2, side, side), color, width=2.5)
        shift, drop = {"p": (-18, -18), "p′": (-18, 18), "q": (18, 18)}[words]
        drawing.add("rect", x=x + shift - 8, y=y + drop - 9, width=16, height=17, rx=3, fill=PAPER)
        drawing.text((x + shift, y + drop + 4), words, anchor="middle", bold=True, color=color)
    drawing.arrow(places[0], places[2], KEPT, width=2.5, head=9)

    room = drawing.panel(
        1,
        "Codes of good patches",
        ("codes of p and p′ shall be alike; from those of", "p and q the direction shall be told"),
    )
    trunk = [
        (room.left + 2, room.top + 20),
        (room.left + 70, room.top + 56),
        (room.left + 70, room.top + 128),
        (room.left + 2, room.top + 164),
    ]
    drawing.polygon(trunk, PAPER, stroke=QUIET)
    drawing.text((room.left + 36, room.top + 90), "encoder", anchor="middle", bold=True)
    drawing.text((room.left + 36, room.top + 106), "64, 32 px", anchor="middle", size=11, color=QUIET)
    frame = Box(room.left + 96, room.top + 4, room.width - 98, room.height - 30)
    drawing.arrow((room.left + 72, room.top + 92), (frame.left - 2, room.top + 92), QUIET)
    drawing.square(frame, RULE, width=1, fill=PAPER)
    field = Box(frame.left, frame.top + frame.height - frame.width, frame.width, frame.width)
    made = points(
        41,
        (0.2, 0.18, 0.05, 0.04, 0, 40),
        (0.3, 0.58, 0.07, 0.035, 0.5, 40),
        (0.72, 0.25, 0.06, 0.04, 2.5, 40),
        (0.8, 0.62, 0.045, 0.04, 0, 30),
    )
    _, found = nearest(floats(made), floats(made), 2)
    for number in range(0, len(made), 3):
        drawing.line(field.at(made[number]), field.at(made[int(found[number, 1])]), GOOD, width=1.2)
    drawing.dots([field.at(one) for one in made], radius=2.5)
    drawing.arrow(field.at((0.3, 0.58)), field.at((0.72, 0.25)), KEPT, width=2, head=8)
    label(drawing, field.at((0.5, 0.4)), "which of 8?", color=KEPT, anchor="middle")
    legend(drawing, room, ("good", "codes of good patches, remembered"))

    room = drawing.panel(2, "A new patch", ("score = distance to the nearest code;", "map of 64 px x map of 32 px"))
    field, new = plot(room, lift=12), np.array([0.48, 0.42])
    drawing.dots([field.at(one) for one in made], radius=2.5, opacity=0.45)
    squared, found = nearest(floats(new[None]), floats(made), 1)
    goal = made[int(found[0, 0])]
    drawing.line(field.at(new), field.at(goal), NEW, width=2)
    drawing.star(field.at(new))
    written = f"score {float(squared[0, 0]) ** 0.5:.2f}"
    label(drawing, (field.left + 4, field.top + field.height + 10), written, color=NEW)
    legend(drawing, room, ("new", "new patch"))


def vae(drawing: Drawing) -> None:
    """A photo is drawn anew from few numbers; what cannot be drawn scores."""
    left = drawing.panel(0, "Good photos", ("slightly turned and shifted", "at each step of training"))
    image = floats(photo() / 255).permute(2, 0, 1)[None].expand(2, -1, -1, -1)
    moved = move(image, 8.0, 0.06, torch.Generator().manual_seed(2)).permute(0, 2, 3, 1).double().numpy()
    for step, pixels in enumerate(moved):
        front = Box(left.left + 6 + 42 * step, left.top + 4 + 56 * step, 126, 126)
        drawing.photo(small(np.floor(pixels * 255 + 0.5).astype(np.uint8)), front)
        drawing.square(front, PAPER, width=2)

    room = drawing.panel(
        1,
        "Few numbers, and back",
        ("a Gaussian at each place of an 8 x 8 grid;", "the decoder draws the photo from them"),
    )
    middle, tall, thin = room.top + 96, 150.0, 78.0
    drawing.polygon(
        [
            (room.left + 4, middle - tall / 2),
            (room.left + 96, middle - thin / 2),
            (room.left + 96, middle + thin / 2),
            (room.left + 4, middle + tall / 2),
        ],
        PAPER,
        stroke=QUIET,
    )
    drawing.polygon(
        [
            (room.left + 198, middle - thin / 2),
            (room.left + 290, middle - tall / 2),
            (room.left + 290, middle + tall / 2),
            (room.left + 198, middle + thin / 2),
        ],
        PAPER,
        stroke=QUIET,
    )
    drawing.text((room.left + 48, middle), "encoder", anchor="middle", bold=True)
    drawing.text((room.left + 48, middle + 16), "ResNet-18", anchor="middle", size=11, color=QUIET)
    drawing.text((room.left + 246, middle), "decoder", anchor="middle", bold=True)
    drawing.text((room.left + 246, middle + 16), "5 doublings", anchor="middle", size=11, color=QUIET)
    random = np.random.default_rng(51)
    for row in range(8):
        for column in range(8):
            at = (room.left + 112 + 10 * column, middle - 35 + 10 * row)
            drawing.ring(at, 2.2 + 1.8 * float(random.random()), KEPT, fill=0.35)
    legend(drawing, room, ("kept", "the network is all that is kept"))

    room = drawing.panel(
        2, "A new photo", ("score = squared difference at each pixel", "(drawn: schematic, without the defect)")
    )
    new = photo("stain", STAINED)
    drawn = ndimage.gaussian_filter(paint(Scene.draw(RENDERED, (7, STAINED))).image().astype(np.float64), (0.8, 0.8, 0))
    squared = ((new / 255 - drawn / 255) ** 2).sum(2)
    hot = np.clip(squared / np.quantile(squared, 0.995), 0, 1)[..., None]
    heat = (1 - hot) * np.array([250.0, 250, 252]) + hot * np.array([200.0, 30, 30])
    size = (room.width - 14) / 2
    shown = (("new", new, (0, 0)), ("drawn", drawn, (1, 0)), ("difference", heat, (0.5, 1)))
    for words, pixels, (across, down) in shown:
        front = Box(room.left + 12 + across * (size + 2), room.top + 14 + down * 100, 84, 84)
        drawing.text((front.center[0], front.top - 3), words, anchor="middle", color=QUIET)
        drawing.photo(small(np.floor(pixels + 0.5).astype(np.uint8)), front)
        drawing.square(front, RULE, width=1)
