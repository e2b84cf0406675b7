"""What reviewers say about inspections."""

import io
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import numpy as np
from PIL import Image
from sqlalchemy import select
from sqlalchemy.orm import Session, defer

from hyperspot.service.access.audit import audit
from hyperspot.service.database.tables import Inspection, Label
from hyperspot.service.problems import Problem

LabelName = Literal["defect", "good", "unsure"]
LABELS: tuple[LabelName, ...] = get_args(LabelName)
Consensus = Literal["defect", "good", "unsure", "disagreement"]
LONGEST_COMMENT = 1000
MOST_MASK_BYTES = 20_000_000


def add_label(
    session: Session,
    inspection: Inspection,
    reviewer: str,
    label: str,
    mask: bytes | None = None,
    comment: str = "",
) -> Label:
    """Note what a reviewer says; an earlier label of the same reviewer is kept and no longer counts.

    Args:
        session: The transaction of the change.
        inspection: That is labeled.
        reviewer: Name of the user.
        label: `defect`, `good` or `unsure`.
        mask: PNG of the size of the image whose pixels are black outside of the defect; of defects alone.
        comment: Up to 1000 characters.

    Raises:
        Problem: 422 if a value does not fit.

    Examples:
        >>> from sqlalchemy import create_engine
        >>> from sqlalchemy.orm import Session
        >>> from hyperspot.service.database.tables import Base, Inspection
        >>> from hyperspot.service.review.labels import add_label
        >>> engine = create_engine("sqlite://")
        >>> Base.metadata.create_all(engine)
        >>> with Session(engine) as session:
        ...     add_label(session, Inspection(number=7, id="a1"), "ann", "defect", comment="scratch").label
        'defect'

    """
    if label not in LABELS:
        raise Problem(422, f"there is no label '{label[:20]}'; choose defect, good or unsure")
    if len(comment) > LONGEST_COMMENT:
        raise Problem(422, f"the comment has {len(comment)} characters; write at most {LONGEST_COMMENT}")
    if mask is not None and label != "defect":
        raise Problem(422, "only a defect has a mask; leave the mask out, or choose the label defect")
    bits = None if mask is None else _bits(mask, inspection.width, inspection.height)
    added = Label(
        inspection_number=inspection.number, reviewer=reviewer, label=label, mask=bits, comment=comment.strip()
    )
    session.add(added)
    session.flush()
    audit(session, reviewer, "label.add", inspection.id, label=label, mask=mask is not None)
    return added


def _bits(mask: bytes, width: int, height: int) -> bytes:
    """Return a mask as a PNG of one bit per pixel; raises Problem if it is none of this size."""
    if len(mask) > MOST_MASK_BYTES:
        raise Problem(413, f"the mask has more than {MOST_MASK_BYTES:,} bytes; send black and white alone")
    try:
        with Image.open(io.BytesIO(mask), formats=("PNG",)) as image:
            # Before it is decoded: a small file can decompress to more than the memory holds.
            if image.size != (width, height):
                raise Problem(
                    422,
                    f"the mask has {image.width} x {image.height} pixels and the image {width} x {height}; "
                    "draw it on the image",
                )
            marked = np.asarray(image.convert("RGBA" if image.mode in ("P", "PA") else "RGB"))[..., :3].any(axis=2)
    except Problem:
        raise
    except Exception as error:  # noqa: BLE001 - decoders of damaged files raise anything
        raise Problem(422, f"the mask is no readable PNG ({type(error).__name__}); save it again") from None
    if not marked.any():
        raise Problem(422, "the mask marks no pixel; draw the defect, or leave the mask out")
    content = io.BytesIO()
    Image.fromarray(marked).save(content, format="PNG", optimize=True)
    return content.getvalue()


def labels_of(session: Session, numbers: Sequence[int]) -> dict[int, list[Label]]:
    """Return the labels that count, the newest of each reviewer, by the numbers of inspections; oldest first."""
    found: dict[int, list[Label]] = {number: [] for number in numbers}
    for start in range(0, len(numbers), 500):
        query = select(Label).where(Label.inspection_number.in_(numbers[start : start + 500])).order_by(Label.id)
        # Lists and exports do not need the masks; `label.mask` reads one while the session is open.
        for label in session.scalars(query.options(defer(Label.mask))):
            found[label.inspection_number].append(label)
    return {number: newest(labels) for number, labels in found.items()}


def newest(labels: Iterable[Label]) -> list[Label]:
    """Return the newest label of each reviewer, given the oldest first."""
    latest: dict[str, Label] = {}
    for label in labels:
        latest.pop(label.reviewer, None)
        latest[label.reviewer] = label
    return list(latest.values())


def consensus(labels: Iterable[Label]) -> Consensus | None:
    """Return what the reviewers of an inspection say together; None without labels.

    Who is unsure leaves the decision to others. `disagreement` stays until one of the reviewers changes the label.

    Args:
        labels: Of one inspection, oldest first.

    Examples:
        >>> from hyperspot.service.database.tables import Label
        >>> from hyperspot.service.review.labels import consensus
        >>> ann, bob = Label(reviewer="ann", label="defect"), Label(reviewer="bob", label="good")
        >>> consensus([ann]), consensus([ann, bob]), consensus([ann, bob, Label(reviewer="ann", label="unsure")])
        ('defect', 'disagreement', 'good')

    """
    said = {label.label for label in newest(labels)}
    if {"defect", "good"} <= said:
        return "disagreement"
    for label in LABELS:
        if label in said:
            return label
    return None


def take_back(session: Session, label: Label) -> Inspection:
    """Remove a label that was given by mistake, and return its inspection; the audit log keeps both."""
    inspection = session.get_one(Inspection, label.inspection_number)
    session.delete(label)
    session.flush()
    audit(session, label.reviewer, "label.remove", inspection.id, label=label.label)
    return inspection
