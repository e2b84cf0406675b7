"""Device names, precisions, and the errors for devices that are missing."""

import json
import warnings

import pytest
import torch

from hyperspot import Detector
from hyperspot.cli import console
from hyperspot.errors import DeviceError, DeviceWarning, HyperspotError
from hyperspot.hardware import devices
from hyperspot.hardware.devices import choose_precision, computing_on, describe, resolve

GPU = torch.device("cuda", 0)


@pytest.fixture
def gpus(monkeypatch):
    """Make torch report GPUs of the given compute capability."""

    def there(count: int = 2, capability: tuple[int, int] = (8, 6)) -> None:
        monkeypatch.delenv("HYPERSPOT_DEVICE", raising=False)
        monkeypatch.delenv("HYPERSPOT_PRECISION", raising=False)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")

    return there


def test_auto_selects_a_gpu(gpus, monkeypatch):
    gpus(0)
    assert resolve("auto") == torch.device("cpu")
    gpus(2)
    assert resolve() == resolve("auto") == resolve("cuda") == GPU
    assert resolve("cuda:1") == torch.device("cuda", 1)
    assert resolve("cpu") == torch.device("cpu")
    monkeypatch.setenv("HYPERSPOT_DEVICE", "cuda:1")
    assert resolve("auto") == torch.device("cuda", 1)
    assert resolve("cuda:0") == GPU


@pytest.mark.parametrize(
    ("named", "count", "message"),
    [
        ("cuda", 0, "device 'cuda' is not available: .*--device cpu"),
        ("cuda:1", 0, "device 'cuda:1' is not available: "),
        ("cuda:2", 2, "device 'cuda:2' is not available; choose one of cuda:0 to cuda:1"),
        ("gpu", 2, "'gpu' is not a device; choose auto, cpu, cuda"),
        ("cuda:", 2, "'cuda:' is not a device"),
        ("cuda:-1", 2, "'cuda:-1' is not a device"),
        ("cpu:0", 2, "'cpu:0' is not a device"),
        ("", 2, "'' is not a device"),
    ],
)
def test_a_missing_device_is_one_clear_error(gpus, named, count, message):
    gpus(count)
    with pytest.raises(DeviceError, match=message) as caught:
        resolve(named)
    assert isinstance(caught.value, HyperspotError)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("capability", "default"),
    [((7, 5), "f16"), ((8, 0), "bf16"), ((8, 9), "bf16"), ((9, 0), "bf16"), ((12, 0), "bf16")],
)
def test_the_default_precision_depends_on_the_gpu_and_can_be_overridden(gpus, monkeypatch, capability, default):
    gpus(1, capability)
    assert choose_precision(GPU) == default
    assert choose_precision(GPU, "f32") == "f32"
    for override in ("f32", "bf16", "f16"):
        monkeypatch.setenv("HYPERSPOT_PRECISION", override)
        assert choose_precision(GPU) == override
        assert choose_precision(GPU, "f32") == "f32"
    monkeypatch.setenv("HYPERSPOT_PRECISION", "f64")
    assert choose_precision(GPU) == default


def test_the_cpu_rejects_f16(model_file):
    with pytest.raises(DeviceError, match="f16 is for GPUs"):
        choose_precision(torch.device("cpu"), "f16")
    with pytest.raises(DeviceError, match="f16 is for GPUs"):
        Detector.load(model_file, device="cpu", precision="f16")
    assert choose_precision(torch.device("cpu"), "bf16") == "bf16"


def test_describe_reports_the_device(gpus):
    gpus(1, (8, 6))
    assert describe() == {
        "chosen": "cuda:0", "name": "Some GPU", "compute_capability": "8.6", "precision": "bf16"
    }  # fmt: skip
    gpus(0)
    assert describe()["chosen"] == "cpu"


def test_tf32_is_off_inside_the_block_and_restored_after_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device", lambda device: computing_on(torch.device("cpu")))
    torch.set_float32_matmul_precision("high")
    deterministic = torch.backends.cudnn.deterministic
    try:
        switches = devices._switches()
        before = [getattr(owner, name) for owner, name, _ in switches]
        assert before != [value for *_, value in switches]
        with computing_on(GPU):
            assert [getattr(owner, name) for owner, name, _ in switches] == [value for *_, value in switches]
        assert [getattr(owner, name) for owner, name, _ in switches] == before
        with pytest.raises(ValueError, match="a fault"), computing_on(GPU):
            raise ValueError("a fault")
        assert [getattr(owner, name) for owner, name, _ in switches] == before
        assert torch.get_float32_matmul_precision() == "high"
        assert torch.backends.cuda.matmul.allow_tf32
        assert torch.backends.cudnn.deterministic == deterministic
    finally:
        torch.set_float32_matmul_precision("highest")


def test_out_of_memory_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device", lambda device: computing_on(torch.device("cpu")))
    with pytest.raises(DeviceError, match=r"cuda:0 is out of memory.*--device cpu"), computing_on(GPU):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")


def test_every_command_reports_a_missing_gpu_in_one_sentence(run, gpus, product, model_file, tmp_path):
    gpus(0)
    photo = next(product.glob("test/*/*.png"))
    for command in (
        ("train", product, "-o", tmp_path / "part.safetensors", "--weights", "random:0"),
        ("predict", model_file, photo),
        ("evaluate", model_file, product),
        ("benchmark", product, "--table", 4, "--weights", "random:0", "--out", tmp_path / "runs.jsonl"),
    ):
        code, out, err = run(*command, "--device", "cuda")
        assert (code, out) == (1, ""), command
        assert err.startswith("error: device 'cuda' is not available: ")
        assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_gpu_times_enter_no_table(run, gpus, product):
    gpus(1)
    code, _, err = run("benchmark", product, "--table", 8, "--device", "cuda")
    assert code == 1
    assert "table 8 shows times of the CPU" in err


def test_an_exported_file_runs_on_the_cpu(run, detector, product, tmp_path):
    pytest.importorskip("onnxscript", reason="needs hyperspot[export]")
    from hyperspot.export.exporting import export

    written = export(detector, tmp_path / "part.onnx")
    photo = next(product.glob("test/*/*.png"))
    code, _, err = run("predict", written, photo, "--device", "cuda")
    assert code == 1
    assert "is an exported file and runs on the CPU" in err
    code, _, err = run("predict", written, photo, "--precision", "f16")
    assert code == 1
    assert "f16 is for GPUs" in err


def test_info_reports_the_device_of_the_machine_and_of_the_model_file(run, model_file):
    code, out, _ = run("info", "--engines", "--json")
    assert code == 0
    assert json.loads(out)["device"] == {"chosen": "cpu", "precision": "f32"}
    code, out, _ = run("info", model_file, "--json")
    assert json.loads(out)["record"]["device"] == "cpu"


def test_each_device_warning_is_printed(capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        with console.image_warnings():
            for number in range(2):
                warnings.warn(f"no CUDA graph can be captured on cuda:{number}", DeviceWarning, stacklevel=1)
    printed = capsys.readouterr().err.splitlines()
    assert printed == [f"warning: no CUDA graph can be captured on cuda:{number}" for number in range(2)]
