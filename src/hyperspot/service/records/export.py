"""Inspections as rows of a table: CSV and Parquet."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from hyperspot.service.database import Database
from hyperspot.service.database.tables import Inspection
from hyperspot.service.records.search import Filters, search
from hyperspot.service.review.labels import consensus, labels_of
from hyperspot.utils.optional_packages import require

COLUMNS = {
    "number": "int64",
    "id": "string",
    "product": "string",
    "version": "int32",
    "serial_number": "string",
    "lot": "string",
    "station": "string",
    "source": "string",
    "received_at": "timestamp",
    "score": "float64",
    "p_value": "float64",
    "threshold": "float64",
    "is_anomalous": "bool",
    "reasons": "string",
    "regions": "int32",
    "defect_area_px": "int64",
    "defect_area_mm2": "float64",
    "label": "string",
    "review_reason": "string",
    "width": "int32",
    "height": "int32",
    "milliseconds": "float64",
    "brightness": "float64",
    "focus": "float64",
    "position_x": "float64",
    "position_y": "float64",
    "image_sha256": "string",
}
"""Types of the columns of an export, in their order."""
AT_ONCE = 1000
"""Inspections that are read together."""
ROW_GROUP = 10_000
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def rows_of(database: Database, filters: Filters) -> Iterator[dict[str, Any]]:
    """Yield a row for each inspection, the newest first; those that are recorded meanwhile are left out."""
    before = None
    while True:
        # Each page has a transaction of its own: a slow receiver keeps none open.
        with database.session() as session:
            found = search(session, filters, AT_ONCE, before)
            labels = labels_of(session, [one.number for one in found])
        yield from (_row(one, consensus(labels[one.number])) for one in found)
        if len(found) < AT_ONCE:
            return
        before = found[-1].number


def _row(one: Inspection, label: str | None) -> dict[str, Any]:
    regions = one.verdict["regions"]
    areas = [region["area_mm2"] for region in regions if "area_mm2" in region]
    checks = {name: one.checks.get(name) for name in ("brightness", "focus", "position_x", "position_y")}
    return {
        "number": one.number,
        "id": one.id,
        "product": one.product_id,
        "version": one.version_number,
        "serial_number": one.serial_number,
        "lot": one.lot,
        "station": one.station,
        "source": one.source,
        "received_at": one.received_at,
        "score": one.score,
        "p_value": one.p_value,
        "threshold": one.threshold,
        "is_anomalous": one.is_anomalous,
        "reasons": "; ".join(one.verdict["reasons"]),
        "regions": len(regions),
        "defect_area_px": sum(region["area"] for region in regions),
        "defect_area_mm2": sum(areas) if len(areas) == len(regions) and areas else None,
        "label": label,
        "review_reason": one.review_reason,
        "width": one.width,
        "height": one.height,
        "milliseconds": one.milliseconds,
        **checks,
        "image_sha256": one.image_sha256,
    }


def safe_for_spreadsheets(value: Any) -> Any:
    """Return a value of a CSV file: an apostrophe before a text that a spreadsheet would run as a formula.

    Examples:
        >>> from hyperspot.service.records.export import safe_for_spreadsheets
        >>> safe_for_spreadsheets("=cmd()"), safe_for_spreadsheets(-1.5), safe_for_spreadsheets("7-a")
        ("'=cmd()", -1.5, '7-a')

    """
    if isinstance(value, str):
        return f"'{value}" if value.lstrip(" ").startswith(FORMULA) else value
    return value.isoformat() if hasattr(value, "isoformat") else value


def write_parquet(rows: Iterator[dict[str, Any]], path: Path) -> None:
    """Write rows as a Parquet file, in groups, so that memory does not grow with their number."""
    pyarrow = require("pyarrow", "serve", "the export as Parquet")
    parquet = require("pyarrow.parquet", "serve", "the export as Parquet")
    types = {"timestamp": pyarrow.timestamp("us", tz="UTC"), "bool": pyarrow.bool_()}
    schema = pyarrow.schema([(name, types.get(kind) or getattr(pyarrow, kind)()) for name, kind in COLUMNS.items()])
    with parquet.ParquetWriter(path, schema) as writer:
        while group := list(islice(rows, ROW_GROUP)):
            writer.write_table(pyarrow.Table.from_pylist(group, schema=schema))
