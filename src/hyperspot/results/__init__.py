"""Results: verdicts, regions, their drawings and conversions to other tools' formats. Needs no torch."""

from hyperspot.results.regions import Region
from hyperspot.results.verdict import Verdict

__all__ = ["Region", "Verdict"]
