"""Train on images of good parts, predict new ones, save the model and the results."""

from pathlib import Path

from hyperspot import Detector, make_product_set

folder = Path("hyperspot-examples")
product = make_product_set(folder / "product", train=30, good=6, defective=6, size=192)

# A folder, a data set or a list of images; every setting has a default.
detector = Detector.fit(product / "train" / "good", short_side=192, false_alarm_rate=0.1)
calibration = detector.decision_rule.calibration
print(f"promised false-alarm rate {calibration.false_alarm_rate:.3f}, threshold {calibration.threshold:.4f}")

# One image: a path, bytes, a Pillow image, an array or a tensor.
verdict = detector.predict(product / "test" / "missing_bolt" / "000.png")
print(verdict)
for region in verdict.regions:
    print("  defect at", region.xyxy, "with score", round(region.score, 3))

# Many images: read ahead in threads, run in batches.
paths = sorted((product / "test").rglob("*.png"))
for path, result in zip(paths, detector.predict_many(paths, batch_size=8), strict=True):
    print(f"{path.parent.name:<14}{'ANOMALOUS' if result.is_anomalous else 'good':<10} p = {result.p_value:.3f}")
    result.save(folder / "results", f"{path.parent.name}/{path.stem}", overwrite=True)

model = detector.save(folder / "part.safetensors")
print("model file:", model, "reloaded:", Detector.load(model).predict(paths[0]))
