import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hyperspot.features.clustering import k_means
from hyperspot.features.neighbors import PACKING_PAYS, Prepared, Search, nearest, nearest_distances, smallest


@given(st.integers(1, 9), st.integers(1, 3000), st.integers(1, 6), st.integers(0, 99))
def test_smallest_is_the_sorted_start_of_each_row(rows, columns, k, seed):
    k = min(k, columns)
    values = torch.randint(-50, 50, (rows, columns), generator=torch.Generator().manual_seed(seed)).float()
    best, where = smallest(values, k)
    assert torch.equal(best, values.sort(1).values[:, :k])
    assert torch.equal(values.gather(1, where), best)
    assert all(len(set(row.tolist())) == k for row in where)


@pytest.mark.parametrize(("count", "k"), [(90, 5), (PACKING_PAYS, 3)])
def test_neighbors_are_those_of_float64_differences(count: int, k: int):
    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(700, 33, generator=generator) + 40
    queries = torch.randn(count, 33, generator=generator) + 40
    found, where = nearest(queries, bank, k)
    exact = torch.cdist(queries.double(), bank.double(), compute_mode="donot_use_mm_for_euclid_dist").square()
    expected = exact.sort(1)
    torch.testing.assert_close(found.double(), expected.values[:, :k], rtol=1e-4, atol=1e-3)
    assert (where == expected.indices[:, :k]).float().mean() > 0.99


def test_a_vector_of_the_bank_is_at_distance_zero_not_below():
    bank = torch.randn(300, 64, generator=torch.Generator().manual_seed(2)) * 100 + 1000
    found, where = nearest(bank, bank, 1)
    assert (found >= 0).all()
    assert torch.equal(where[:, 0], torch.arange(300))


def test_too_few_vectors_are_refused():
    with pytest.raises(ValueError, match="4 neighbors in a bank of 3"):
        nearest(torch.zeros(1, 2), torch.zeros(3, 2), 4)


def test_gradient_through_the_neighbors():
    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(40, 6, dtype=torch.float64, generator=generator)
    queries = torch.randn(9, 6, dtype=torch.float64, generator=generator, requires_grad=True)
    squares = bank.square().sum(1)
    assert torch.autograd.gradcheck(lambda q: nearest_distances(q, bank, squares, 4), queries)


def test_k_means_finds_the_groups_and_bears_duplicates():
    generator = torch.Generator().manual_seed(0)
    centers = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    points = centers.repeat_interleave(50, 0) + torch.randn(150, 2, generator=generator) * 0.1
    means = points.unflatten(0, (3, 50)).mean(1)
    # k-means++; and one iteration from a point of each group.
    for found in (k_means(points, 3, seed=1), k_means(points, 3, start=points[[7, 60, 120]], iterations=1)):
        assert torch.cdist(means, found).amin(1).max() < 1e-5
    assert torch.equal(k_means(points, 3, seed=1), k_means(points, 3, seed=1))
    same = k_means(torch.ones(10, 2), 4)
    assert torch.equal(same, torch.ones(4, 2))
    assert k_means(points, 150) is points


def test_a_bank_is_made_ready_once_and_anew_for_another():
    prepared = Prepared()
    first, second = (torch.randn(9, 4, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1))
    memory = prepared.memory(first, first.square().sum(1))
    assert prepared.memory(first, first.square().sum(1)) is memory
    other = prepared.memory(second, second.square().sum(1))
    assert other.bank is second
    assert int(other.nearest(second[3:4], 1)[1]) == 3


def test_a_copy_of_a_method_prepares_its_own_bank():
    bank = torch.randn(40, 8, generator=torch.Generator().manual_seed(0))
    search = Search()
    squares = bank.square().sum(1)
    found = search([bank[None, :, None]], torch.zeros(3, 8), bank, squares, 2)
    again = copy.deepcopy(search)
    assert again._prepared._memory is None
    torch.testing.assert_close(again([bank[None, :, None]], torch.zeros(3, 8), bank, squares, 2), found)
