"""From scores of good images to a verdict: calibration and the decision rule. Needs no torch."""
