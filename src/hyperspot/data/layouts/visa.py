"""VisA: its CSV split, or its folders."""

from pathlib import Path

from hyperspot.data.layouts.base import (
    Found,
    Layout,
    Sample,
    has_folder,
    image_files,
    label_of,
    masks_by_stem,
    orphan_masks,
    set_aside,
    split_of,
    table_rows,
)

ONE_OF = 10
"""Without the official split, one of so many good images becomes a test image."""


def visa_objects(root: Path) -> dict[str, list[dict[str, str]]]:
    """Return the rows of VisA's official one-class split by object; empty without that file."""
    table = root / "split_csv" / "1cls.csv"
    objects: dict[str, list[dict[str, str]]] = {}
    if table.is_file():
        for _, row in table_rows(table, ("object", "split", "label", "image", "mask")):
            objects.setdefault(row["object"], []).append(row)
    return objects


def _read_visa(root: Path) -> Found:
    rows = visa_objects(root.parent).get(root.name)
    if rows is None:
        return _read_visa_folders(root)
    samples, problems = [], []
    for row in rows:
        path = root.parent / row["image"]
        label = label_of(row["label"], root.parent / "split_csv" / "1cls.csv")
        masks = (root.parent / row["mask"],) if row["mask"] and label == 1 else ()
        if path.is_file():
            samples.append(Sample(path, label, split_of(row["split"], path), "anomaly" if label else "good", masks))
        else:
            problems.append(f"{row['image']} is listed in split_csv/1cls.csv but missing; it is left out")
    return Found(samples, problems, (root / "Data" / "Masks",))


def _read_visa_folders(root: Path) -> Found:
    images, masks = root / "Data" / "Images", masks_by_stem(root / "Data" / "Masks" / "Anomaly")
    anomalous = image_files(images / "Anomaly")
    samples = set_aside(image_files(images / "Normal"), root, ONE_OF)
    samples += [Sample(path, 1, "test", "anomaly", masks.get(path.stem, ())) for path in anomalous]
    problems = [f"split_csv/1cls.csv is missing: one of {ONE_OF} good images was set aside for the test"]
    orphans = orphan_masks(masks, {path.stem for path in anomalous}, root)
    return Found(samples, problems + orphans, (root / "Data" / "Masks",))


VISA = Layout(has_folder("Data/Images"), _read_visa, "Data/Images/Normal and Data/Images/Anomaly")
