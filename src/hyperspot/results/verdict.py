"""What the detector says about one photo."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image

from hyperspot.images import Letterbox
from hyperspot.images.masks import connected_runs, erode
from hyperspot.utils.atomic_files import replacing

HEAT_COLORS = np.array(
    [[0, 0, 0], [60, 15, 110], [150, 30, 110], [220, 60, 60], [250, 140, 30], [255, 235, 120]], dtype=np.float32
)
OUTLINE_COLOR = (255, 40, 90)


@dataclass(frozen=True)
class Region:
    """One connected defect: its box in pixels of the photo, its area and its highest score."""

    left: int
    top: int
    width: int
    height: int
    area: int
    score: float

    def to_dict(self) -> dict[str, int | float]:
        """Return the fields under their names."""
        return dict(self.__dict__)


@dataclass(frozen=True)
class Verdict:
    """Score, place and decision for one photo, all in the photo's own pixels.

    Attributes:
        score: How anomalous the photo is; comparable between photos judged by the same detector only.
        p_value: The share of good photos expected to score at least this much, in (0, 1]; none without
            calibration.
        is_anomalous: Whether the p-value is at most the promised false-alarm rate; none without calibration.
        heatmap: The score of each pixel.
        mask: Where the defect is; empty where the photo is not called anomalous.
        regions: The connected parts of the mask, highest score first.
        image: The photo.
        input_map: The heatmap in the pixels of the detector's input, and `letterbox` how the photo lies in it.
        heat_range: The scores that `overlay` draws as cold and as hot; fixed at training.
        milliseconds: Time from the decoded photo to this verdict.
        path: Where the photo was read from, if from a file.

    """

    score: float
    p_value: float | None
    is_anomalous: bool | None
    heatmap: Float[np.ndarray, "h w"]
    mask: Bool[np.ndarray, "h w"]
    regions: tuple[Region, ...]
    image: UInt8[np.ndarray, "h w 3"]
    input_map: Float[np.ndarray, "H W"]
    letterbox: Letterbox
    heat_range: tuple[float, float]
    milliseconds: float
    path: Path | None = None

    def __repr__(self) -> str:
        """Show the decision, not the pixels."""
        p_value = "none" if self.p_value is None else f"{self.p_value:.4g}"
        return (
            f"Verdict(score={self.score:.4g}, p_value={p_value}, is_anomalous={self.is_anomalous}, "
            f"regions={len(self.regions)})"
        )

    def overlay(self) -> Image.Image:
        """Return the photo with the heatmap over it and the mask outlined."""
        return Image.fromarray(outline(color(self.image, self.heatmap, self.heat_range), self.mask))

    def to_dict(self) -> dict[str, Any]:
        """Return what fits in JSON: everything but the pictures."""
        return {
            "image": None if self.path is None else str(self.path),
            "score": self.score,
            "p_value": self.p_value,
            "is_anomalous": self.is_anomalous,
            "regions": [region.to_dict() for region in self.regions],
            "milliseconds": round(self.milliseconds, 3),
        }

    def save(self, folder: Path | str, stem: str | None = None) -> dict[str, Path]:
        """Write the overlay, the mask, the heatmap (16-bit, cold to hot) and the JSON; return where they are.

        Each file is written whole or not at all, the JSON last. Raises OSError where one cannot be written.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        if stem is None:
            stem = "photo" if self.path is None else self.path.stem
        pictures = {
            "overlay": self.overlay(),
            "heatmap": Image.fromarray(np.round(heat(self.heatmap, self.heat_range) * 65535).astype(np.uint16)),
            "mask": Image.fromarray(self.mask),
        }
        paths = {name: folder / f"{stem}.{name}.png" for name in pictures} | {"json": folder / f"{stem}.json"}
        for name, picture in pictures.items():
            with replacing(paths[name]) as partial:
                picture.save(partial, format="PNG")
        # Last, so that where there is a JSON file the pictures that it belongs to are there as well.
        with replacing(paths["json"]) as partial:
            partial.write_text(json.dumps(self.to_dict()) + "\n", encoding="utf-8")
        return paths


def find_regions(mask: Bool[np.ndarray, "h w"], heatmap: Float[np.ndarray, "h w"]) -> tuple[Region, ...]:
    """Return the 8-connected parts of a mask, highest score first."""
    if not mask.any():
        return ()
    rows, starts, stops, parts = connected_runs(mask)
    lengths = stops - starts
    count = int(parts.max()) + 1
    top, left = np.full((2, count), max(mask.shape))
    bottom, right, areas = np.zeros((3, count), dtype=np.intp)
    scores = np.full(count, -np.inf, dtype=heatmap.dtype)
    np.minimum.at(top, parts, rows)
    np.maximum.at(bottom, parts, rows + 1)
    np.minimum.at(left, parts, starts)
    np.maximum.at(right, parts, stops)
    np.add.at(areas, parts, lengths)
    np.maximum.at(scores, parts, np.maximum.reduceat(heatmap[mask], np.cumsum(lengths) - lengths))
    regions = [
        Region(
            left=int(left[part]),
            top=int(top[part]),
            width=int(right[part] - left[part]),
            height=int(bottom[part] - top[part]),
            area=int(areas[part]),
            score=float(scores[part]),
        )
        for part in range(count)
    ]
    return tuple(sorted(regions, key=lambda region: -region.score))


def heat(heatmap: Float[np.ndarray, "h w"], heat_range: tuple[float, float]) -> Float[np.ndarray, "h w"]:
    """Return the heatmap as 0 (cold) to 1 (hot)."""
    cold, hot = heat_range
    return np.clip((heatmap - cold) / (hot - cold), 0, 1).astype(np.float32)


def color(
    image: UInt8[np.ndarray, "h w 3"],
    heatmap: Float[np.ndarray, "h w"],
    heat_range: tuple[float, float],
) -> UInt8[np.ndarray, "h w 3"]:
    """Lay the heatmap over a photo; where it is cold the photo shows through."""
    level = heat(heatmap, heat_range)
    place = level * (len(HEAT_COLORS) - 1)
    lower = np.minimum(place.astype(np.intp), len(HEAT_COLORS) - 2)
    share = (place - lower)[..., None]
    colors = HEAT_COLORS[lower] * (1 - share) + HEAT_COLORS[lower + 1] * share
    strength = (0.85 * np.clip(level * 1.6, 0, 1))[..., None]
    mixed: UInt8[np.ndarray, "h w 3"] = np.round(image * (1 - strength) + colors * strength).astype(np.uint8)
    return mixed


def outline(
    image: UInt8[np.ndarray, "h w 3"],
    mask: Bool[np.ndarray, "h w"],
    line: tuple[int, int, int] = OUTLINE_COLOR,
) -> UInt8[np.ndarray, "h w 3"]:
    """Draw the border of a mask on a photo, its width growing with the photo."""
    width = max(1, round(min(mask.shape) / 200))
    drawn = image.copy()
    drawn[mask & ~erode(mask, width)] = line
    return drawn
