"""Muon (Jordan et al., 2024): momentum whose matrices are made orthogonal before they are taken off the weights."""

from collections.abc import Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic Newton-Schulz iteration, chosen there to bring all singular values near 1 in five steps."""


class Muon(torch.optim.Optimizer):
    """For the convolutions, each seen as a matrix of outputs by inputs.

    Updates are scaled to a root mean square of 0.2, as large as AdamW's (Liu et al., 2025), so that both take the
    same learning rates.

    Args:
        parameters: Weights with two dimensions or more.
        lr: Learning rate.
        momentum: Share of the running sum of gradients that is kept in each step.
        weight_decay: Share of the weights, times the learning rate, that is taken off in each step.

    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Change the weights by their gradients; `closure` is not supported."""
        assert closure is None
        for group in self.param_groups:
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state["momentum"] = torch.zeros_like(parameter)
                running = state["momentum"]
                running.mul_(group["momentum"]).add_(parameter.grad)
                prefetch_map = parameter.grad.add(running, alpha=group["momentum"]).flatten(1)
                update = orthogonal(prefetch_map) * (0.2 * max(prefetch_map.shape) ** 0.5)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.sub_(update.view(parameter.shape), alpha=group["lr"])


def orthogonal(matrix: Float[Tensor, "o i"], steps: int = 5) -> Float[Tensor, "o i"]:
    """Return a matrix of the same singular vectors whose singular values are near 1 (0.7 to 1.2)."""
    first, third, fifth = COEFFICIENTS
    tall = matrix.shape[0] > matrix.shape[1]
    found: Tensor = matrix.T if tall else matrix
    found = found / (found.norm() + 1e-12)
    for _ in range(steps):
        gram = found @ found.T
        found = first * found + (third * gram + fifth * gram @ gram) @ found
    return found.T if tall else found
