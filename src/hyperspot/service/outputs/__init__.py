"""Where verdicts go."""

from hyperspot.service.outputs.manager import Outputs
from hyperspot.service.outputs.registry import OUTPUTS

__all__ = ["OUTPUTS", "Outputs"]
