"""The training loop: resumable to the bit, its order of views a function of seed and step alone."""

import json
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from hyperspot.backbones.compact import Compact
from hyperspot.utils.atomic_files import replacing
from tools.distill.cache import SLOPE, Cache, Plan, normalized
from tools.distill.orthogonal import Muon
from tools.distill.statistics import Statistics
from tools.distill.students import learner

STATE, CURVE = "state.safetensors", "curve.jsonl"


@dataclass(frozen=True)
class Recipe:
    """What decides the weights, beside the data.

    Attributes:
        student: One of `students.STUDENTS`.
        steps: Batches to train on.
        decay: Batches at the end over which the learning rate falls to zero; up to there, a run with more steps is
            the same, and can go on from the state that is kept (`stable.safetensors`).
        warm_up: Batches at the start over which it rises.
        batch: Views in a batch.
        rate: Learning rate between rise and fall.
        optimizer: What changes the convolutions: `adamw` or `muon`; all else is AdamW's.
        weight_decay: On convolutions alone.
        slope: Of the leaky ReLU under which levels are compared: 0 asks for what is seen after the activation
            only, 1 for all before it.
        power: How channels weigh in the loss, by their variance to minus this: 1 gives all the same say, 0 leaves
            to each what it has in Euclidean distances.
        seed: Decides the first weights and the order of views.

    """

    student: str
    steps: int
    decay: int
    warm_up: int = 100
    batch: int = 32
    rate: float = 3e-3
    optimizer: str = "adamw"
    weight_decay: float = 0.02
    slope: float = SLOPE
    power: float = 1.0
    seed: int = 0

    def rate_at(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0."""
        rising = (step + 1) / self.warm_up if self.warm_up else 1.0
        falling = (self.steps - step) / self.decay if self.decay else 1.0
        return self.rate * min(1.0, rising, falling)

    def rows(self, step: int, total: int) -> np.ndarray:
        """Return which of `total` views a step is trained on; every epoch has its own order."""
        whole = total // self.batch
        epoch, place = divmod(step, whole)
        order = np.random.default_rng([self.seed, epoch]).permutation(total)
        return np.sort(order[place * self.batch : (place + 1) * self.batch])


def train(
    recipe: Recipe,
    training: Cache,
    held_out: Cache,
    statistics: Statistics,
    folder: Path,
    *,
    device: torch.device,
    validate_every: int = 500,
    save_every: float = 60.0,
    stop_after: int | None = None,
    start: Path | None = None,
    tell: Callable[[dict[str, float]], None] = lambda _line: None,
) -> Compact:
    """Train a student, or go on where a killed training stopped, and return it.

    Args:
        recipe: What to do.
        training: Views to train on.
        held_out: Views to validate on.
        statistics: The teacher's, over the training views.
        folder: Where the state and the curve are kept; what it holds of another recipe is written over.
        device: Where to train.
        validate_every: Steps between validations.
        save_every: Seconds between states that are kept.
        stop_after: Ends early at this step, for tests of resuming.
        start: State of a run that differs in steps and decay alone, to go on from.
        tell: Called with each line of the curve.

    """
    folder.mkdir(parents=True, exist_ok=True)
    network = learner(recipe.student, statistics.means, statistics.deviations, recipe.seed).to(device)
    optimizers = _optimizers(network, recipe)
    step = _resume(folder / STATE, recipe, network, optimizers)
    if step == 0 and start is not None:
        step = _resume(start, recipe, network, optimizers, longer=True)
    if step == 0:
        (folder / CURVE).unlink(missing_ok=True)
    loss_of = Loss(statistics, recipe, device)
    saved = time.monotonic()
    losses: list[Tensor] = []
    end = min(recipe.steps, stop_after if stop_after is not None else recipe.steps)
    for rows, views, levels in _batches(recipe, training, step, end):
        for group in (group for optimizer in optimizers for group in optimizer.param_groups):
            group["lr"] = recipe.rate_at(step)
        pixels = normalized(views.to(device), network)
        with torch.autocast(device.type, torch.bfloat16):
            sums = network.sums(pixels)
        loss = loss_of(sums, [level.to(device) for level in levels])
        network.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        losses.append(loss.detach())
        step += 1
        if step == recipe.steps - recipe.decay:
            _save(folder / "stable.safetensors", recipe, training.plan, step, network, optimizers)
        if step % validate_every == 0 or step == recipe.steps:
            line = {"step": step, "loss": float(torch.stack(losses).mean()), "rate": recipe.rate_at(step - 1)}
            line |= validate(network, held_out, device)
            losses.clear()
            with (folder / CURVE).open("a", encoding="utf-8") as curve:
                curve.write(json.dumps(line) + "\n")
            tell(line)
        if step == end or time.monotonic() - saved > save_every:
            _save(folder / STATE, recipe, training.plan, step, network, optimizers)
            saved = time.monotonic()
        del rows
    return network


class Loss:
    """The mean over levels of the squared error of leaky levels, each channel weighed by its variance."""

    def __init__(self, statistics: Statistics, recipe: Recipe, device: torch.device) -> None:
        self.slope = recipe.slope
        self.weights = []
        for variance in statistics.variances(recipe.slope):
            weight = variance**-recipe.power
            # One is the loss of a student that knows the channels' means only.
            self.weights.append((weight / (weight * variance).mean())[:, None, None].to(device))

    def __call__(self, sums: list[Tensor], taught: list[Tensor]) -> Tensor:
        """Return the loss; `taught` is leaky with the cache's slope."""
        total = sums[0].new_zeros(())
        for level, target, weight in zip(sums, taught, self.weights, strict=True):
            wanted = target.float()
            if self.slope != SLOPE:
                wanted = functional.leaky_relu(wanted, self.slope / SLOPE)
            error = functional.leaky_relu(level, self.slope) - wanted
            total = total + (error.square() * weight).mean()
        return total / len(self.weights)


def validate(network: Compact, held_out: Cache, device: torch.device) -> dict[str, float]:
    """Return what is left unexplained of the teacher's levels, after ReLU, on held-out views.

    `channels`: error over variance, mean over channels and levels (all channels have the same say), and
    `euclidean`: summed error over summed variance, mean over levels (what distances between features see).
    """
    training = {module: module.training for module in network.modules() if isinstance(module, nn.BatchNorm2d)}
    for module in training:
        module.eval()
    errors = [torch.zeros(width, dtype=torch.float64) for width in network.channels]
    sums = [torch.zeros(width, dtype=torch.float64) for width in network.channels]
    squares = [torch.zeros(width, dtype=torch.float64) for width in network.channels]
    with torch.no_grad():
        for rows in held_out.chunks(64):
            with torch.autocast(device.type, torch.bfloat16):
                found = network.sums(normalized(held_out.views(rows).to(device), network))
            for place, (level, target) in enumerate(zip(found, held_out.levels(rows), strict=True)):
                wanted = functional.relu(target.to(device).float())
                error = (functional.relu(level) - wanted).square()
                errors[place] += error.mean((0, 2, 3)).cpu().double() * len(rows)
                sums[place] += wanted.mean((0, 2, 3)).cpu().double() * len(rows)
                squares[place] += wanted.square().mean((0, 2, 3)).cpu().double() * len(rows)
    for module, was in training.items():
        module.train(was)
    line = {}
    total = held_out.plan.rows
    for place in range(len(errors)):
        variance = squares[place] / total - (sums[place] / total).square()
        error = errors[place] / total
        line[f"channels{place + 2}"] = float((error / variance.clamp(min=1e-8)).mean())
        line[f"euclidean{place + 2}"] = float(error.sum() / variance.sum())
    for kind in ("channels", "euclidean"):
        line[kind] = math.fsum(line[f"{kind}{level}"] for level in (2, 3, 4)) / 3
    return line


def _batches(recipe: Recipe, cache: Cache, first: int, last: int) -> Iterator[tuple[np.ndarray, Tensor, list[Tensor]]]:
    def read(step: int) -> tuple[np.ndarray, Tensor, list[Tensor]]:
        rows = recipe.rows(step, cache.plan.rows)
        return rows, cache.views(rows), cache.levels(rows)

    # The next batch is read from the disk while this one is trained on.
    with ThreadPoolExecutor(1) as reader:
        coming = reader.submit(read, first) if first < last else None
        for step in range(first, last):
            assert coming is not None
            batch = coming.result()
            coming = reader.submit(read, step + 1) if step + 1 < last else None
            yield batch


def _optimizers(network: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    matrices = [one for one in network.parameters() if one.ndim > 1]
    vectors = [one for one in network.parameters() if one.ndim == 1]
    adamw = partial(torch.optim.AdamW, lr=recipe.rate, betas=(0.9, 0.99), foreach=True)
    if recipe.optimizer == "muon":
        return [Muon(matrices, recipe.rate, weight_decay=recipe.weight_decay), adamw(vectors, weight_decay=0.0)]
    if recipe.optimizer == "adamw":
        return [adamw(matrices, weight_decay=recipe.weight_decay), adamw(vectors, weight_decay=0.0)]
    raise ValueError(f"there is no optimizer {recipe.optimizer}; choose adamw or muon")


def _save(
    path: Path, recipe: Recipe, plan: Plan, step: int, network: nn.Module, optimizers: list[torch.optim.Optimizer]
) -> None:
    tensors = {f"network.{name}": tensor.contiguous() for name, tensor in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        for kind, moment in _owner(optimizers, parameter).state[parameter].items():
            tensors[f"{kind}.{name}"] = moment.contiguous()
    with replacing(path) as partial:
        about = {"recipe": json.dumps(asdict(recipe)), "views": json.dumps(asdict(plan)), "step": str(step)}
        save_file(tensors, partial, about)


def _resume(
    path: Path, recipe: Recipe, network: nn.Module, optimizers: list[torch.optim.Optimizer], *, longer: bool = False
) -> int:
    """Take a state if it is of this recipe, and return how many steps are done; a `longer` one may differ in length."""
    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as opened:
        metadata = opened.metadata()
        kept = json.loads(metadata["recipe"])
        mine = asdict(recipe)
        differing = {name for name in mine if kept.get(name) != mine[name]}
        if differing - ({"steps", "decay"} if longer else set()):
            return 0
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
    step = int(metadata["step"])
    if longer and step > recipe.steps - recipe.decay:
        raise ValueError(f"{path} is at step {step}, where this recipe's learning rate falls already")
    state = {name.removeprefix("network."): value for name, value in tensors.items() if name.startswith("network.")}
    network.load_state_dict(state)
    for name, parameter in network.named_parameters():
        moments = {full.removesuffix(f".{name}"): tensor for full, tensor in tensors.items() if full in _kinds(name)}
        _owner(optimizers, parameter).state[parameter] = {
            # A moment lies in memory as its parameter does, or sums over both would be taken in another order.
            kind: torch.empty_like(parameter).copy_(moment) if moment.ndim else moment
            for kind, moment in moments.items()
        }
    return step


def _kinds(name: str) -> set[str]:
    return {f"{kind}.{name}" for kind in ("step", "exp_avg", "exp_avg_sq", "momentum")}


def _owner(optimizers: list[torch.optim.Optimizer], parameter: Tensor) -> torch.optim.Optimizer:
    for optimizer in optimizers:
        if any(parameter is one for group in optimizer.param_groups for one in group["params"]):
            return optimizer
    raise KeyError("a parameter that nothing changes")
