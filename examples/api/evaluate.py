"""Evaluate a detector on labeled images and write the report."""

from pathlib import Path

from hyperspot import Detector, make_product_set, metrics, open_dataset, write_report

folder = Path("hyperspot-examples")
product = make_product_set(folder / "product", train=30, good=6, defective=6, size=192)

dataset = open_dataset(product)
print(f"{len(dataset.train)} training images, {len(dataset.test)} test images, layout {dataset.layout}")
for problem in dataset.problems:
    print("warning:", problem)

detector = Detector.fit(dataset, short_side=192, false_alarm_rate=0.1)
evaluation = detector.evaluate(dataset)

# The detection rate at the promised false-alarm rate comes first: it is what happens at the line.
for name, value in evaluation.metrics.items():
    metric = metrics.get(name)
    print(f"{metric.title:<32}{metric.format(value)}")
for result in evaluation.defect_results:
    print(f"{result.defect:<32}{result.detected} of {result.images} detected")

print("report:", write_report(evaluation, folder / "report.html"))
