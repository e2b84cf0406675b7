"""The compiled search gives the neighbors that differences in float64 give, in every instruction set of this CPU."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hyperspot.features.neighbors import Memory, nearest_centered, principal_axes
from hyperspot.features.patches import sum_levels
from hyperspot.hardware import native

needs_library = pytest.mark.skipif(not native.LIBRARY.exists(), reason="no C compiler when the package was built")
needs_cpu = pytest.mark.skipif(not native.level(), reason="no compiled search, or no AVX2 here")


def exact(queries: np.ndarray, bank: np.ndarray, k: int) -> np.ndarray:
    differences = queries.astype(np.float64)[:, None] - bank.astype(np.float64)
    return np.sort((differences**2).sum(2), axis=1)[:, :k]


@pytest.fixture(params=range(1, len(native.LEVELS)), ids=native.LEVELS[1:])
def instruction_set(request, monkeypatch):
    if request.param > native.level():
        pytest.skip(f"this CPU has no {native.LEVELS[request.param]}, or nothing was compiled")
    monkeypatch.setattr(native, "level", lambda: request.param)


def test_it_was_compiled_where_a_compiler_is():
    from shutil import which

    if os.name != "posix" or not any(map(which, ("cc", "gcc", "clang"))):
        pytest.skip("no C compiler here")
    assert native.LIBRARY.exists(), "install the package anew: its build compiles the search"


@pytest.mark.parametrize(("size", "channels", "k"), [(1, 1, 1), (3, 5, 3), (64, 32, 3), (65, 33, 2), (1000, 200, 3)])
def test_neighbors_in_every_instruction_set(instruction_set, size, channels, k):
    generator = np.random.default_rng(size)
    bank = generator.normal(size=(size, channels)).astype(np.float32)
    bank -= bank.mean(0)
    queries = generator.normal(size=(197, channels)).astype(np.float32)
    distances, columns = native.pack(bank).nearest(queries, k, threads=2)
    expected = exact(queries, bank, k)
    np.testing.assert_allclose(distances, expected, rtol=1e-5, atol=1e-6)
    found = ((queries[:, None].astype(np.float64) - bank[columns]) ** 2).sum(2)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    assert all(len(set(row)) == k for row in columns.tolist())


@needs_cpu
@settings(deadline=None, max_examples=40)
@given(st.integers(1, 400), st.integers(1, 70), st.integers(0, 200), st.integers(1, 3), st.integers(1, 5))
def test_any_shape_and_any_number_of_threads(size, channels, count, k, threads):
    generator = np.random.default_rng(size * 1000 + channels)
    bank = generator.normal(size=(size, channels)).astype(np.float32)
    queries = generator.normal(size=(count, channels)).astype(np.float32)
    k = min(k, size)
    distances, _ = native.pack(bank).nearest(queries, k, threads)
    np.testing.assert_allclose(distances, exact(queries, bank, k), rtol=1e-5, atol=1e-5)


def test_what_tells_vectors_apart_may_lie_in_weak_channels(instruction_set):
    # One channel dwarfs all others and says nothing: what bf16 loses of it is more than what the others hold.
    generator = np.random.default_rng(0)
    bank = generator.normal(size=(500, 40)).astype(np.float32)
    bank[:, 0] = 300 + generator.normal(size=500)
    center = bank.mean(0)
    queries = generator.normal(size=(300, 40)).astype(np.float32) - center
    queries[:, 0] = generator.normal(size=300) + 60
    distances, _ = native.pack(bank - center).nearest(queries, 3, threads=1)
    np.testing.assert_allclose(distances, exact(queries, bank - center, 3), rtol=1e-5)


@needs_cpu
def test_twins_are_found_once_each():
    bank = np.repeat(np.eye(4, dtype=np.float32), 10, axis=0)
    distances, columns = native.pack(bank).nearest(bank, 3, threads=1)
    assert not distances.any()
    assert (columns // 10 == np.arange(40)[:, None] // 10).all()
    assert all(len(set(row)) == 3 for row in columns.tolist())


@needs_cpu
def test_a_pyramid_is_summed_as_torch_sums_it(instruction_set):
    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(300, 24, generator=generator)
    bank -= bank.mean(0)
    levels = [torch.randn(*size, 24, generator=generator) for size in ((12, 18), (6, 9), (3, 5))]
    affine = torch.randn(3, 24, generator=generator)
    tokens = sum_levels([level[None] for level in levels], affine)[0]
    distances, _ = Memory(bank, bank.square().sum(1)).nearest_in_pyramid(levels, affine, 3)
    np.testing.assert_allclose(distances, exact(tokens.numpy(), bank.numpy(), 3), rtol=1e-4, atol=1e-5)


@needs_cpu
def test_wrong_numbers_of_neighbors_are_refused():
    packed = native.pack(np.eye(2, dtype=np.float32))
    for k in (0, 3, 4):
        with pytest.raises(ValueError, match="neighbors"):
            packed.nearest(np.zeros((1, 2), np.float32), k, 1)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_what_is_no_number_is_no_neighbor_and_no_crash(instruction_set, bad):
    generator = np.random.default_rng(0)
    bank = generator.normal(size=(300, 40)).astype(np.float32)
    queries = generator.normal(size=(200, 40)).astype(np.float32)
    expected, _ = native.pack(bank).nearest(queries, 3, threads=2)
    bad_queries = queries.copy()
    bad_queries[::2] *= np.float32(bad)
    for _ in range(20):
        distances, columns = native.pack(bank).nearest(bad_queries, 3, threads=2)
        np.testing.assert_array_equal(distances[1::2], expected[1::2])
        assert not np.isfinite(distances[::2]).any()
        assert ((columns >= 0) & (columns < 300)).all()
    with np.errstate(all="ignore"):
        distances, columns = native.pack(np.full_like(bank, bad)).nearest(queries, 3, threads=2)
    assert not np.isfinite(distances).any()
    assert ((columns >= 0) & (columns < 300)).all()


@needs_cpu
def test_queries_of_other_channels_are_refused():
    packed = native.pack(np.eye(40, dtype=np.float32))
    fine, affine = np.zeros((4, 4, 40), np.float32), np.zeros((3, 40), np.float32)
    with pytest.raises(ValueError, match="40 channels"):
        packed.nearest(np.zeros((5, 39), np.float32), 1, 1)
    with pytest.raises(ValueError, match="40 channels"):
        packed.nearest_in_pyramid([fine[..., :39]], affine[:, :39], 1, 1)
    with pytest.raises(ValueError, match="empty"):
        packed.nearest_in_pyramid([fine, np.zeros((0, 2, 40), np.float32)], affine, 1, 1)


@needs_library
def test_the_switch_turns_it_off():
    code = "from hyperspot.hardware import native; print(native.level())"
    environment = {**os.environ, native.SWITCH: "none"}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "0"


def test_without_the_library_matrix_products_serve(monkeypatch):
    monkeypatch.setattr(native, "level", lambda: 0)
    bank = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    queries = torch.randn(50, 8, generator=torch.Generator().manual_seed(1))
    squares = bank.square().sum(1)
    found = Memory(bank, squares).nearest(queries, 3)
    torch.testing.assert_close(found, nearest_centered(queries, bank, squares, 3))


def test_principal_axes_keep_distances_and_put_the_variance_first():
    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(200, 12, generator=generator) @ torch.randn(12, 12, generator=generator)
    axes = principal_axes(bank)
    torch.testing.assert_close(torch.cdist(bank @ axes, bank @ axes), torch.cdist(bank, bank), rtol=1e-4, atol=1e-2)
    variances = (bank @ axes).square().sum(0)
    assert (variances[:-1] >= variances[1:]).all()
