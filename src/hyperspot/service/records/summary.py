"""An inspection as JSON values, the same in REST, events, outputs and exports."""

from typing import Any

from hyperspot.service.database.tables import Inspection

API = "/api/v1"
PICTURES = ("image", "overlay", "mask", "heatmap")


def summary_of(inspection: Inspection) -> dict[str, Any]:
    """Return everything about an inspection but its pixels.

    `regions` are in pixels, and in millimeters where the model has a scale. `links` are paths on the station.
    """
    address = f"{API}/inspections/{inspection.id}"
    verdict = inspection.verdict
    return {
        "id": inspection.id,
        "number": inspection.number,
        "product": inspection.product_id,
        "version": inspection.version_number,
        "serial_number": inspection.serial_number,
        "lot": inspection.lot,
        "station": inspection.station,
        "source": inspection.source,
        "received_at": inspection.received_at.isoformat(),
        "score": inspection.score,
        "p_value": inspection.p_value,
        "threshold": inspection.threshold,
        "is_anomalous": inspection.is_anomalous,
        "reasons": verdict["reasons"],
        "part_found": verdict["part_found"],
        "zones": verdict["zones"],
        "regions": verdict["regions"],
        "width": inspection.width,
        "height": inspection.height,
        "milliseconds": round(inspection.milliseconds, 3),
        "review_reason": inspection.review_reason,
        "links": {"self": address} | {name: f"{address}/{name}" for name in PICTURES},
    }
