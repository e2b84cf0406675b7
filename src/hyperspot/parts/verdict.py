"""The verdict on one part, from the verdicts on its views."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from hyperspot.choices import OverlayStyle
from hyperspot.errors import DataError
from hyperspot.parts.calibration import PartCalibration
from hyperspot.results.overlays import PAPER, of_image, with_caption
from hyperspot.results.verdict import DECISIONS, Verdict, refuse_existing, result_paths
from hyperspot.utils.atomic_files import replacing
from hyperspot.utils.names import leads_elsewhere

SHEET_SIDE = 640
"""Longest side of a view in the contact sheet, in pixels."""
GAP = 8
"""Pixels between views."""


@dataclass(frozen=True, eq=False)
class PartVerdict:
    """Score and decision for one part, and the verdict on each of its views.

    Attributes:
        part: Name of the part.
        score: The largest score of its views, each standardized by good parts: 0 is the median, 1 the 90th percentile
            of a view.
        p_value: Estimated share of good parts with at least this score, in (0, 1].
        is_anomalous: Whether the p-value is at most the promised false-alarm rate; None if it is not and a view is
            missing, because the missing view may show a defect.
        deciding_view: The view with the largest standardized score.
        views: Verdicts by view. Their p-values and thresholds are those of the part: a view above its threshold
            makes the part anomalous.
        threshold: Parts with a higher score are anomalous.
        missing: Views without an image.

    Examples:
        >>> import numpy as np
        >>> from hyperspot import PartInspector
        >>> random = np.random.default_rng(0)
        >>> def part():
        ...     return {view: random.integers(100, 140, (64, 64, 3), dtype=np.uint8) for view in ("top", "side")}
        >>> inspector = PartInspector.fit([part() for _ in range(12)], short_side=64, false_alarm_rate=0.2)
        >>> bad = part()
        >>> bad["side"][24:40, 24:40] = 255
        >>> verdict = inspector.predict(bad, name="7")
        >>> verdict.is_anomalous, verdict.deciding_view, verdict.views["top"].is_anomalous
        (True, 'side', False)
        >>> list(verdict.to_dict())[:4]
        ['part', 'score', 'p_value', 'is_anomalous']

    """

    part: str
    score: float
    p_value: float | None
    is_anomalous: bool | None
    deciding_view: str
    views: dict[str, Verdict]
    threshold: float | None = None
    missing: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Show the decision, not the pixels."""
        p_value = "None" if self.p_value is None else f"{self.p_value:.4g}"
        return (
            f"PartVerdict(part={self.part!r}, score={self.score:.4g}, p_value={p_value}, "
            f"is_anomalous={self.is_anomalous}, deciding_view={self.deciding_view!r})"
        )

    @property
    def milliseconds(self) -> float:
        """Time of all views together."""
        return sum(verdict.milliseconds for verdict in self.views.values())

    def overlay(self, style: OverlayStyle = "outline", *, caption: bool = True) -> Image.Image:
        """Return the contact sheet: the overlays of all views, the deciding one marked in its caption.

        Args:
            style: As in `Verdict.overlay`.
            caption: Decision, score, threshold and p-value of the part in a strip above.

        Returns:
            RGB; no view is longer than 640 pixels.

        Raises:
            ValueError: If the style is unknown.

        Examples:
            >>> import numpy as np
            >>> from hyperspot import PartInspector
            >>> parts = list(np.random.default_rng(0).integers(100, 140, (12, 2, 64, 64, 3), dtype=np.uint8))
            >>> parts = [{"top": top, "side": side} for top, side in parts]
            >>> inspector = PartInspector.fit(parts, short_side=64, false_alarm_rate=0.2)
            >>> sheet = inspector.predict(parts[0]).overlay()
            >>> sheet.width > 2 * 64, sheet.height > 64
            (True, True)

        """
        tiles = []
        for view, verdict in self.views.items():
            picture = verdict.overlay(style, caption=False)
            picture.thumbnail((SHEET_SIDE, SHEET_SIDE))
            details = ["decides"] if view == self.deciding_view else []
            tiles.append(with_caption(of_image(picture), view, details, verdict.is_anomalous).to_image())
        sheet = _grid(tiles, columns=math.ceil(math.sqrt(len(tiles))))
        if not caption:
            return sheet
        threshold = "" if self.threshold is None else f" (threshold {self.threshold:.4g})"
        p_value = [] if self.p_value is None else [f"p {self.p_value:.3g}"]
        missing = [f"missing: {', '.join(self.missing)}"] if self.missing else []
        details = [f"score {self.score:.4g}{threshold}", *p_value, f"view {self.deciding_view}", *missing]
        return with_caption(of_image(sheet), DECISIONS[self.is_anomalous], details, self.is_anomalous).to_image()

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the pixels, as JSON values."""
        return {
            "part": self.part,
            "score": self.score,
            "p_value": self.p_value,
            "is_anomalous": self.is_anomalous,
            "deciding_view": self.deciding_view,
            "missing": list(self.missing),
            "milliseconds": round(self.milliseconds, 3),
            "views": {view: verdict.to_dict() for view, verdict in self.views.items()},
        }

    def save(
        self, folder: Path | str, stem: str | None = None, *, overwrite: bool = False, overlay: OverlayStyle = "outline"
    ) -> dict[str, Path]:
        """Write the contact sheet `STEM.overlay.png`, `STEM.json`, and the results of each view in the folder `STEM`.

        Each file is written atomically, the JSON last, and none if one of them exists and may not be replaced.

        Args:
            folder: Created if missing.
            stem: Of the file names, and with `/` a sub-folder; default: the name of the part.
            overwrite: Replace files of the same names.
            overlay: Style of the overlays, as in `Verdict.overlay`.

        Returns:
            The paths, by `overlay` and `json`.

        Raises:
            DataError: If one of the files exists and `overwrite` is False, or a name leads out of the folder.
            OSError: If a file cannot be written.
            ValueError: If the style is unknown.

        Examples:
            >>> import tempfile
            >>> import numpy as np
            >>> from hyperspot import PartInspector
            >>> parts = list(np.random.default_rng(0).integers(100, 140, (12, 2, 64, 64, 3), dtype=np.uint8))
            >>> parts = [{"top": top, "side": side} for top, side in parts]
            >>> inspector = PartInspector.fit(parts, short_side=64, false_alarm_rate=0.2)
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     paths = inspector.predict(parts[0], name="7").save(folder)
            ...     [path.name for path in paths.values()]
            ['7.overlay.png', '7.json']

        """
        stem = stem or self.part
        for name in (stem, *self.views):
            if leads_elsewhere(name):
                raise DataError(
                    f"the name '{name}' leads out of the folder {folder}; name parts and views without '..'"
                )
        paths = {name: path for name, path in result_paths(Path(folder), stem).items() if name in ("overlay", "json")}
        if not overwrite:
            inner = [path for view in self.views for path in result_paths(Path(folder), f"{stem}/{view}").values()]
            refuse_existing([*paths.values(), *inner])
        for view, verdict in self.views.items():
            verdict.save(folder, f"{stem}/{view}", overwrite=overwrite, overlay=overlay)
        with replacing(paths["overlay"]) as partial:
            self.overlay(overlay).save(partial, format="PNG")
        with replacing(paths["json"]) as partial:
            partial.write_text(json.dumps(self.to_dict()) + "\n", encoding="utf-8")
        return paths


def decide(part: str, views: Mapping[str, Verdict], calibration: PartCalibration) -> PartVerdict:
    """Return the verdict on a part from the verdicts on its views, at least one, by rules with the same calibration."""
    scores = {view: calibration.standardize(view, verdict.score) for view, verdict in views.items()}
    deciding = max(scores, key=lambda view: scores[view])
    missing = tuple(view for view in calibration.views if view not in views)
    anomalous = any(verdict.is_anomalous for verdict in views.values())
    return PartVerdict(
        part=part,
        score=scores[deciding],
        p_value=views[deciding].p_value,
        is_anomalous=True if anomalous else None if missing else False,
        deciding_view=deciding,
        views=dict(views),
        threshold=calibration.calibration.threshold,
        missing=missing,
    )


def _grid(tiles: Sequence[Image.Image], columns: int) -> Image.Image:
    """Return pictures in rows, in cells of the size of the largest one."""
    width, height = max(one.width for one in tiles) + GAP, max(one.height for one in tiles) + GAP
    rows = math.ceil(len(tiles) / columns)
    drawn = Image.new("RGB", (columns * width - GAP, rows * height - GAP), PAPER)
    for number, one in enumerate(tiles):
        drawn.paste(one, (number % columns * width, number // columns * height))
    return drawn
