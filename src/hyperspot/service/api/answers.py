"""What routes answer about inspections."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hyperspot.service.api.base import ProblemDetails
from hyperspot.service.database.tables import Inspection, Label
from hyperspot.service.records.summary import summary_of

EXAMPLE: Any = {
    "id": "0b0f6ab9c53d4c5f8f7d3f6ad10c4a52",
    "number": 1204,
    "product": "bolt",
    "version": 3,
    "serial_number": "7",
    "lot": None,
    "station": "press 3",
    "source": "rest",
    "received_at": "2026-05-04T06:12:09.114021+00:00",
    "score": 1.42,
    "p_value": 0.0021,
    "threshold": 1.1,
    "is_anomalous": True,
    "reasons": [],
    "part_found": None,
    "zones": {},
    "regions": [{"left": 24, "top": 24, "width": 16, "height": 16, "area": 251, "score": 1.42}],
    "width": 640,
    "height": 480,
    "milliseconds": 11.8,
    "review_reason": "alarm",
    "links": {
        "self": "/api/v1/inspections/0b0f6ab9c53d4c5f8f7d3f6ad10c4a52",
        "image": "/api/v1/inspections/0b0f6ab9c53d4c5f8f7d3f6ad10c4a52/image",
        "overlay": "/api/v1/inspections/0b0f6ab9c53d4c5f8f7d3f6ad10c4a52/overlay",
        "mask": "/api/v1/inspections/0b0f6ab9c53d4c5f8f7d3f6ad10c4a52/mask",
        "heatmap": "/api/v1/inspections/0b0f6ab9c53d4c5f8f7d3f6ad10c4a52/heatmap",
    },
}


class InspectionAnswer(BaseModel):
    """An inspection without its pixels."""

    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE]})

    id: str = Field(description="Names the inspection in addresses.")
    number: int = Field(description="In the order of records; pages of lists begin before a number.")
    product: str
    version: int = Field(description="Number of the version that inspected.")
    serial_number: str | None
    lot: str | None
    station: str | None
    source: str = Field(description="`rest`, `lookout`, or the name of a source.")
    received_at: datetime
    score: float
    p_value: float | None = Field(description="Chance that a good part scores so high or higher, in 0..1.")
    threshold: float | None = Field(description="Scores above it are anomalous.")
    is_anomalous: bool | None = Field(description="The decision; null without calibration.")
    reasons: list[str] = Field(description="Why it is anomalous beside the score, one sentence each.")
    part_found: bool | None = Field(description="Whether registration found the part; null without registration.")
    zones: dict[str, float] = Field(description="Scores of the zones of the inspection plan.")
    regions: list[dict[str, Any]] = Field(
        description="`left`, `top`, `width`, `height`, `area`, `score`; with rules on sizes `length_px`, `width_px`, "
        "with a scale `length_mm`, `width_mm` and `area_mm2`, with zones `zone`."
    )
    width: int = Field(description="Of the upright image, in pixels.")
    height: int
    milliseconds: float = Field(description="Time of the prediction.")
    review_reason: str | None = Field(description="`alarm`, `near-miss` or `sample`; null if it is not in review.")
    links: dict[str, str] = Field(description="Paths on the station: `self`, `image`, `overlay`, `mask`, `heatmap`.")


class LabelAnswer(BaseModel):
    """What a reviewer said."""

    id: int
    reviewer: str
    label: Literal["defect", "good", "unsure"]
    comment: str
    has_mask: bool
    created_at: datetime


class OneInspection(InspectionAnswer):
    """An inspection, with what is known about its part."""

    checks: dict[str, float] = Field(description="`brightness`, `focus`, `position_x`, `position_y` of the image.")
    has_image: bool = Field(description="Whether the image is kept; retention removes old ones.")
    label: str | None = Field(description="What the reviewers say together: a label, `disagreement` or null.")
    labels: list[LabelAnswer] = Field(description="The newest label of each reviewer.")
    history: list[InspectionAnswer] = Field(description="Other inspections with the serial number, the newest first.")


class InspectionList(BaseModel):
    """A page of inspections, the newest first."""

    inspections: list[InspectionAnswer]
    next: str | None = Field(description="Path of the next page; null on the last one.")


class BatchResult(BaseModel):
    """What became of one image of a batch."""

    status: int = Field(description="As if the image had been sent alone.")
    inspection: InspectionAnswer | None = None
    problem: ProblemDetails | None = None


class BatchAnswer(BaseModel):
    """What became of the images of a batch, in their order."""

    results: list[BatchResult]


def answer_of(inspection: Inspection) -> InspectionAnswer:
    """Return the answer about an inspection."""
    return InspectionAnswer(**summary_of(inspection))


def label_answer(label: Label) -> LabelAnswer:
    """Return the answer about a label."""
    return LabelAnswer(
        id=label.id,
        reviewer=label.reviewer,
        label=label.label,  # type: ignore[arg-type]
        comment=label.comment,
        has_mask=label.mask is not None,
        created_at=label.created_at,
    )
