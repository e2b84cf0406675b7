"""Predictors, forks and pickles: they work or refuse in one sentence, and never hang."""

import copy
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from hyperspot import Detector, ExportedDetector, load_model
from hyperspot.export import export

FORKED = """
import multiprocessing, sys
import numpy as np
from hyperspot import HyperspotError, load_model
path, engine, used = sys.argv[1:]
predictor = load_model(path, engine=engine)
image = np.zeros((64, 64, 3), np.uint8)
if used == "used":
    predictor.predict(image)
def child(how):
    try:
        if how == "given":
            return str(predictor.with_false_alarm_rate(0.5).predict(image))
        return str(load_model(path, engine=engine).predict(image))
    except HyperspotError as error:
        return f"{type(error).__name__}: {error}"
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(pool.apply_async(child, ["given"]).get(60))
    if engine == "onnxruntime":
        print(pool.apply_async(child, ["loaded"]).get(60))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    good = list(np.random.default_rng(0).integers(100, 140, (12, 64, 64, 3), dtype=np.uint8))
    detector = Detector.fit(good, short_side=64, false_alarm_rate=0.2)
    folder = tmp_path_factory.mktemp("processes")
    exported = export(detector, folder / "part.onnx")
    return {"torch": detector.save(folder / "part.safetensors"), "openvino": exported, "onnxruntime": exported}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("used", ["loaded", "used"])
@pytest.mark.parametrize("engine", ["torch", "openvino", "onnxruntime"])
def test_a_forked_process_refuses_the_predictor_of_its_parent(files, engine, used):
    command = [sys.executable, "-c", FORKED, str(files[engine]), engine, used]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    first, *others = done.stdout.splitlines()
    assert first.startswith("DeviceError: ")
    assert "load it in each process, or start processes by spawn" in first
    assert all(other.startswith("Verdict(") for other in others)


@pytest.mark.parametrize("engine", ["torch", "openvino", "onnxruntime"])
def test_a_pickle_is_refused_before_and_after_a_verdict(files, engine):
    predictor = load_model(files[engine], engine=engine)
    for _ in range(2):
        for refused in (pickle.dumps, copy.deepcopy):
            with pytest.raises(TypeError, match="cannot be pickled or deep-copied; save it, and load the file"):
                refused(predictor)
        predictor.predict(np.zeros((64, 64, 3), np.uint8))


def test_a_shallow_copy_shares_the_model(files):
    predictor = ExportedDetector.load(files["openvino"], engine="openvino")
    shared = copy.copy(predictor)
    assert shared.engine is predictor.engine
    shared.decision_rule = shared.decision_rule.with_false_alarm_rate(0.5)
    assert predictor.decision_rule.calibration.false_alarm_rate == 0.2
