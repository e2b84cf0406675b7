"""The verdict on one image."""

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
from jaxtyping import Bool, Float, UInt8, UInt16
from PIL import Image

from hyperspot.choices import OverlayFormat, OverlayStyle
from hyperspot.errors import DataError, ImageError
from hyperspot.images import Letterbox
from hyperspot.images.registration import Alignment
from hyperspot.results.drawing import heat_levels, outline_rows, overlay_heatmap
from hyperspot.results.overlays import of_mask, side_by_side, with_caption, with_color_bar
from hyperspot.results.png import Picture, write_png
from hyperspot.results.regions import Region
from hyperspot.utils.atomic_files import replacing

FILES = {"overlay": ".overlay.png", "heatmap": ".heatmap.png", "mask": ".mask.png", "json": ".json"}
"""What `Verdict.save` writes, and how the names end."""
JPEG_ENDING, JPEG_QUALITY = ".overlay.jpg", 90
JPEG_SIDE = 65500
"""The longest side of a picture that the JPEG library writes."""
DECISIONS = {True: "ANOMALOUS", False: "GOOD", None: "NO DECISION"}
"""In overlays, by `is_anomalous`."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """Score, decision and place of the defect for one image, in the pixels of the original image.

    Attributes:
        score: Higher is more anomalous; comparable between images scored by the same model only.
        p_value: Estimated share of good images with at least this score, in (0, 1]; None without calibration.
        is_anomalous: Whether the p-value is at most the promised false-alarm rate; None without calibration.
        mask: Defective pixels; empty unless the p-value is at most 0.05 or the image is anomalous.
        regions: Connected parts of the mask, highest score first.
        image: 8-bit RGB.
        input_map: The anomaly map at the model's input size, cold outside of the region of interest.
        letterbox: How the image lies in the input.
        heat_range: The scores drawn as cold and as hot; fixed at training.
        milliseconds: From the decoded image to the verdict; in a batch, an equal share of the model's time.
        path: The file the image was read from, if any.
        threshold: Scores above it are anomalous; None without calibration.
        mask_floor: No pixel below it is in a mask; None without calibration.
        statistical_is_anomalous: The decision before the rules on regions; equal to `is_anomalous` without rules.
        reasons: What rejected the image, one sentence for each rule, zone, or part that was not found; empty if it
            passed, and without rules, zones and registration.
        within_rules: Whether the rules accept the regions; None without rules or without regions.
        zone_scores: Score of each zone with a false-alarm rate of its own, and of everything else, on a common scale;
            the image score is the highest. Empty without such zones.
        within: Pixels in the region of interest; None if all are.
        input_within: The same at the model's input size; None if all inside the image are.
        alignment: How the image lies against the reference; None without registration.

    Examples:
        >>> import numpy as np
        >>> from hyperspot import Detector
        >>> good = list(np.random.default_rng(0).integers(100, 140, (12, 64, 64, 3), dtype=np.uint8))
        >>> detector = Detector.fit(good, short_side=64, false_alarm_rate=0.2)
        >>> bad = good[0].copy()
        >>> bad[24:40, 24:40] = 255
        >>> verdict = detector.predict(bad)
        >>> verdict.is_anomalous, verdict.p_value == 1 / 13, verdict.heatmap.shape, verdict.mask.dtype
        (True, True, (64, 64), dtype('bool'))
        >>> list(verdict.to_dict())
        ['image', 'score', 'p_value', 'is_anomalous', 'statistical_is_anomalous', 'reasons', 'part_found', 'zones', \
'regions', 'milliseconds']

    """

    score: float
    p_value: float | None
    is_anomalous: bool | None
    mask: Bool[np.ndarray, "h w"]
    regions: tuple[Region, ...]
    image: UInt8[np.ndarray, "h w 3"]
    input_map: Float[np.ndarray, "H W"]
    letterbox: Letterbox
    heat_range: tuple[float, float]
    milliseconds: float
    path: Path | None = None
    threshold: float | None = None
    mask_floor: float | None = None
    statistical_is_anomalous: bool | None = None
    reasons: tuple[str, ...] = ()
    within_rules: bool | None = None
    zone_scores: dict[str, float] = field(default_factory=dict)
    within: Bool[np.ndarray, "h w"] | None = None
    input_within: Bool[np.ndarray, "H W"] | None = None
    alignment: Alignment | None = None

    @property
    def part_found(self) -> bool | None:
        """Whether the part was found by registration; None without registration."""
        return None if self.alignment is None else self.alignment.is_found

    def __repr__(self) -> str:
        """Show the decision, not the pixels."""
        p_value = "None" if self.p_value is None else f"{self.p_value:.4g}"
        return (
            f"Verdict(score={self.score:.4g}, p_value={p_value}, is_anomalous={self.is_anomalous}, "
            f"regions={len(self.regions)})"
        )

    @cached_property
    def heatmap(self) -> Float[np.ndarray, "_h _w"]:
        """Anomaly score of each pixel, float32; computed from `input_map` when it is first used.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import Detector
            >>> good = list(np.random.default_rng(0).integers(100, 140, (12, 64, 64, 3), dtype=np.uint8))
            >>> detector = Detector.fit(good, short_side=64, false_alarm_rate=0.2)
            >>> verdict = detector.predict(np.zeros((90, 120, 3), np.uint8))
            >>> verdict.heatmap.shape, verdict.input_map.shape
            ((90, 120), (64, 64))

        """
        return self._heat(slice(0, self.letterbox.height))

    def _heat(self, rows: slice) -> Float[np.ndarray, "_h _w"]:
        """Return rows of the heatmap; the whole is never needed to write results."""
        return self.letterbox.invert(self.input_map, rows)

    def overlay(self, style: OverlayStyle = "outline", *, caption: bool = True) -> Image.Image:
        """Return a picture of the verdict.

        Args:
            style: `outline` draws a line around each region, outside of the mask; `heatmap` also tints the image by
                its scores above typical, with a color bar beside it; `side-by-side` shows the image, the heatmap and
                the mask.
            caption: Decision, score, threshold and p-value in a strip above the picture.

        Returns:
            RGB; without a caption, the style `outline` has the size of the image.

        Raises:
            ValueError: If the style is unknown.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import Detector
            >>> good = list(np.random.default_rng(0).integers(100, 140, (12, 64, 64, 3), dtype=np.uint8))
            >>> verdict = Detector.fit(good, short_side=64, false_alarm_rate=0.2).predict(good[0])
            >>> verdict.overlay(caption=False).size
            (64, 64)
            >>> verdict.overlay("side-by-side").width > 3 * 64
            True

        """
        return self._picture(style, caption=caption).to_image()

    def _picture(self, style: str, *, caption: bool) -> Picture:
        if style not in get_args(OverlayStyle):
            raise ValueError(f"there is no overlay style {style!r}; choose one of {', '.join(get_args(OverlayStyle))}")
        height, width = self.mask.shape

        def outlined(rows: slice) -> UInt8[np.ndarray, "_h _w 3"]:
            return outline_rows(heated(rows) if style == "heatmap" else self.image[rows], self.mask, rows)

        def heated(rows: slice) -> UInt8[np.ndarray, "_h _w 3"]:
            return overlay_heatmap(self.image[rows], self._heat(rows), self.heat_range)

        picture = Picture(height, width, heated if style == "side-by-side" else outlined)
        if style != "outline":
            picture = with_color_bar(picture, self.heat_range, self.mask_floor)
        if style == "side-by-side":
            picture = side_by_side([Picture(height, width, self.image.__getitem__), picture, of_mask(self.mask)])
        if not caption:
            return picture
        return with_caption(picture, DECISIONS[self.is_anomalous], self._details(), self.is_anomalous)

    def _details(self) -> list[str]:
        threshold = "" if self.threshold is None else f" (threshold {self.threshold:.4g})"
        p_value = [] if self.p_value is None else [f"p {self.p_value:.3g}"]
        return [f"score {self.score:.4g}{threshold}", *p_value]

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the pixels, as JSON values."""
        return {
            "image": None if self.path is None else str(self.path),
            "score": self.score,
            "p_value": self.p_value,
            "is_anomalous": self.is_anomalous,
            "statistical_is_anomalous": self.statistical_is_anomalous,
            "reasons": list(self.reasons),
            "part_found": self.part_found,
            "zones": dict(self.zone_scores),
            "regions": [region.to_dict() for region in self.regions],
            "milliseconds": round(self.milliseconds, 3),
        }

    def save(
        self,
        folder: Path | str,
        stem: str | None = None,
        *,
        overwrite: bool = False,
        overlay: OverlayStyle = "outline",
        overlay_format: OverlayFormat = "png",
    ) -> dict[str, Path]:
        """Write `STEM.overlay.png`, `STEM.heatmap.png` (16-bit, cold to hot), `STEM.mask.png` and `STEM.json`.

        Each file is written atomically, the JSON last.

        Args:
            folder: Created if missing.
            stem: Of the file names, and with `/` a sub-folder; default: that of the image.
            overwrite: Replace files of the same names, and remove an overlay of the other format.
            overlay: Style of the overlay, as in `overlay`.
            overlay_format: `png` is lossless; `jpeg` writes `STEM.overlay.jpg`, for large images in a quarter of the
                time and a tenth of the space.

        Returns:
            The paths, by `overlay`, `heatmap`, `mask` and `json`.

        Raises:
            DataError: If one of the files exists and `overwrite` is False.
            ImageError: If the overlay is longer or wider than the 65,500 pixels of JPEG; nothing is written.
            OSError: If a file cannot be written.
            ValueError: If the style is unknown.

        Examples:
            >>> import tempfile
            >>> import numpy as np
            >>> from hyperspot import Detector
            >>> good = list(np.random.default_rng(0).integers(100, 140, (12, 64, 64, 3), dtype=np.uint8))
            >>> verdict = Detector.fit(good, short_side=64, false_alarm_rate=0.2).predict(good[0])
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     paths = verdict.save(folder, "new")
            ...     sorted(path.name for path in paths.values() if path.exists())
            ['new.heatmap.png', 'new.json', 'new.mask.png', 'new.overlay.png']

        """
        if stem is None:
            stem = "image" if self.path is None else self.path.stem
        paths = result_paths(Path(folder), stem, overlay_format)
        if not overwrite:
            refuse_existing(paths.values())
        height, width = self.mask.shape
        picture = self._picture(overlay, caption=True)
        if overlay_format == "jpeg" and max(picture.height, picture.width) > JPEG_SIDE:
            raise ImageError(
                f"{paths['overlay']} would have {picture.width} x {picture.height} pixels, and JPEG takes at most "
                f"{JPEG_SIDE} on a side; choose png as the format of overlays"
            )
        paths["json"].parent.mkdir(parents=True, exist_ok=True)

        def heat(rows: slice) -> UInt16[np.ndarray, "_h _w"]:
            return heat_levels(self._heat(rows), self.heat_range)

        for name, pixels in {
            "overlay": picture,
            "heatmap": Picture(height, width, heat),
            "mask": Picture(height, width, self.mask.__getitem__),
        }.items():
            with replacing(paths[name]) as partial:
                if name == "overlay" and overlay_format == "jpeg":
                    pixels.to_image().save(partial, format="JPEG", quality=JPEG_QUALITY)
                else:
                    write_png(partial, pixels)
        if overwrite:
            # It would show an earlier result beside the new JSON.
            other = result_paths(Path(folder), stem, "png" if overlay_format == "jpeg" else "jpeg")
            other["overlay"].unlink(missing_ok=True)
        # Last: where the JSON exists, the pictures exist.
        with replacing(paths["json"]) as partial:
            partial.write_text(json.dumps(self.to_dict()) + "\n", encoding="utf-8")
        return paths


def result_paths(folder: Path, stem: str, overlay_format: OverlayFormat = "png") -> dict[str, Path]:
    """Return the files that `Verdict.save` writes for a stem."""
    endings = FILES | {"overlay": JPEG_ENDING} if overlay_format == "jpeg" else FILES
    return {name: folder / f"{stem}{ending}" for name, ending in endings.items()}


def refuse_existing(paths: Any) -> None:
    """Raise DataError if one of the files exists."""
    for path in paths:
        if path.exists():
            raise DataError(f"{path} already exists; choose another folder, or allow it to be overwritten")
