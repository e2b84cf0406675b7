"""Renders the demo product: a turned flange with six socket screws, lit on a brushed plate.

Lengths are in halves of the image's side, x to the right and y down, the part's center near 0, 0; light is linear.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from scipy import ndimage

OVERSAMPLING = 2
RIM, FACE, GROOVE, HUB, HUB_TOP, BORE_EDGE, BORE = 0.80, 0.765, 0.47, 0.42, 0.395, 0.245, 0.225
BOLTS, BOLT_CIRCLE, SEAT, HEAD, SOCKET, HOLE = 6, 0.605, 0.112, 0.092, 0.046, 0.058
PLATE_TINT = (0.92, 1.0, 1.13)
STEEL_TINT = (1.0, 0.985, 0.955)
BOLT_TINT = (0.97, 0.99, 1.05)

Layer = Float32[np.ndarray, "h w"]
Picture = Float32[np.ndarray, "3 h w"]


@dataclass(frozen=True)
class Scene:
    """The parameters that vary between images of good parts.

    Attributes:
        size: Side of the image, in pixels.
        seed: Seed of textures and noise.
        center: Position of the part.
        turn: Rotation of the part, in radians.
        scale: Scale of the part.
        light: Direction of the main light, in radians.
        brightness: Brightness of the light.
        sockets: Rotation of each screw, in radians.

    """

    size: int
    seed: tuple[int, ...]
    center: tuple[float, float]
    turn: float
    scale: float
    light: float
    brightness: float
    sockets: tuple[float, ...]

    @classmethod
    def draw(cls, size: int, seed: tuple[int, ...]) -> "Scene":
        """Return a scene with the natural variation of a production line."""
        random = np.random.default_rng(seed)
        across, down = random.normal(0, 0.012, 2).clip(-0.03, 0.03)
        return cls(
            size=size,
            seed=seed,
            center=(float(across), float(down)),
            turn=float(random.uniform(-0.07, 0.07)),
            scale=float(random.uniform(0.985, 1.015)),
            light=float(np.deg2rad(-128) + random.normal(0, 0.05)),
            brightness=float(np.clip(random.normal(1, 0.035), 0.9, 1.1)),
            sockets=tuple(random.uniform(0, math.pi / 3, BOLTS).tolist()),
        )

    def bolt(self, number: int) -> tuple[float, float]:
        """Return the center of a screw."""
        angle = self.turn + 2 * math.pi * (number + 0.5) / BOLTS
        return BOLT_CIRCLE * math.cos(angle), BOLT_CIRCLE * math.sin(angle)


@dataclass
class Canvas:
    """An image being rendered on a finer grid, and the cover of its defect."""

    scene: Scene
    picture: Picture = field(init=False)
    defect: Layer = field(init=False)
    x: Layer = field(init=False)
    y: Layer = field(init=False)
    pixel: float = field(init=False)

    def __post_init__(self) -> None:
        side = self.scene.size * OVERSAMPLING
        steps = ((np.arange(side) + 0.5) / side * 2 - 1) / self.scene.scale
        self.x = np.broadcast_to((steps - self.scene.center[0]).astype(np.float32), (side, side))
        self.y = np.broadcast_to((steps - self.scene.center[1]).astype(np.float32)[:, None], (side, side))
        self.pixel = 2 / side / self.scene.scale
        self.defect = np.zeros((side, side), dtype=np.float32)
        self.picture = np.zeros((3, side, side), dtype=np.float32)

    def near(self, place: tuple[float, float], reach: float) -> tuple[slice, slice]:
        """Return the rows and columns within reach of a place."""
        columns, rows = self.x[0], self.y[:, 0]
        left, right = np.searchsorted(columns, [place[0] - reach, place[0] + reach])
        top, bottom = np.searchsorted(rows, [place[1] - reach, place[1] + reach])
        return slice(int(top), int(bottom)), slice(int(left), int(right))

    def inside(self, distance: Layer, edge: float, blur: float = 0.0) -> Layer:
        """Return the share of each pixel within an edge (1 inside), optionally with a soft border."""
        share = np.clip((edge - distance) / (self.pixel + blur) + 0.5, 0, 1)
        return share * share * (3 - 2 * share) if blur else share

    def lay(
        self, light: Layer, cover: Layer, tint: tuple[float, ...], box: tuple[slice, slice] = (slice(None), slice(None))
    ) -> None:
        """Cover a part of the image with tinted light."""
        for plane, share in zip(self.picture, tint, strict=True):
            part = plane[box]
            part += cover * (light * np.float32(share) - part)

    def shade(self, factor: Layer, box: tuple[slice, slice] = (slice(None), slice(None))) -> None:
        """Darken or lighten a part of the image."""
        self.picture[:, *box] *= factor

    def image(self) -> UInt8[np.ndarray, "h w 3"]:
        """Return the image of the camera, with lens blur, sensor noise and tone curve."""
        scene, random = self.scene, np.random.default_rng((*self.scene.seed, 2))
        light = _shrink(self.picture * (scene.brightness * (1 - 0.10 * (self.x**2 + self.y**2))))
        light = ndimage.gaussian_filter(light, (0, 0.45, 0.45))
        noise = random.standard_normal((4, *light.shape[1:]), dtype=np.float32)
        noise = 0.75 * noise[:1] + 0.4 * noise[1:]
        light += noise * (0.0012 + 0.013 * np.sqrt(light.clip(0, 1)))
        # A shoulder instead of a hard clip keeps highlights from burning out.
        toned = np.where(light > 0.7, 0.7 + 0.3 * np.tanh((light - 0.7) / 0.3), light).clip(0, 1)
        return np.ascontiguousarray(np.round(255 * toned ** (1 / 2.2)).astype(np.uint8).transpose(1, 2, 0))

    def mask(self) -> Bool[np.ndarray, "h w"]:
        """Return the pixels of the image that the defect covers by a quarter or more, without specks."""
        return without_specks(_shrink(self.defect) >= 0.25, 4)


def without_specks(pieces: Bool[np.ndarray, "h w"], least: int) -> Bool[np.ndarray, "h w"]:
    """Drop invisible specks: as separate regions of the mask they would count as whole scratches."""
    labels, _ = ndimage.label(pieces)
    sizes = np.bincount(labels[pieces])
    large = sizes >= min(least, sizes.max(initial=0))
    kept: Bool[np.ndarray, "h w"] = large[labels] & pieces if pieces.any() else pieces
    return kept


def paint(scene: Scene, missing: int | None = None) -> Canvas:
    """Render a part; the threaded hole of the screw `missing` is empty."""
    canvas = Canvas(scene)
    random = np.random.default_rng((*scene.seed, 1))
    _plate(canvas, random)
    _flange(canvas, random)
    for number in range(BOLTS):
        _seat(canvas, scene.bolt(number))
        if number == missing:
            _hole(canvas, scene.bolt(number))
        else:
            # A generator per screw: it looks the same whether another is missing or not.
            own = np.random.default_rng((*scene.seed, 1, number))
            _screw(canvas, scene.bolt(number), scene.sockets[number], own)
    return canvas


def _plate(canvas: Canvas, random: np.random.Generator) -> None:
    shape = canvas.x.shape
    streaks = random.standard_normal(shape, dtype=np.float32)
    streaks = ndimage.uniform_filter1d(streaks, max(3, shape[1] // 6), axis=1, mode="wrap")
    streaks = ndimage.uniform_filter1d(streaks, max(3, shape[1] // 12), axis=1, mode="wrap")
    streaks /= streaks.std()
    angle = canvas.scene.light
    across = canvas.x * math.cos(angle) + canvas.y * math.sin(angle)
    light = 0.085 + 0.045 * across + 0.03 * np.exp(-(((canvas.y + 0.35) / 0.5) ** 2))
    canvas.lay(light * (1 + 0.09 * streaks), np.ones(shape, np.float32), PLATE_TINT)
    # The part stands a little above the plate: a wide soft shadow, and a narrow dark one where it touches.
    away_x, away_y = -0.075 * math.cos(angle), -0.075 * math.sin(angle)
    soft = canvas.inside(np.hypot(canvas.x - away_x, canvas.y - away_y), RIM + 0.005, 0.13)
    touch = canvas.inside(np.hypot(canvas.x - away_x / 4, canvas.y - away_y / 4), RIM + 0.006, 0.035)
    canvas.shade((1 - 0.62 * soft) * (1 - 0.5 * touch))


def _flange(canvas: Canvas, random: np.random.Generator) -> None:
    radius = np.hypot(canvas.x, canvas.y) + np.float32(1e-6)
    cos, sin = canvas.x / radius, canvas.y / radius
    toward = cos * math.cos(canvas.scene.light) + sin * math.sin(canvas.scene.light)
    marks = _turning_marks(radius, toward, random)
    gloss = _turned_gloss(cos, sin, canvas.scene.light)
    gradient = 1 + 0.16 * toward * radius

    face = (0.20 + 0.36 * gloss) * gradient * (1 + marks * (0.10 + 0.12 * gloss))
    canvas.lay(0.27 + 0.23 * toward, canvas.inside(radius, RIM), STEEL_TINT)
    canvas.lay(face, canvas.inside(radius, FACE), STEEL_TINT)
    canvas.shade(1 - 0.25 * np.exp(-(((radius - FACE) / 0.006) ** 2)))

    in_groove = np.exp(-(((radius - GROOVE) / 0.010) ** 2))
    canvas.shade(1 - 0.55 * in_groove)
    lip = np.exp(-(((radius - GROOVE - 0.014) / 0.005) ** 2))
    canvas.shade(1 + 0.35 * lip * np.clip(-toward, 0, 1))

    angle = canvas.scene.light
    fallen = np.hypot(canvas.x + 0.035 * math.cos(angle), canvas.y + 0.035 * math.sin(angle))
    canvas.shade(1 - 0.5 * canvas.inside(fallen, HUB, 0.06))
    canvas.lay(0.31 + 0.26 * toward, canvas.inside(radius, HUB), STEEL_TINT)
    top = (0.30 + 0.38 * gloss) * gradient * (1 + 0.7 * marks * (0.10 + 0.10 * gloss))
    canvas.lay(top, canvas.inside(radius, HUB_TOP), STEEL_TINT)
    _bore(canvas, radius, toward)


def bore_distance(canvas: Canvas, box: tuple[slice, slice] = (slice(None), slice(None))) -> Layer:
    """Return the distance from the bore with its keyway, negative inside."""
    x, y, turn = canvas.x[box], canvas.y[box], canvas.scene.turn - math.pi / 2
    along = x * math.cos(turn) + y * math.sin(turn)
    beside = np.abs(y * math.cos(turn) - x * math.sin(turn))
    keyway = np.maximum(np.abs(along - 0.15) - 0.15, beside - 0.048)
    distance: Layer = np.minimum(np.hypot(x, y) - BORE, keyway)
    return distance


def _bore(canvas: Canvas, radius: Layer, toward: Layer) -> None:
    opening = bore_distance(canvas)
    chamfer = np.minimum(radius - BORE_EDGE, opening - 0.010)
    canvas.lay(0.30 - 0.24 * toward, canvas.inside(chamfer, 0.0), STEEL_TINT)
    # The wall away from the light is seen lit, the depth is dark.
    wall = np.clip(1 + opening / 0.09, 0, 1) ** 2
    depth = 0.012 + 0.16 * wall * np.clip(0.25 - 0.75 * toward, 0, 1)
    canvas.lay(depth, canvas.inside(opening, 0.0), (0.95, 1.0, 1.06))


def _seat(canvas: Canvas, place: tuple[float, float]) -> None:
    box = canvas.near(place, 2 * SEAT)
    radius, toward = _polar(canvas, place, box)
    canvas.lay(0.33 - 0.12 * toward, canvas.inside(radius, SEAT), STEEL_TINT, box)
    canvas.shade(1 - 0.45 * np.exp(-(((radius - SEAT) / 0.006) ** 2)), box)


def _screw(canvas: Canvas, place: tuple[float, float], turn: float, random: np.random.Generator) -> None:
    box = canvas.near(place, 2.2 * HEAD)
    x, y = canvas.x[box] - place[0], canvas.y[box] - place[1]
    radius, toward = _polar(canvas, place, box)
    angle = canvas.scene.light
    fallen = np.hypot(x + 0.034 * math.cos(angle), y + 0.034 * math.sin(angle))
    canvas.shade(1 - 0.68 * canvas.inside(fallen, HEAD, 0.035), box)
    canvas.lay(0.05 + 0.09 * np.clip(toward, -0.4, 1), canvas.inside(radius, HEAD), BOLT_TINT, box)
    grain = ndimage.gaussian_filter(random.standard_normal(x.shape, dtype=np.float32), 1.2)
    top = 0.072 + 0.045 * toward * radius / HEAD + 0.02 * grain
    canvas.lay(top, canvas.inside(radius, HEAD - 0.014), BOLT_TINT, box)
    glint = np.exp(-(((radius - HEAD + 0.012) / 0.006) ** 2)) * np.clip(toward, 0, 1) ** 4
    canvas.picture[:, *box] += 0.42 * glint

    turns = [turn, turn + math.pi / 3, turn + 2 * math.pi / 3]
    hexagon = np.max([np.abs(x * math.cos(one) + y * math.sin(one)) for one in turns], axis=0)
    canvas.lay(0.09 - 0.07 * toward, canvas.inside(hexagon, SOCKET + 0.006), BOLT_TINT, box)
    inner = np.clip(hexagon / SOCKET, 0, 1) ** 3
    floor = 0.008 + 0.05 * inner * np.clip(-toward, 0, 1)
    canvas.lay(floor, canvas.inside(hexagon, SOCKET), BOLT_TINT, box)


def _hole(canvas: Canvas, place: tuple[float, float]) -> None:
    box = canvas.near(place, 2 * SEAT)
    radius, toward = _polar(canvas, place, box)
    canvas.lay(0.26 - 0.22 * toward, canvas.inside(radius, HOLE + 0.012), STEEL_TINT, box)
    thread = 0.5 + 0.5 * np.cos(radius * (2 * math.pi / 0.013))
    wall = np.clip(radius / HOLE, 0, 1) ** 3
    depth = 0.012 + 0.15 * wall * np.clip(0.2 - 0.8 * toward, 0, 1) * thread
    canvas.lay(depth, canvas.inside(radius, HOLE), STEEL_TINT, box)
    canvas.defect[box] = np.maximum(canvas.defect[box], canvas.inside(radius, HEAD))


def _polar(canvas: Canvas, place: tuple[float, float], box: tuple[slice, slice]) -> tuple[Layer, Layer]:
    """Return the distance from a place, and how far each direction from it is toward the light (-1 to 1)."""
    x, y = canvas.x[box] - np.float32(place[0]), canvas.y[box] - np.float32(place[1])
    radius = np.hypot(x, y) + np.float32(1e-6)
    angle = canvas.scene.light
    return radius, (x * math.cos(angle) + y * math.sin(angle)) / radius


def _turned_gloss(cos: Layer, sin: Layer, light: float) -> Layer:
    """Return the gloss of circular grooves: they mirror a lamp along the line through the center toward it."""
    gloss = np.zeros_like(cos)
    for angle, width, strength in ((light, 0.30, 1.0), (light + 1.25, 0.20, 0.55), (light + 2.2, 0.12, 0.25)):
        across = sin * math.cos(angle) - cos * math.sin(angle)
        gloss += np.float32(strength) * np.exp(-((across / width) ** 2))
    return gloss


def _turning_marks(radius: Layer, toward: Layer, random: np.random.Generator) -> Layer:
    """Return the fine rings left by the tool, which fade in and out around the part."""
    rings = random.standard_normal((2, 1024), dtype=np.float32)
    rings = 0.6 * rings + 0.9 * ndimage.gaussian_filter1d(rings, 3, axis=1) * 3
    place = np.minimum((radius * (1023 / 1.5)).astype(np.intp), 1023)
    share = 0.5 + 0.5 * toward
    marks: Layer = rings[0][place] * share + rings[1][place] * (1 - share)
    return marks


def _shrink(fine: Float[np.ndarray, "*c h w"]) -> Float[np.ndarray, "*c _h _w"]:
    rows, columns = fine.shape[-2] // OVERSAMPLING, fine.shape[-1] // OVERSAMPLING
    blocks = fine.reshape(*fine.shape[:-2], rows, OVERSAMPLING, columns, OVERSAMPLING)
    mean: Float[np.ndarray, "*c _h _w"] = blocks.mean(axis=(-3, -1))
    return mean
