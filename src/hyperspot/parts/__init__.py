"""Several views of one part: one verdict per part, with one promised false-alarm rate."""

from hyperspot.parts.calibration import PartCalibration
from hyperspot.parts.evaluation import PartEvaluation
from hyperspot.parts.inspector import PartInspector
from hyperspot.parts.verdict import PartVerdict

__all__ = ["PartCalibration", "PartEvaluation", "PartInspector", "PartVerdict"]
