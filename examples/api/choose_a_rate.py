"""Change the promised false-alarm rate and the calibration images of a trained detector: nothing is trained."""

from pathlib import Path

from hyperspot import CalibrationError, Detector, make_product_set

folder = Path("hyperspot-examples")
product = make_product_set(folder / "larger-product", train=60, good=10, defective=9, size=192)
detector = Detector.fit(product / "train" / "good", short_side=192, false_alarm_rate=0.05)

# The trade-off: a higher rate finds more defects and calls more good parts anomalous.
for rate in (0.05, 0.1, 0.2):
    evaluation = detector.with_false_alarm_rate(rate).evaluate(product)
    detected, false_alarms = evaluation.detection_rate, evaluation.observed_false_alarm_rate
    print(f"promised {rate:4.0%}  detected {detected:4.0%}  observed false alarms {false_alarms:4.0%}")

# A rate of 0.001 needs 999 calibration images.
try:
    detector.with_false_alarm_rate(0.001)
except CalibrationError as error:
    print("error:", error)

# New light, a new lot of parts: set the thresholds by good images of today.
today = sorted((product / "test" / "good").glob("*.png"))
recalibrated = detector.recalibrate(today, false_alarm_rate=0.1)
before, after = detector.decision_rule.calibration, recalibrated.decision_rule.calibration
print(f"threshold before {before.threshold:.4f}, recalibrated with {len(after.scores)} images {after.threshold:.4f}")
recalibrated.save(folder / "recalibrated.safetensors")
