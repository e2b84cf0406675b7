"""Export a detector to one ONNX file and run it in a process that cannot import torch."""

import subprocess
import sys
from pathlib import Path

from hyperspot import Detector, make_product_set
from hyperspot.export import export

folder = Path("hyperspot-examples")
product = make_product_set(folder / "product", train=30, good=6, defective=6, size=192)
detector = Detector.fit(product / "train" / "good", short_side=192, false_alarm_rate=0.1)

# Needs the extra `export`. A name that ends in .xml writes OpenVINO IR.
path = export(detector, folder / "part.onnx")
image = product / "test" / "missing_bolt" / "000.png"
print("torch:       ", detector.predict(image))

# What runs at the line needs the extra `runtime` or `onnxruntime` only.
AT_THE_LINE = """
import sys
sys.modules["torch"] = None  # any import of torch fails from here on
from hyperspot import ExportedDetector
exported = ExportedDetector.load(sys.argv[1])
print(f"{exported.engine.name}:", exported.predict(sys.argv[2]))
"""
subprocess.run([sys.executable, "-c", AT_THE_LINE, path, image], check=True)
