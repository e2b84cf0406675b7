"""Change the promised false-alarm rate and the calibration images of a trained detector: nothing is trained."""

from pathlib import Path

from hyperspot import CalibrationError, Detector, make_product_set

folder = Path("hyperspot-examples")
product = make_product_set(folder / "larger-product", train=60, good=10, defective=9, size=192)
detector = Detector.fit(product / "train" / "good", short_side=192, false_alarm_rate=0.05)

# The trade-off: a higher rate finds more defects and calls more good parts anomalous.
evaluation = detector.evaluate(product)
for point in evaluation.operating_points:
    print(
        f"promised {point.false_alarm_rate:4.0%}  detected {point.detection_rate:4.0%}  "
        f"observed false alarms {point.observed_false_alarm_rate:4.0%}"
    )
for sentence in evaluation.advice:
    print("advice:", sentence)

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
