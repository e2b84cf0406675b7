"""Exact nearest neighbors in a memory bank, as chunked matrix products.

‖a - c‖² = ‖a‖² + (‖c‖² - 2 a·c): ‖c‖² is added by the matrix product; ‖a‖² does not change the order of the neighbors
and is added only for the results. No matrix of all pairs is stored. The mean of the bank is first subtracted from both
sides, which removes most of the cancellation. The k smallest of a row are found by blocks: the k blocks with the
smallest minima contain them all. The compiled search of `hardware.native`, if it was built, does the same in one pass,
for up to three neighbors.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from hyperspot.features.patches import sum_levels
from hyperspot.hardware import native

CHUNK_ELEMENTS = 1_500_000
"""Distances per chunk: 6 MB, which fits the cache of a core."""
PACKING_PAYS = 4096
"""Minimum number of queries for which packing a bank pays off if it is searched only once: packing takes as long as the
matrix products for so many queries, for any size of the bank."""


def smallest(rows: Float[Tensor, "n m"], k: int) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """Return the k smallest values of each row, ascending, and their columns."""
    n, m = rows.shape
    block = 2 ** round(math.log2(max(m, 1)) / 2)
    if m < 256 or m // block <= 2 * k:
        return torch.topk(rows, k, dim=1, largest=False)
    whole = m // block * block
    blocks = rows[:, :whole].unflatten(1, (-1, block))
    minima = blocks.amin(2)
    nearest_blocks = torch.topk(minima, k, dim=1, largest=False, sorted=False).indices
    values = torch.gather(blocks, 1, nearest_blocks[:, :, None].expand(n, k, block)).flatten(1)
    columns = (nearest_blocks[:, :, None] * block + torch.arange(block, device=rows.device)).flatten(1)
    if whole < m:
        values = torch.cat([values, rows[:, whole:]], dim=1)
        rest = torch.arange(whole, m, device=rows.device).expand(n, m - whole)
        columns = torch.cat([columns, rest], dim=1)
    best, among = torch.topk(values, k, dim=1, largest=False)
    return best, torch.gather(columns, 1, among)


def nearest_centered(
    queries: Float[Tensor, "n d"], bank: Float[Tensor, "m d"], squares: Float[Tensor, "m"], k: int
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """Return squared distances (ascending, at least 0) to the k nearest vectors, and their indices.

    `squares` are the squared norms of the bank. Subtract the mean of the bank from both sides first, as `nearest` does,
    so that few digits are lost.
    """
    rows = max(16, CHUNK_ELEMENTS // bank.shape[0])
    transposed = bank.T
    distances, columns = [], []
    # The number of rows grows with the batch, which is dynamic in an exported graph.
    for chunk in [queries] if torch.compiler.is_exporting() else queries.split(rows):
        best, found = smallest(torch.addmm(squares, chunk, transposed, alpha=-2), k)
        distances.append(best + chunk.square().sum(1, keepdim=True))
        columns.append(found)
    return torch.cat(distances).clamp_(min=0), torch.cat(columns)


class Memory:
    """A centered bank, packed for repeated searches.

    Attributes:
        bank: The vectors, minus their mean.
        squares: Their squared norms.

    """

    def __init__(self, bank: Float[Tensor, "m d"], squares: Float[Tensor, "m"]) -> None:
        self.bank, self.squares = bank, squares
        self._packed: native.PackedBank | None = None
        if native.level() and bank.device.type == "cpu" and bank.dtype == torch.float32:
            self._packed = native.pack(bank.detach().numpy())

    def nearest(self, queries: Float[Tensor, "n d"], k: int) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
        """Return squared distances (ascending, at least 0) to the k nearest vectors, and their indices."""
        if self._packed is None or not self._compiled(queries, k):
            return nearest_centered(queries, self.bank, self.squares, k)
        distances, columns = self._packed.nearest(queries.detach().numpy(), k, torch.get_num_threads())
        return torch.from_numpy(distances), torch.from_numpy(columns)

    def nearest_in_pyramid(
        self, levels: Sequence[Float[Tensor, "_h _w d"]], affine: Float[Tensor, "3 d"], k: int
    ) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
        """Return the same for each position of a pyramid, whose vectors are those of `patches.sum_levels`."""
        if self._packed is None or not self._compiled(levels[0], k):
            return self.nearest(sum_levels([level[None] for level in levels], affine)[0], k)
        arrays = [level.detach().numpy() for level in levels]
        distances, columns = self._packed.nearest_in_pyramid(
            arrays, affine.detach().numpy(), k, torch.get_num_threads()
        )
        return torch.from_numpy(distances), torch.from_numpy(columns)

    def _compiled(self, queries: Tensor, k: int) -> bool:
        return k <= native.MOST_NEIGHBORS and queries.dtype == torch.float32 and queries.device.type == "cpu"


@dataclass(frozen=True)
class Exchange:
    """Vectors that leave a centered bank, and others in their place.

    Attributes:
        excluded: Vectors of the bank that leave.
        added: Vectors beside the others; they are numbered from the size of the bank on.

    """

    excluded: Bool[Tensor, "m"]
    added: Float[Tensor, "_e d"]

    @property
    def size(self) -> int:
        """Number of vectors after the exchange."""
        return int((~self.excluded).sum()) + len(self.added)

    def nearest(
        self,
        found: tuple[Float[Tensor, "n w"], Int[Tensor, "n w"]],
        queries: Float[Tensor, "n d"],
        bank: Float[Tensor, "m d"],
        squares: Float[Tensor, "m"],
        k: int,
    ) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
        """Return the k nearest vectors of each query after the exchange.

        The bank is searched again only for queries that lose too many of those found, so that one search of the whole
        bank serves several exchanges.

        Args:
            found: The w nearest vectors of the whole bank, w at least k or all: squared distances and indices.
            queries: Minus the center of the bank.
            bank: The centered vectors.
            squares: Their squared norms.
            k: At most `size`.

        """
        parts = []
        stay = min(k, int((~self.excluded).sum()))
        if stay:
            gone = self.excluded[found[1]]
            first = gone.long().argsort(dim=1, stable=True)[:, :stay]
            distances, columns = (one.gather(1, first) for one in found)
            again = gone.gather(1, first).any(1).nonzero()[:, 0]
            if len(again):
                masked = squares.masked_fill(self.excluded, torch.inf)
                distances[again], columns[again] = nearest_centered(queries[again], bank, masked, stay)
            parts.append((distances, columns))
        if len(self.added):
            wanted = min(k, len(self.added))
            near, which = nearest_centered(queries, self.added, self.added.square().sum(1), wanted)
            parts.append((near, which + len(bank)))
        distances, columns = (torch.cat(part, dim=1) for part in zip(*parts, strict=True))
        best, among = torch.topk(distances, k, dim=1, largest=False)
        return best, columns.gather(1, among)


class Prepared:
    """Cache of the packed bank: packed at the first search, and again if the bank changes."""

    def __init__(self) -> None:
        self._memory: Memory | None = None

    def memory(self, bank: Float[Tensor, "m d"], squares: Float[Tensor, "m"]) -> Memory:
        """Return the packed bank; it is reused while the bank is the same tensor."""
        if self._memory is None or self._memory.bank is not bank:
            self._memory = Memory(bank, squares)
        return self._memory

    def __deepcopy__(self, _memo: dict[int, Any]) -> "Prepared":
        """Return an empty cache: a packed bank belongs to its tensor."""
        return Prepared()


class Search(nn.Module):
    """The search for each position of a pyramid.

    A separate module, so that its bounds are visible in an exported graph and an engine can replace it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._prepared = Prepared()

    def forward(
        self,
        levels: list[Tensor],
        affine: Float[Tensor, "3 d"],
        bank: Float[Tensor, "m d"],
        squares: Float[Tensor, "m"],
        k: int,
    ) -> Float[Tensor, "n k"]:
        """Return squared distances (ascending) for each position of each image; `levels` as in `patches.sum_levels`."""
        if torch.compiler.is_exporting():
            return nearest_centered(sum_levels(levels, affine).flatten(0, 1), bank, squares, k)[0]
        return self.nearest(levels, affine, bank, squares, k)[0]

    def nearest(
        self,
        levels: list[Tensor],
        affine: Float[Tensor, "3 d"],
        bank: Float[Tensor, "m d"],
        squares: Float[Tensor, "m"],
        k: int,
    ) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
        """Return the same as `forward`, and the indices of the vectors."""
        # Image by image, so that the batch size changes no bit of a result.
        search = self._prepared.memory(bank, squares).nearest_in_pyramid
        distances, columns = zip(*(search(image, affine, k) for image in zip(*levels, strict=True)), strict=True)
        return torch.cat(distances), torch.cat(columns)


def principal_axes(bank: Float[Tensor, "m d"]) -> Float[Tensor, "d d"]:
    """Return the principal axes of a bank, sorted by descending variance.

    Distances are the same in every orthonormal basis; in this one few channels separate most vectors.
    """
    axes: Tensor = torch.linalg.eigh(bank.double().T @ bank.double()).eigenvectors
    return axes.flip(1).to(bank.dtype)


def nearest(
    queries: Float[Tensor, "n d"], bank: Float[Tensor, "m d"], k: int
) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """Return squared distances (ascending, at least 0) to the k nearest vectors of a bank, and their indices.

    For a single search; see `Memory` for repeated ones.

    Raises ValueError if the bank has fewer than k vectors.

    Examples:
        >>> bank = torch.tensor([[0.0, 0.0], [3.0, 4.0], [10.0, 0.0]])
        >>> distances, indices = nearest(torch.tensor([[0.0, 1.0]]), bank, 2)
        >>> distances.round(), indices
        (tensor([[ 1., 18.]]), tensor([[0, 1]]))

    """
    if bank.shape[0] < k:
        raise ValueError(f"asked for {k} neighbors in a bank of {bank.shape[0]}")
    center = bank.mean(0)
    centered = bank - center
    squares = centered.square().sum(1)
    if len(queries) < PACKING_PAYS:
        return nearest_centered(queries - center, centered, squares, k)
    return Memory(centered, squares).nearest(queries - center, k)


class _NearestDistances(torch.autograd.Function):
    """Squared distances to the k nearest vectors; only those k contribute to the gradient."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, bank: Tensor, squares: Tensor, k: int) -> Tensor:
        distances, columns = nearest_centered(queries, bank, squares, k)
        ctx.save_for_backward(queries, bank, columns)
        return distances

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        queries, bank, columns = ctx.saved_tensors
        weights = 2 * gradients[0]
        pulled = F.embedding_bag(columns, bank, per_sample_weights=weights, mode="sum")
        return weights.sum(1, keepdim=True) * queries - pulled, None, None, None


def nearest_distances(
    queries: Float[Tensor, "n d"], bank: Float[Tensor, "m d"], squares: Float[Tensor, "m"], k: int
) -> Float[Tensor, "n k"]:
    """Return squared distances to the k nearest vectors, differentiable in the queries.

    The gradient is 2 Σ_k g_k (q - c_k): a weighted sum of k vectors instead of a product with the whole bank.
    """
    result: Tensor = _NearestDistances.apply(queries, bank, squares, k)  # type: ignore[no-untyped-call]
    return result
