"""Scripts behind every figure we print."""

import os

# The CPU is what all of these measure; `gpu_speed` names its device itself.
os.environ.setdefault("HYPERSPOT_DEVICE", "cpu")
