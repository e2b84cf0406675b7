"""What training and judging may take at most, whole processes of the command line with everything they import."""

import os
import subprocess
import sys

import pytest

TRAINING_MB, JUDGING_MB = 1500, 700


# Between the tests and the command, because a process that is started counts what its parent held at that moment.
MEASURED = """
import os, subprocess, sys
process = subprocess.Popen([sys.executable, "-m", "hyperspot", *sys.argv[1:]], stdout=subprocess.DEVNULL)
_, status, used = os.wait4(process.pid, 0)
print(used.ru_maxrss)
sys.exit(os.waitstatus_to_exitcode(status))
"""


def peak_mb(*arguments) -> float:
    command = [sys.executable, "-c", MEASURED, *map(str, arguments)]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return int(told.stdout) / (1024 if sys.platform == "linux" else 1024**2)


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="the system does not tell the memory of a child")
@pytest.mark.parametrize("variant", ["default", "released"])
def test_peak_memory_of_training_and_judging(product, tmp_path, variant):
    model = tmp_path / "part.safetensors"
    method = ["--set", f"variant={variant}", *(["--set", "steps=3"] if variant == "released" else [])]
    trained = peak_mb("train", product, "-o", model, "--weights", "random:0", *method)
    assert trained <= TRAINING_MB
    photo = next(product.glob("test/*/*.png"))
    assert peak_mb("predict", model, photo) <= JUDGING_MB
