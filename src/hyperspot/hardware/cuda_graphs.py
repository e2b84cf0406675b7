"""CUDA graphs: captured once per input shape, then replayed.

A heatmap takes some hundred kernels, and launching them one by one from Python takes longer than most of them run. A
graph launches them all at once. It uses fixed memory: inputs are copied into it before a replay, results out of it
afterward.
"""

import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from hyperspot.errors import DeviceWarning
from hyperspot.hardware.cached_tensors import collecting

MAX_GRAPHS = 8
"""Graphs kept at a time; each one holds the memory of a whole forward pass."""
PATIENCE = 64
"""Calls an unused graph survives, so that alternating shapes do not evict each other."""
WARM_UPS = 3
"""Forward passes before a capture, in which libraries select algorithms and allocate memory (as torch recommends)."""
SEEN = 256
"""Shapes remembered as seen once."""

Result = tuple[Float[Tensor, "b H W"], Float[Tensor, "b"] | None]
Forward = Callable[[UInt8[Tensor, "b H W 3"]], Result]


@runtime_checkable
class Capturer(Protocol):
    """Captures graphs on a device; tests replace it."""

    device: torch.device

    def warm_up(self, work: Callable[[], Any]) -> None:
        """Run the work a few times, isolated from other work on the device."""
        ...

    def capture(self, work: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
        """Return a function that replays the work, and the tensors that receive the results."""
        ...


class GraphCapturer:
    """Captures CUDA graphs on a separate stream."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)

    def warm_up(self, work: Callable[[], Any]) -> None:
        """Run the work on the capture stream, after all work queued on the device before."""
        usual = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(usual)
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UPS):
                work()
        usual.wait_stream(self._stream)

    def capture(self, work: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
        """Capture the work without computing it; raises RuntimeError if it synchronizes with the device."""
        graph = torch.cuda.CUDAGraph()
        usual = torch.cuda.current_stream(self.device)
        try:
            # Other threads may use the device during the capture.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                results = work()
        finally:
            # After a failed capture torch stays on the capture stream.
            torch.cuda.set_stream(usual)
        return graph.replay, results


@dataclass
class _Graph:
    """A captured graph, its input and output tensors, and the cached tensors it reads; `last_used` counts calls."""

    frames: Tensor
    replay: Callable[[], None]
    results: Result
    cached: list[Tensor]
    last_used: int


class GraphedCallable:
    """A forward pass on a device that replays CUDA graphs for recurring shapes.

    The first call of a shape runs eagerly, because a capture costs several passes. So does a shape beyond
    `max_graphs`, until the least recently used graph has been idle for `PATIENCE` calls and is evicted. Thread-safe;
    calls are serialized.

    Args:
        work: The forward pass, from frames on the device to maps and scores on the device.
        capturer: Captures the graphs.
        max_graphs: Graphs kept at a time.

    """

    def __init__(self, work: Forward, capturer: Capturer, *, max_graphs: int = MAX_GRAPHS) -> None:
        self._work, self._capturer, self._max_graphs = work, capturer, max_graphs
        self._graphs: OrderedDict[Hashable, _Graph] = OrderedDict()
        self._seen: OrderedDict[Hashable, None] = OrderedDict()
        self._calls = 0
        self._disabled = False
        self._lock = threading.Lock()

    def __call__(self, frames: UInt8[Tensor, "b H W 3"], variant: Hashable = None) -> Result:
        """Return copies of maps and scores in CPU memory.

        Args:
            frames: RGB images in CPU memory.
            variant: Any other setting the work depends on, for example the precision; each has its own graphs.

        """
        key = (tuple(frames.shape), variant)
        with self._lock:
            self._calls += 1
            graph = self._graphs.get(key)
            if graph is None and self._should_capture(key):
                graph = self._capture(key, frames)
            if graph is None:
                return _to_cpu(self._work(frames.to(self._capturer.device)))
            self._graphs.move_to_end(key)
            graph.last_used = self._calls
            graph.frames.copy_(frames)
            graph.replay()
            return _to_cpu(graph.results)

    def _should_capture(self, key: Hashable) -> bool:
        """Whether to capture a shape now; an unseen shape is remembered, and an idle graph evicted if needed."""
        if self._disabled:
            return False
        if key not in self._seen:
            self._seen[key] = None
            if len(self._seen) > SEEN:
                self._seen.popitem(last=False)
            return False
        if len(self._graphs) < self._max_graphs:
            return True
        oldest = next(iter(self._graphs))
        if self._calls - self._graphs[oldest].last_used <= PATIENCE:
            return False
        del self._graphs[oldest]
        return True

    def _capture(self, key: Hashable, frames: Tensor) -> _Graph | None:
        """Capture a shape; on failure warn, return None and run eagerly from then on."""
        placed = frames.to(self._capturer.device)
        try:
            self._capturer.warm_up(lambda: self._work(placed))
            with collecting() as cached:
                replay, results = self._capturer.capture(lambda: self._work(placed))
        except RuntimeError as error:
            self._disabled = True
            reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
            warnings.warn(
                f"no CUDA graph can be captured on {self._capturer.device} ({reason}); predictions run without, slower",
                DeviceWarning,
                stacklevel=2,
            )
            return None
        graph = self._graphs[key] = _Graph(placed, replay, results, cached, self._calls)
        return graph


def _to_cpu(results: Result) -> Result:
    maps, scores = results
    return maps.to("cpu", copy=True), None if scores is None else scores.to("cpu", copy=True)
