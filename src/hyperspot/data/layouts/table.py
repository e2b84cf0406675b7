"""A CSV table that lists every image."""

from pathlib import Path

from hyperspot.data.layouts.base import Found, Layout, Sample, label_of, split_of, table_rows
from hyperspot.errors import DataError


def _read_manifest(table: Path) -> Found:
    """Read a CSV table with the columns path, split, label and optionally mask and defect."""
    samples = []
    for line, row in table_rows(table, ("path", "split", "label")):
        where = f"line {line} of {table}"
        path = table.parent / row["path"]
        if not row["path"] or not path.is_file():
            raise DataError(f"{where} names the image '{row['path']}', which does not exist; correct the path")
        split = split_of(row["split"], where)
        label = label_of(row["label"], where)
        masks = tuple(table.parent / part.strip() for part in row.get("mask", "").split("|") if part.strip())
        for mask in masks:
            if not mask.is_file():
                raise DataError(f"{where} names the mask '{mask.name}', which does not exist; correct the path")
        defect = {0: "good", 1: row.get("defect") or "defect", None: ""}[label]
        samples.append(Sample(path, label, split, defect, masks if label != 0 else ()))
    return Found(samples, [])


TABLE = Layout(
    lambda root: root.is_file() and root.suffix.lower() == ".csv",
    _read_manifest,
    "a CSV table with the columns path, split and label",
)
