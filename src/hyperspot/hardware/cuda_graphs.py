"""Work on a GPU that is recorded once for each shape and then replayed (CUDA graphs).

A heatmap takes some hundred small pieces of work, and to start them one by one from Python takes longer than most of
them last. A record starts them all at once. It reads and writes the same places in memory each time, so photos are
copied to where it reads, and results away from where it writes.
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
from hyperspot.hardware import cached_tensors as constants

MOST_RECORDS = 8
"""Shapes that are recorded at a time: each record keeps the memory of a whole pass."""
PATIENCE = 64
"""Calls for which a record that is not used is kept all the same, so that shapes that take turns drive none out."""
WARM_UPS = 3
"""Passes before a record, in which libraries choose their algorithms and take their memory (torch's own custom)."""
SEEN = 256
"""Shapes that are remembered as met once."""

Result = tuple[Float[Tensor, "b H W"], Float[Tensor, "b"] | None]
Pass = Callable[[UInt8[Tensor, "b H W 3"]], Result]


@runtime_checkable
class Recorder(Protocol):
    """What takes a record of work on a device; a test stands something of its own in its place."""

    device: torch.device

    def warm_up(self, work: Callable[[], Any]) -> None:
        """Do the work a few times, apart from all else on the device."""
        ...

    def record(self, work: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
        """Return what does the work again, and where it leaves its results."""
        ...


class GraphRecorder:
    """Takes records as CUDA graphs, on a stream of its own."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)

    def warm_up(self, work: Callable[[], Any]) -> None:
        """Do the work on the stream that records, after all that was asked of the device before."""
        usual = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(usual)
        with torch.cuda.stream(self._stream):
            for _ in range(WARM_UPS):
                work()
        usual.wait_stream(self._stream)

    def record(self, work: Callable[[], Result]) -> tuple[Callable[[], None], Result]:
        """Record the work; nothing is computed yet. Raises RuntimeError where it waits for the device in between."""
        graph = torch.cuda.CUDAGraph()
        usual = torch.cuda.current_stream(self.device)
        try:
            # What other threads do with the device meanwhile is their own affair.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                results = work()
        finally:
            # Where recording fails torch stays on the stream of the record.
            torch.cuda.set_stream(usual)
        return graph.replay, results


@dataclass
class _Record:
    """Recorded work, where it reads and writes, and what else it needs; `last_used` counts calls."""

    frames: Tensor
    replay: Callable[[], None]
    results: Result
    needed: list[Tensor]
    last_used: int


class GraphedCallable:
    """A pass over frames on a device, replayed for the shapes that come again.

    A shape that is met for the first time is computed as it is, because a record takes several passes. So is one
    beyond `most` while all records are in use; the one that has not been used for longest, and not for `PATIENCE`
    calls, makes room. Threads take turns.

    Args:
        work: The pass, from frames on the device to maps and scores on the device.
        recorder: Takes the records.
        most: Records kept at a time.

    """

    def __init__(self, work: Pass, recorder: Recorder, *, most: int = MOST_RECORDS) -> None:
        self._work, self._recorder, self._most = work, recorder, most
        self._records: OrderedDict[Hashable, _Record] = OrderedDict()
        self._seen: OrderedDict[Hashable, None] = OrderedDict()
        self._calls = 0
        self._off = False
        self._turn = threading.Lock()

    def __call__(self, frames: UInt8[Tensor, "b H W 3"], variant: Hashable = None) -> Result:
        """Return maps and scores in the memory of the CPU, a copy of their own.

        Args:
            frames: In the memory of the CPU.
            variant: What else decides the work, such as a number format: each has records of its own.

        """
        key = (tuple(frames.shape), variant)
        with self._turn:
            self._calls += 1
            record = self._records.get(key)
            if record is None and self._is_due(key):
                record = self._recorded(key, frames)
            if record is None:
                return _fetched(self._work(frames.to(self._recorder.device)))
            self._records.move_to_end(key)
            record.last_used = self._calls
            record.frames.copy_(frames)
            record.replay()
            return _fetched(record.results)

    def _is_due(self, key: Hashable) -> bool:
        """Whether a shape is to be recorded now; one that is not seen before is remembered."""
        if self._off:
            return False
        if key not in self._seen:
            self._seen[key] = None
            if len(self._seen) > SEEN:
                self._seen.popitem(last=False)
            return False
        if len(self._records) < self._most:
            return True
        oldest = next(iter(self._records))
        if self._calls - self._records[oldest].last_used <= PATIENCE:
            return False
        del self._records[oldest]
        return True

    def _recorded(self, key: Hashable, frames: Tensor) -> _Record | None:
        """Record a shape; where that fails all is computed as it is from then on, and a warning says so."""
        placed = frames.to(self._recorder.device)
        try:
            self._recorder.warm_up(lambda: self._work(placed))
            with constants.used() as needed:
                replay, results = self._recorder.record(lambda: self._work(placed))
        except RuntimeError as error:
            self._off = True
            reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
            warnings.warn(
                f"the work on {self._recorder.device} cannot be recorded ({reason}); it is done step by step, slower",
                DeviceWarning,
                stacklevel=2,
            )
            return None
        record = self._records[key] = _Record(placed, replay, results, needed, self._calls)
        return record


def _fetched(results: Result) -> Result:
    maps, scores = results
    return maps.to("cpu", copy=True), None if scores is None else scores.to("cpu", copy=True)
