"""From frames of pixels to heatmaps and scores: what a detector runs, and what is exported."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor, nn

from hyperspot.cpu import NumberFormat
from hyperspot.cuda import GraphRecorder, Replayed
from hyperspot.devices import choose_format, computing_on
from hyperspot.heatmaps import fuse, in_frame, smooth
from hyperspot.images import Frame, View
from hyperspot.intake import crop, normalise
from hyperspot.methods import Method


@dataclass(frozen=True)
class Usual:
    """Mean and deviation over good training photos of a view's map and of its image score."""

    map_mean: float = 0.0
    map_deviation: float = 1.0
    score_mean: float = 0.0
    score_deviation: float = 1.0


class Scorer(nn.Module):
    """One method per view of the common frame, and how their maps become one heatmap.

    With one view the heatmap is the method's own; with several it is the mean of their standardised maps
    (CFA++ as a true fusion: no statistic of any test photo enters).
    """

    def __init__(
        self,
        methods: Sequence[Method],
        views: Sequence[View],
        frame: Frame,
        sigma: float,
        usual: Sequence[Usual] = (),
    ) -> None:
        super().__init__()
        self.methods = nn.ModuleList(methods)
        self.views = tuple(views)
        self.frame = frame
        self.sigma = sigma
        self.usual = tuple(usual)
        self._replayed: Replayed | None = None

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    def place(self, device: torch.device, number_format: NumberFormat | None = None) -> "Scorer":
        """Move to a device, where the backbone computes in a format or, without it, in what suits the device.

        Raises DeviceError where the memory of the device is too small, or it does not compute in that format.
        """
        chosen = choose_format(device, number_format)
        with computing_on(device):
            self.to(device)
        self.number_format = chosen
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Scorer":
        """Change or move all tensors; what was recorded of their work knows the old ones alone."""
        self._replayed = None
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        return self

    @torch.inference_mode()
    def run(
        self, frames: UInt8[np.ndarray, "b H W 3"]
    ) -> tuple[Float32[np.ndarray, "b H W"], Float32[np.ndarray, "b"] | None]:
        """Return what `forward` does, from memory to memory, whatever the device: the way to judge photos.

        On a GPU the work on a shape that comes again is recorded and replayed (see `cuda`).

        Raises DeviceError where the memory of the device is too small.
        """
        given = torch.from_numpy(frames)
        device = self.device
        if device.type == "cpu":
            maps, own = self(given)
        else:
            with computing_on(device):
                if self._replayed is None:
                    self._replayed = Replayed(self, GraphRecorder(device))
                maps, own = self._replayed(given, self.number_format)
        return maps.numpy(), None if own is None else own.numpy()

    @property
    def number_format(self) -> NumberFormat:
        """What the backbone computes in; all that follows it is in 32-bit floats."""
        backbone: Any = self.methods[0].backbone
        chosen: NumberFormat = backbone.number_format
        return chosen

    @number_format.setter
    def number_format(self, chosen: NumberFormat) -> None:
        for method in self.methods:
            backbone: Any = method.backbone
            backbone.number_format = chosen

    def forward(self, frames: UInt8[Tensor, "b H W 3"]) -> tuple[Float[Tensor, "b H W"], Float[Tensor, "b"] | None]:
        """Return the heatmap of each frame, and its image score where the method has one of its own."""
        maps, scores = [], []
        for number, view in enumerate(self.views):
            seen, score = self.view_map(frames, number)
            maps.append(in_frame(seen, view.top, view.left, self.frame.height, self.frame.width))
            scores.append(score)
        if len(self.views) == 1:
            return maps[0], scores[0]
        boxes = [(view.top, view.left, view.height, view.width) for view in self.views]
        fused = fuse(maps, boxes, [(usual.map_mean, usual.map_deviation) for usual in self.usual])
        standardised = [
            (score - usual.score_mean) / usual.score_deviation
            for score, usual in zip(scores, self.usual, strict=True)
            if score is not None
        ]
        return fused, torch.stack(standardised).mean(0) if standardised else None

    def view_map(
        self, frames: UInt8[Tensor, "b H W 3"], number: int
    ) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b"] | None]:
        """Return the smoothed map of one view in its own pixels, and its image score if it has one."""
        view = self.views[number]
        method = self.methods[number]
        backbone: Any = method.backbone
        raw, score = method(normalise(crop(frames, view), backbone.mean, backbone.std))
        return smooth(raw, view.height, view.width, self.sigma), score
