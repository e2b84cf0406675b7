"""Does a student see defects as its teacher does? Held-out textures with made defects, and nearest neighbors.

From each texture image that was never trained on, patches of one half are the bank, and the other half, with a
part of another image or a scratch put in, is scored by the distance to the nearest of them. No industrial image is
used: these figures, and the validation loss, are all that a student is chosen by.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional

from hyperspot.backbones import Backbone, create
from hyperspot.features.patches import align, pool
from hyperspot.metrics import auroc
from tools.distill import photos as _photos
from tools.distill.cache import normalized
from tools.distill.shipping import student_of

FOLDERS = ("dtd", "texture")
"""Images below a folder whose name begins so are textures."""
SIDE, DEFECTS = 256, 4


def main(found: _photos.ImageLoader, teacher: Path, runs: list[Path]) -> None:
    """Print the mean area under the pixel ROC of the teacher and of each run's student, per choice of levels."""
    networks = {"resnet18": create("resnet18", teacher)} | {run.name: student_of(run) for run in runs}
    textures = [path for path in found.held_out if path.startswith(FOLDERS)]
    if not textures:
        raise ValueError(f"{found.root} holds no held-out texture; put some below a folder named {FOLDERS[0]}...")
    print(f"| network | C2+C3+C4 | C3+C4 | ({len(textures)} textures, {DEFECTS} defects each)\n|---|---|---|")
    for name, network in networks.items():
        fine, coarse = (float(np.mean(areas)) for areas in zip(*judged(network, found, textures), strict=True))
        print(f"| {name} | {fine:.4f} | {coarse:.4f} |", flush=True)


def judged(network: Backbone, found: _photos.ImageLoader, textures: list[str]) -> list[tuple[float, float]]:
    """Return for each texture the area under the pixel ROC with all levels, and with the upper two."""
    areas = []
    for place, path in enumerate(textures):
        generator = np.random.default_rng([1, place])
        other = _square(_photos.read(found.root / textures[place - 1]))
        bank, rest = np.split(_square(_photos.read(found.root / path)), 2, axis=1)
        spoilt, masks = zip(*(_spoilt(rest, other, generator) for _ in range(DEFECTS)), strict=True)
        with torch.inference_mode():
            clean = network(_normalized(np.stack([bank, bank[:, ::-1]]), network))
            tested = network(_normalized(np.stack(spoilt), network))
        areas.append((_area(clean, tested, np.stack(masks)), _area(clean[1:], tested[1:], np.stack(masks))))
    return areas


def _area(clean: list[Tensor], tested: list[Tensor], masks: np.ndarray) -> float:
    bank, judged_ = (_features(levels) for levels in (clean, tested))
    height, width = tested[0].shape[-2:]
    distances = torch.cdist(judged_, bank).amin(dim=1).reshape(-1, 1, height, width)
    scores = functional.interpolate(distances, size=masks.shape[-2:], mode="bilinear", align_corners=False)
    area = auroc(scores.numpy().ravel(), masks.ravel())
    assert area is not None, "each half has a defect and more"
    return area


def _features(levels: list[Tensor]) -> Tensor:
    height, width = levels[0].shape[-2:]
    return torch.cat([align(pool(level), height, width) for level in levels], 1).permute(0, 2, 3, 1).flatten(0, 2)


def _square(photo: np.ndarray) -> np.ndarray:
    side = min(photo.shape[:2])
    top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
    return np.asarray(Image.fromarray(photo[top : top + side, left : left + side]).resize((SIDE, SIDE)))


def _spoilt(half: np.ndarray, other: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    height, width = half.shape[:2]
    mask = Image.new("L", (width, height))
    draw = ImageDraw.Draw(mask)
    x, y = generator.uniform(24, width - 24), generator.uniform(24, height - 24)
    if generator.random() < 0.5:
        points = np.cumsum(generator.normal(0, 9, (5, 2)), axis=0) + np.array([x, y])
        draw.line([tuple(point) for point in points], fill=255, width=int(generator.integers(2, 5)))
        filling = np.full_like(half, generator.integers(0, 256))
    else:
        radii = generator.uniform(5, 18, 2)
        draw.ellipse((x - radii[0], y - radii[1], x + radii[0], y + radii[1]), fill=255)
        filling = other[:, :width]
    marked = np.asarray(mask) > 0
    strength = generator.uniform(0.4, 1.0)
    mixed = half + marked[..., None] * strength * (filling.astype(float) - half)
    return np.rint(mixed).astype(np.uint8), marked


def _normalized(views: np.ndarray, network: Backbone) -> Tensor:
    return normalized(torch.from_numpy(np.ascontiguousarray(views)).permute(0, 3, 1, 2), network)
