"""How work is recorded and replayed, with a recorder that writes down what it is asked for."""

import contextlib
import inspect
import threading
import warnings

import pytest
import torch

from hyperspot.errors import DeviceWarning
from hyperspot.hardware.cached_tensors import cached_tensor, used
from hyperspot.hardware.cuda_graphs import PATIENCE, WARM_UPS, GraphedCallable, GraphRecorder

CPU = torch.device("cpu")


@cached_tensor
def ones(count: int, device: torch.device) -> torch.Tensor:
    return torch.ones(count, device=device)


class Tape:
    """Records on the CPU: a replay does the work again on what lies where the record reads."""

    def __init__(self, error: Exception | None = None) -> None:
        self.device = CPU
        self.error = error
        self.warmed: list[int] = []
        self.recorded: list[int] = []
        self.replayed: list[int] = []

    def warm_up(self, work):
        self.warmed.append(len(work()[0]))

    def record(self, work):
        if self.error is not None:
            raise self.error
        maps, scores = work()
        number = len(maps)
        self.recorded.append(number)

        def replay():
            self.replayed.append(number)
            again, scored = work()
            maps.copy_(again)
            if scores is not None:
                scores.copy_(scored)

        return replay, (maps, scores)


class Work:
    """Twice the pixels and their sum, and how often that was asked for in earnest."""

    def __init__(self, scored: bool = True) -> None:
        self.scored = scored
        self.calls = 0

    def __call__(self, frames):
        self.calls += 1
        maps = frames[..., 0].float() * 2 * ones(frames.shape[2], frames.device)
        return maps, maps.sum((1, 2)) if self.scored else None


def photos(batch: int, value: int, side: int = 4) -> torch.Tensor:
    return torch.full((batch, side, side, 3), value, dtype=torch.uint8)


def test_the_first_call_of_a_shape_is_computed_and_the_next_are_replayed():
    tape, work = Tape(), Work()
    judge = GraphedCallable(work, tape)
    for number, value in enumerate((1, 2, 3)):
        maps, scores = judge(photos(2, value))
        assert torch.equal(maps, torch.full((2, 4, 4), 2.0 * value))
        assert torch.equal(scores, torch.full((2,), 32.0 * value))
        assert len(tape.replayed) == number
    assert (tape.warmed, tape.recorded) == ([2], [2])


def test_results_are_copies_that_no_later_photo_changes():
    judge = GraphedCallable(Work(), Tape())
    results = [judge(photos(1, value)) for value in range(4)]
    for value, (maps, scores) in enumerate(results):
        assert float(maps[0, 0, 0]) == 2.0 * value
        assert float(scores[0]) == 32.0 * value


def test_a_method_without_a_score_of_its_own_has_none_when_replayed():
    judge = GraphedCallable(Work(scored=False), Tape())
    assert [judge(photos(1, 5))[1] for _ in range(3)] == [None] * 3


def test_each_shape_and_each_variant_has_a_record_of_its_own():
    tape = Tape()
    judge = GraphedCallable(Work(), tape)
    for _ in range(2):
        for batch in (1, 2):
            for variant in ("f32", "bf16"):
                judge(photos(batch, 1), variant)
    assert tape.recorded == [1, 1, 2, 2]
    assert judge(photos(2, 7), "bf16")[0].shape == (2, 4, 4)
    assert judge(photos(1, 7), "f32")[0].shape == (1, 4, 4)
    assert tape.replayed[-2:] == [2, 1]


def test_shapes_beyond_the_limit_are_computed_while_all_records_are_in_use():
    tape, work = Tape(), Work()
    judge = GraphedCallable(work, tape, most=2)
    for _ in range(5):
        for batch in (1, 2, 3):
            assert len(judge(photos(batch, 1))[0]) == batch
    assert tape.recorded == [1, 2]
    assert set(tape.replayed) == {1, 2}


def test_the_record_that_was_not_used_for_longest_makes_room():
    tape = Tape()
    judge = GraphedCallable(Work(), tape, most=2)
    for batch in (1, 1, 2, 2, 1):
        judge(photos(batch, 1))
    for _ in range(PATIENCE + 1):
        judge(photos(1, 1))
    for _ in range(2):
        judge(photos(3, 1))
    assert tape.recorded == [1, 2, 3]
    before = len(tape.replayed)
    judge(photos(1, 1))
    assert len(tape.replayed) == before + 1, "the one in use was kept"
    judge(photos(2, 1))
    assert len(tape.replayed) == before + 1, "the one not in use is gone"


def test_what_cannot_be_recorded_is_computed_and_warned_of_once():
    tape, work = Tape(RuntimeError("operation not permitted when stream is capturing\nand more")), Work()
    judge = GraphedCallable(work, tape)
    judge(photos(1, 1))
    with pytest.warns(DeviceWarning, match=r"recorded \(operation not permitted when stream is capturing\); it is"):
        maps, _ = judge(photos(1, 2))
    assert float(maps[0, 0, 0]) == 4.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for batch in (1, 1, 2, 2):
            judge(photos(batch, 3))
    assert tape.recorded == []


def test_a_fault_of_ours_is_not_taken_for_one_of_recording():
    judge = GraphedCallable(Work(), Tape(TypeError("a fault")))
    judge(photos(1, 1))
    with pytest.raises(TypeError, match="a fault"):
        judge(photos(1, 1))


def test_a_record_keeps_the_constants_that_it_reads():
    judge = GraphedCallable(Work(), Tape())
    for _ in range(2):
        judge(photos(1, 1, side=6))
    (record,) = judge._records.values()
    (kept,) = record.needed
    assert kept is ones(6, CPU)
    for count in range(100, 200):
        ones(count, CPU)
    assert kept is not ones(6, CPU), "the cache has let it go; the record has not"


def test_constants_are_told_to_whoever_asks_and_can_be_trained_with():
    with torch.inference_mode(), used() as outer:
        first = ones(7, CPU)
        with used() as inner:
            assert ones(7, CPU) is first
    assert [one is first for one in (*outer, *inner)] == [True, True]
    weight = torch.ones(7, requires_grad=True)
    (weight * first).sum().backward()
    assert torch.equal(weight.grad, torch.ones(7))


def test_threads_take_turns():
    judge = GraphedCallable(Work(), Tape())
    wrong: list[int] = []

    def ask(value: int) -> None:
        for _ in range(50):
            maps, scores = judge(photos(1, value))
            if float(maps[0, 0, 0]) != 2.0 * value or float(scores[0]) != 32.0 * value:
                wrong.append(value)

    threads = [threading.Thread(target=ask, args=(value,)) for value in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


class Stream:
    """A stream that writes down which other ones it waited for."""

    def __init__(self, device) -> None:
        self.waited_for = []

    def wait_stream(self, other):
        self.waited_for.append(other)


@pytest.fixture
def cuda(monkeypatch):
    """Stand in for torch's streams and graphs; gives the usual stream, and all that were current in turn."""
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
        # As torch does: an error leaves the stream as it is.
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


def test_a_record_is_taken_on_a_stream_of_its_own_which_waits_and_is_waited_for(cuda):
    usual, here = cuda
    recorder = GraphRecorder(CPU)
    seen = []
    recorder.warm_up(lambda: seen.append(here[-1]))
    assert seen == [recorder._stream] * WARM_UPS
    assert recorder._stream.waited_for == [usual]
    assert usual.waited_for == [recorder._stream]

    def work():
        seen.append(here[-1])
        return torch.zeros(1, 2, 2), None

    recorder.record(work)
    assert seen[WARM_UPS:] == [recorder._stream]
    assert here[-1] is usual

    def waits():
        raise RuntimeError("not permitted")

    with pytest.raises(RuntimeError, match="not permitted"):
        recorder.record(waits)
    assert here[-1] is usual
