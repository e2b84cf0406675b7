"""The way from frames to heatmap by torch's own rules for devices, on tensors without numbers.

A fake tensor has a shape, a type and a device. Torch raises an error where fakes of two devices mix, or where a number
or a shape is asked for that only the device would know: what a recorded graph must not do. Fakes of CUDA cannot be cut
where torch was built without it, so these are of the card (see `conftest`). Learning asks for numbers and cannot be
tried so; see `test_card`.
"""

import copy

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from hyperspot import Detector
from hyperspot.backbones import Backbone, create, names
from hyperspot.methods import METHODS

# Another one than `test_card` has, since constants made for this one are fakes.
NUMBER = 1


@pytest.fixture(scope="module")
def mode(_registered):
    # One for all, since constants are made once and fakes of two modes do not mix either.
    return FakeTensorMode()


@pytest.fixture(scope="module")
def device(_registered):
    return torch.device("card", NUMBER)


def faked(module, mode, device, precision):
    """Return a copy of a module with fake tensors on the device in the place of its own, in a number format."""
    for owner in module.modules():
        if getattr(owner, "_memory", None) is not None:
            # The compiled search cannot be copied, and is made anew where it is asked for.
            owner._memory = None
    module = copy.deepcopy(module)
    parts = [module]
    for backbone in (part for part in module.modules() if isinstance(part, Backbone) and any(part.channels)):
        backbone.precision = precision
        # A fake cannot be copied within its mode, so the copy in half precision is made of what is real.
        backbone(torch.zeros(1, 3, 32, 32))
        parts += backbone._halved.values()
    for owner in (owner for part in parts for owner in part.modules()):
        for held in (owner._parameters, owner._buffers):
            for name, tensor in held.items():
                if tensor is not None:
                    fake = mode.from_tensor(tensor.detach())
                    with mode:
                        held[name] = fake.to(device)
    return module


@pytest.mark.parametrize("precision", ["f32", "bf16", "f16"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_judges_on_its_device_without_waiting_for_it(mode, device, quick, pictures, name, precision):
    detector = fitted(name, quick, pictures)
    frame = detector.anomaly_model.input_size
    anomaly_model = faked(detector.anomaly_model, mode, device, precision)
    with mode, torch.inference_mode():
        frames = torch.empty(2, frame.height, frame.width, 3, dtype=torch.uint8, device=device)
        maps, own = anomaly_model(frames)
    assert (maps.device, maps.shape, maps.dtype) == (device, (2, frame.height, frame.width), torch.float32)
    assert own is None or (own.device, own.shape, own.dtype) == (device, (2,), torch.float32)


@pytest.mark.parametrize("precision", ["f32", "bf16", "f16"])
@pytest.mark.parametrize("name", names())
def test_every_backbone_gives_32_bit_floats(mode, device, name, precision):
    backbone = faked(create(name, "random:0"), mode, device, precision)
    with mode, torch.inference_mode():
        images = torch.empty(2, 3, 64, 96, device=device, memory_format=torch.channels_last)
        levels = backbone(images)
    assert {(level.device, level.dtype) for level in levels} == {(device, torch.float32)}
    assert [tuple(level.shape) for level in levels] == [
        (2, channels, 64 // stride, 96 // stride)
        for channels, stride in zip(backbone.channels, backbone.strides, strict=True)
    ]
    if precision != "f32":
        (halved,) = backbone._halved.values()
        weights = [weight for weight in halved.parameters() if weight.ndim == 4 and min(weight.shape[1:]) > 1]
        assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
        assert {weight.dtype for weight in halved.parameters()} == {
            {"bf16": torch.bfloat16, "f16": torch.float16}[precision]
        }


_FITTED: dict[str, Detector] = {}


def fitted(name, quick, pictures):
    if name not in _FITTED:
        _FITTED[name] = Detector.fit(
            pictures[:6],
            method=name,
            method_settings=quick.get(name, {}),
            weights="random:0" if METHODS[name].uses_backbone else None,
            # More than one window, since torch takes a single number for one that it knows.
            short_side=96,
            false_alarm_rate=0.5,
        )
    return _FITTED[name]


def test_fakes_find_what_waits_and_what_mixes(mode, device):
    """The tests above can fail."""
    with mode:
        there = torch.empty(3, 3, device=device)
        with pytest.raises(Exception, match="_local_scalar_dense"):
            there.sum().item()
        with pytest.raises(Exception, match="same device"):
            there + torch.zeros(3)
        with pytest.raises(Exception, match="nonzero"):
            there[there > 0]
