"""Results come in order, as soon as they are ready, a bounded number ahead."""

import itertools
import threading
import time

import pytest

from hyperspot.utils.prefetch import latest, prefetch_batches, prefetch_map


def test_order_is_kept_whatever_takes_longest():
    def slow_first(number):
        time.sleep(0.05 if number == 0 else 0)
        return number

    assert list(prefetch_map(slow_first, range(20))) == list(range(20))


def test_a_result_does_not_wait_for_the_next_item():
    asked = threading.Event()

    def items():
        yield 1
        # The consumer has the first result before it lets the source go on.
        assert asked.wait(10)
        yield 2

    results = prefetch_map(lambda number: -number, items())
    assert next(results) == -1
    asked.set()
    assert list(results) == [-2]


def test_no_more_is_taken_than_the_bound():
    taken = []

    def items():
        for number in itertools.count():
            taken.append(number)
            yield number

    results = prefetch_map(str, items())
    assert next(results) == "0"
    time.sleep(0.2)
    assert len(taken) < 40
    results.close()
    time.sleep(0.2)
    count = len(taken)
    time.sleep(0.2)
    assert len(taken) == count


def test_batches_are_full_where_the_consumer_is_slow():
    sizes = []
    for batch in prefetch_batches(int, range(17), 4):
        time.sleep(0.05)
        sizes.append(len(batch))
    assert sum(sizes) == 17
    assert sizes.count(4) >= 3
    with pytest.raises(ValueError, match="at least 1"):
        next(prefetch_batches(int, [1], 0))


def test_errors_come_in_their_place():
    def inverse(number):
        return 1 / number

    results = prefetch_batches(inverse, [1, 2, 0, 4], 4)
    before = []

    def consume():
        for batch in results:
            before.extend(batch)

    with pytest.raises(ZeroDivisionError):
        consume()
    assert before == [1.0, 0.5]

    def broken():
        yield 1
        raise OSError("the share is gone")

    results = prefetch_map(inverse, broken())
    assert next(results) == 1.0
    with pytest.raises(OSError, match="the share is gone"):
        next(results)


def test_latest_gives_the_newest_and_passes_errors_on():
    go = threading.Event()

    def camera():
        yield 0
        go.wait(10)
        yield from range(1, 50)

    frames = latest(camera())
    assert next(frames) == 0
    go.set()
    time.sleep(0.3)
    assert list(frames) == [49]

    def failing():
        yield 0
        raise OSError("unplugged")

    with pytest.raises(OSError, match="unplugged"):
        list(latest(failing()))


def test_without_working_ahead_one_result_is_made_at_a_time():
    made = []

    def remember(number):
        made.append(number)
        return number

    results = prefetch_map(remember, range(5), ahead=False)
    assert next(results) == 0
    assert made == [0]
    assert list(prefetch_batches(remember, range(3), 8, ahead=False)) == [[0], [1], [2]]
