"""A simulated GPU: its tensors lie in CPU memory and obey the rules of CUDA.

Torch can be given a device written in Python. `Card` computes every operation on the CPU and enforces the rules of
CUDA: tensors of two devices do not mix, except in copies, scalars and indices; NumPy cannot read them; a CPU generator
cannot draw on the device; no synchronization and no copy from or to the CPU during a capture. Breaking a rule raises
an error.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default}
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
WAITS = {aten._local_scalar_dense.default, aten.nonzero.default, aten.equal.default, aten.masked_select.default}
NAME = "card"


class BrokenRuleError(AssertionError):
    """A rule of GPUs was broken."""


class OnCard(torch.Tensor):
    """A tensor whose device is the card; `raw` holds its numbers."""

    raw: torch.Tensor

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> "OnCard":
        made = torch.Tensor._make_wrapper_subclass(
            cls,
            raw.shape,
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=torch.device(NAME, 0),
        )
        made.raw = raw
        return made

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnCard({self.raw!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return Card.compute(func, args, kwargs or {})


class Card(TorchDispatchMode):
    """The active card; `capturing`: a graph is being captured, `operations`: number of operations on the card."""

    capturing = False
    operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with self:
            # While judging torch leaves it to the device to take an operation apart.
            parts = func.decompose(*args, **(kwargs or {}))
        return self.compute(func, args, kwargs or {}) if parts is NotImplemented else parts

    @classmethod
    def compute(cls, func: Any, args: Any, kwargs: Any) -> Any:
        given = [one for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)]
        here = any(isinstance(one, OnCard) for one in given)
        named = kwargs.get("device")
        target = here if named is None else torch.device(named).type == NAME
        if not (here or target):
            return func(*args, **kwargs)
        cls.operations += 1
        cls._check(func, args, kwargs, given, target)
        plain = {**kwargs, "device": torch.device("cpu")} if target and named is not None else kwargs
        # A view of a tensor that judging did not make has to be of its kind.
        with torch.inference_mode(False), torch.no_grad():
            result = func(*tree_map(_raw, args), **tree_map(_raw, plain))
            return cls._placed(result, given) if target else result

    @classmethod
    def _placed(cls, result: Any, given: list[torch.Tensor]) -> Any:
        # What is changed in place stays the tensor that it is.
        known = {id(one.raw): one for one in given if isinstance(one, OnCard)}
        return tree_map(lambda one: known[id(one)] if id(one) in known else _wrapped(one), result)

    @classmethod
    def called(cls, func: Any, *args: Any, **kwargs: Any) -> Any:
        """Compute what did not come through the mode."""
        return cls.compute(func, args, kwargs)

    @classmethod
    def _check(cls, func: Any, args: Any, kwargs: Any, given: list[torch.Tensor], target: bool) -> None:
        away = [one for one in given if not isinstance(one, OnCard)]
        mixed = [one for one in away if one.dim()]
        if func in INDEXED:
            mixed = [one for one in mixed if not any(one is index for index in args[1])]
        if func not in COPIES and mixed:
            raise BrokenRuleError(f"{func} mixes the card with the CPU")
        if any(isinstance(one, torch.Generator) for one in (*args, *kwargs.values())):
            raise BrokenRuleError(f"{func} draws on the card with a generator of the CPU")
        if cls.capturing and (func in WAITS or away or not target):
            raise RuntimeError(f"{func} waits for the card or reaches for the CPU while a graph is captured")
        masks = func in INDEXED and any(index is not None and index.dtype == torch.bool for index in args[1])
        if cls.capturing and masks:
            raise RuntimeError(f"{func} has to know how many of its places are chosen while a graph is captured")


class CardCapturer:
    """Captures "graphs" on the card: a replay runs the work again and copies the results into the captured ones."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.captures = 0

    def warm_up(self, work: Callable[[], Any]) -> None:
        work()

    def capture(self, work: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        with capturing():
            results = work()
        self.captures += 1

        def replay() -> None:
            for place, found in zip(tree_leaves(results), tree_leaves(work()), strict=True):
                if place is not None:
                    place.copy_(found)

        return replay, results


@contextlib.contextmanager
def capturing() -> Iterator[None]:
    """Enforce the rules of capturing."""
    Card.capturing = True
    try:
        yield
    finally:
        Card.capturing = False


def _raw(one: Any) -> Any:
    return one.raw if isinstance(one, OnCard) else one


def _wrapped(one: Any) -> Any:
    return OnCard(one) if isinstance(one, torch.Tensor) else one


@pytest.fixture(scope="session")
def _registered() -> torch.library.Library:
    from torch.utils import backend_registration

    setup = getattr(backend_registration, "_setup_privateuseone_for_python_backend", None)
    if setup is None:
        pytest.skip("this torch does not let Python be a device; torch 2.13 does")
    setup(NAME)
    # What torch does where modes do not see it.
    library = torch.library.Library("aten", "IMPL")
    for name in ("empty.memory_format", "empty_strided", "_to_copy", "_copy_from"):
        operation = getattr(getattr(aten, name.partition(".")[0]), name.partition(".")[2] or "default")
        library.impl(name, partial(Card.called, operation), "PrivateUse1")
    return library


@pytest.fixture
def card(_registered: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    """Return the device; it can be had by its name, and predicts by graphs, while the test runs."""
    device = torch.device(NAME, 0)
    from hyperspot.hardware import devices

    usual = devices.resolve
    monkeypatch.setattr("hyperspot.detector.detector.resolve", lambda named: device if named == NAME else usual(named))
    monkeypatch.setattr("hyperspot.detector.anomaly_model.GraphCapturer", CardCapturer)
    # A parameter that is moved is a new one: to change what it holds would leave its `raw` behind.
    overwritten = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    with Card():
        yield device
    torch.__future__.set_overwrite_module_params_on_conversion(overwritten)


HEIGHT, WIDTH = 64, 96

QUICK: dict[str, dict[str, Any]] = {
    "cfa": {"variant": "released", "steps": 3, "gamma_d": 8},
    "cflow": {"steps": 3, "blocks": 2, "places_per_step": 64},
    "cutpaste": {"steps": 2, "images_per_step": 2, "patch_steps": 2, "patches_per_step": 2},
    "patch_svdd": {"steps": 2, "crops_per_step": 1, "pairs_per_crop": 8},
    "vae": {"steps": 2, "images_per_step": 2},
}
"""Settings that keep a method's training short."""


@pytest.fixture(scope="session")
def pictures() -> list[np.ndarray]:
    """Return photos of a bright disc on a shaded ground, the last of them with a defect."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    disc = ((rows - HEIGHT / 2) ** 2 + (columns - WIDTH / 2) ** 2) < 20**2
    base = (0.3 * rows / HEIGHT + 0.4 + 0.2 * disc)[None, :, :, None]
    noisy = base + generator.normal(0, 0.02, (8, HEIGHT, WIDTH, 3))
    noisy[-1, 24:40, 40:56] = generator.random((16, 16, 3))
    return list((noisy.clip(0, 1) * 255).round().astype(np.uint8))


@pytest.fixture(scope="session")
def quick() -> dict[str, dict[str, Any]]:
    """Return settings that keep a method's training short, by its name."""
    return QUICK
