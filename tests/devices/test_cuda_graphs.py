"""Capture, replay and eviction of graphs, with a capturer that logs its calls."""

import contextlib
import inspect
import threading
import warnings

import pytest
import torch

from hyperspot.errors import DeviceWarning
from hyperspot.hardware.cached_tensors import cached_tensor, collecting
from hyperspot.hardware.cuda_graphs import PATIENCE, WARM_UPS, GraphCapturer, GraphedCallable

CPU = torch.device("cpu")


@cached_tensor
def ones(count: int, device: torch.device) -> torch.Tensor:
    return torch.ones(count, device=device)


class Log:
    """A capturer on the CPU: a replay runs the work again on the same input tensor."""

    def __init__(self, error: Exception | None = None) -> None:
        self.device = CPU
        self.error = error
        self.warmed: list[int] = []
        self.captured: list[int] = []
        self.replayed: list[int] = []

    def warm_up(self, work):
        self.warmed.append(len(work()[0]))

    def capture(self, work):
        if self.error is not None:
            raise self.error
        maps, scores = work()
        number = len(maps)
        self.captured.append(number)

        def replay():
            self.replayed.append(number)
            again, scored = work()
            maps.copy_(again)
            if scores is not None:
                scores.copy_(scored)

        return replay, (maps, scores)


class Work:
    """Twice the pixels and their sum, and the number of calls."""

    def __init__(self, scored: bool = True) -> None:
        self.scored = scored
        self.calls = 0

    def __call__(self, frames):
        self.calls += 1
        maps = frames[..., 0].float() * 2 * ones(frames.shape[2], frames.device)
        return maps, maps.sum((1, 2)) if self.scored else None


def images(batch: int, value: int, side: int = 4) -> torch.Tensor:
    return torch.full((batch, side, side, 3), value, dtype=torch.uint8)


def test_the_first_call_of_a_shape_is_eager_and_the_next_are_replays():
    log, work = Log(), Work()
    graphed = GraphedCallable(work, log)
    for number, value in enumerate((1, 2, 3)):
        maps, scores = graphed(images(2, value))
        assert torch.equal(maps, torch.full((2, 4, 4), 2.0 * value))
        assert torch.equal(scores, torch.full((2,), 32.0 * value))
        assert len(log.replayed) == number
    assert (log.warmed, log.captured) == ([2], [2])


def test_results_are_copies():
    graphed = GraphedCallable(Work(), Log())
    results = [graphed(images(1, value)) for value in range(4)]
    for value, (maps, scores) in enumerate(results):
        assert float(maps[0, 0, 0]) == 2.0 * value
        assert float(scores[0]) == 32.0 * value


def test_a_method_without_an_image_score_has_none_when_replayed():
    graphed = GraphedCallable(Work(scored=False), Log())
    assert [graphed(images(1, 5))[1] for _ in range(3)] == [None] * 3


def test_each_shape_and_each_variant_has_its_graph():
    log = Log()
    graphed = GraphedCallable(Work(), log)
    for _ in range(2):
        for batch in (1, 2):
            for variant in ("f32", "bf16"):
                graphed(images(batch, 1), variant)
    assert log.captured == [1, 1, 2, 2]
    assert graphed(images(2, 7), "bf16")[0].shape == (2, 4, 4)
    assert graphed(images(1, 7), "f32")[0].shape == (1, 4, 4)
    assert log.replayed[-2:] == [2, 1]


def test_shapes_beyond_the_limit_are_eager_while_all_graphs_are_in_use():
    log, work = Log(), Work()
    graphed = GraphedCallable(work, log, max_graphs=2)
    for _ in range(5):
        for batch in (1, 2, 3):
            assert len(graphed(images(batch, 1))[0]) == batch
    assert log.captured == [1, 2]
    assert set(log.replayed) == {1, 2}


def test_an_idle_graph_is_evicted():
    log = Log()
    graphed = GraphedCallable(Work(), log, max_graphs=2)
    for batch in (1, 1, 2, 2, 1):
        graphed(images(batch, 1))
    for _ in range(PATIENCE + 1):
        graphed(images(1, 1))
    for _ in range(2):
        graphed(images(3, 1))
    assert log.captured == [1, 2, 3]
    before = len(log.replayed)
    graphed(images(1, 1))
    assert len(log.replayed) == before + 1, "the graph in use was kept"
    graphed(images(2, 1))
    assert len(log.replayed) == before + 1, "the idle graph was evicted"


def test_a_failed_capture_falls_back_to_eager_with_one_warning():
    log, work = Log(RuntimeError("operation not permitted when stream is capturing\nand more")), Work()
    graphed = GraphedCallable(work, log)
    graphed(images(1, 1))
    with pytest.warns(
        DeviceWarning, match=r"captured on cpu \(operation not permitted when stream is capturing\); predictions run"
    ):
        maps, _ = graphed(images(1, 2))
    assert float(maps[0, 0, 0]) == 4.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for batch in (1, 1, 2, 2):
            graphed(images(batch, 3))
    assert log.captured == []


def test_other_errors_are_raised():
    graphed = GraphedCallable(Work(), Log(TypeError("a fault")))
    graphed(images(1, 1))
    with pytest.raises(TypeError, match="a fault"):
        graphed(images(1, 1))


def test_a_graph_keeps_the_cached_tensors_it_reads():
    graphed = GraphedCallable(Work(), Log())
    for _ in range(2):
        graphed(images(1, 1, side=6))
    (graph,) = graphed._graphs.values()
    (kept,) = graph.cached
    assert kept is ones(6, CPU)
    for count in range(100, 200):
        ones(count, CPU)
    assert kept is not ones(6, CPU), "evicted from the cache, but kept by the graph"


def test_cached_tensors_are_collected_and_usable_in_training():
    with torch.inference_mode(), collecting() as outer:
        first = ones(7, CPU)
        with collecting() as inner:
            assert ones(7, CPU) is first
    assert [one is first for one in (*outer, *inner)] == [True, True]
    weight = torch.ones(7, requires_grad=True)
    (weight * first).sum().backward()
    assert torch.equal(weight.grad, torch.ones(7))


def test_it_is_thread_safe():
    graphed = GraphedCallable(Work(), Log())
    wrong: list[int] = []

    def ask(value: int) -> None:
        for _ in range(50):
            maps, scores = graphed(images(1, value))
            if float(maps[0, 0, 0]) != 2.0 * value or float(scores[0]) != 32.0 * value:
                wrong.append(value)

    threads = [threading.Thread(target=ask, args=(value,)) for value in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


class Stream:
    """A stream that logs the streams it waited for."""

    def __init__(self, device) -> None:
        self.waited_for = []

    def wait_stream(self, other):
        self.waited_for.append(other)


@pytest.fixture
def cuda(monkeypatch):
    """Replace torch's streams and graphs; return the default stream and the list of current streams over time."""
    usual, capture = Stream(CPU), inspect.signature(torch.cuda.graph)
    here = [usual]

    @contextlib.contextmanager
    def on(stream):
        here.append(stream)
        yield
        here.append(usual)

    @contextlib.contextmanager
    def graph(*arguments, **options):
        asked = capture.bind(*arguments, **options).arguments
        assert asked["capture_error_mode"] in ("thread_local", "global", "relaxed")
        here.append(asked["stream"])
        # As in torch, an error does not restore the stream.
        yield
        here.append(usual)

    class Graph:
        def replay(self):
            pass

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: here[-1])
    monkeypatch.setattr(torch.cuda, "set_stream", here.append)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "graph", graph)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    return usual, here


def test_a_capture_uses_a_separate_synchronized_stream(cuda):
    usual, here = cuda
    capturer = GraphCapturer(CPU)
    seen = []
    capturer.warm_up(lambda: seen.append(here[-1]))
    assert seen == [capturer._stream] * WARM_UPS
    assert capturer._stream.waited_for == [usual]
    assert usual.waited_for == [capturer._stream]

    def work():
        seen.append(here[-1])
        return torch.zeros(1, 2, 2), None

    capturer.capture(work)
    assert seen[WARM_UPS:] == [capturer._stream]
    assert here[-1] is usual

    def waits():
        raise RuntimeError("not permitted")

    with pytest.raises(RuntimeError, match="not permitted"):
        capturer.capture(waits)
    assert here[-1] is usual
