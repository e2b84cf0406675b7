"""A convolution and the batch norm after it, as one convolution with a bias."""

from collections.abc import Callable, Collection

import torch
from jaxtyping import Float
from torch import Tensor

from hyperspot.backbones.base import Backbone


def fold(
    weight: Float[Tensor, "o i kh kw"],
    bias: Float[Tensor, "o"] | None,
    scale: Float[Tensor, "o"],
    shift: Float[Tensor, "o"],
    mean: Float[Tensor, "o"],
    variance: Float[Tensor, "o"],
    epsilon: float,
) -> tuple[Float[Tensor, "o i kh kw"], Float[Tensor, "o"]]:
    """Return weight and bias (float32) of the convolution that does what convolution and batch norm did.

    Reckoned in float64, since weights are divided by deviations that may be small.
    """
    gain = scale.double() / torch.sqrt(variance.double() + epsilon)
    start = torch.zeros_like(gain) if bias is None else bias.double()
    folded = weight.double() * gain[:, None, None, None]
    return folded.float(), (shift.double() + (start - mean.double()) * gain).float()


def fold_all(
    backbone: Backbone, names: Collection[str], get: Callable[[str], Tensor], source: str
) -> dict[str, Tensor]:
    """Return the folded weights that a backbone needs from those of torchvision, folded or not.

    Args:
        backbone: Says which tensors and which batch norms there are.
        names: All tensors that can be had. What the backbone does not need is left alone.
        get: Returns one of them by its name.
        source: Named in errors.

    Raises:
        WeightsError: Where a tensor is missing, of the wrong shape or kind, or not finite.

    """
    shapes = backbone.shapes()
    norms = backbone.norms()

    def take(name: str, shape: tuple[int, ...]) -> Tensor:
        if name not in names:
            raise backbone.misfit(source, f"{name} is missing")
        tensor = get(name)
        backbone.check(source, name, tensor, shape)
        return tensor

    state = {}
    for name in (full.removesuffix(".weight") for full in shapes if full.endswith(".weight")):
        width = shapes[f"{name}.bias"]
        weight = take(f"{name}.weight", shapes[f"{name}.weight"])
        norm = norms.get(name)
        if norm is None or f"{norm}.running_mean" not in names:
            state[f"{name}.weight"], state[f"{name}.bias"] = weight, take(f"{name}.bias", width)
            continue
        bias = take(f"{name}.bias", width) if f"{name}.bias" in names else None
        scale, shift = take(f"{norm}.weight", width), take(f"{norm}.bias", width)
        mean, variance = take(f"{norm}.running_mean", width), take(f"{norm}.running_var", width)
        folded = fold(weight, bias, scale, shift, mean, variance, backbone.norm_epsilon)
        state[f"{name}.weight"], state[f"{name}.bias"] = folded
    return state
