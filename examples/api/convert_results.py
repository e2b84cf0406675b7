"""Convert verdicts to COCO, YOLO and supervision."""

import json
from pathlib import Path

from hyperspot import CocoBuilder, Detector, MissingPackageError, make_product_set, to_supervision, to_yolo

folder = Path("hyperspot-examples")
product = make_product_set(folder / "product", train=30, good=6, defective=6, size=192)
detector = Detector.fit(product / "train" / "good", short_side=192, false_alarm_rate=0.1)
verdicts = list(detector.predict_many(sorted((product / "test").rglob("*.png"))))

# One COCO document: every region with its box, area, score and run-length encoded mask.
coco = CocoBuilder()
for verdict in verdicts:
    coco.add(verdict)
(folder / "coco.json").write_text(json.dumps(coco.document()))
print(len(coco.document()["images"]), "images,", len(coco.document()["annotations"]), "annotations")

# One YOLO label file per image: class, center and size of each box, relative to the image.
first = next(verdict for verdict in verdicts if verdict.regions)
print(first.path, "in YOLO format:")
print(to_yolo(first), end="")

# supervision.Detections, for its annotators, trackers and zones: needs the extra `supervision`.
try:
    print(to_supervision(first).xyxy)
except MissingPackageError as error:
    print(error)
