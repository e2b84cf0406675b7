"""The tables of a station."""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """Times in UTC; SQLite keeps no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Any) -> Any:
        """Refuse times without a zone."""
        del dialect
        if value is not None and value.tzinfo is None:
            raise ValueError("a time without a zone")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: Any, dialect: Any) -> Any:
        """Return the time with its zone."""
        del dialect
        return None if value is None else value.replace(tzinfo=value.tzinfo or UTC)


Json = JSON().with_variant(JSONB(), "postgresql")
Key = BigInteger().with_variant(Integer(), "sqlite")
"""SQLite numbers rows in columns of type INTEGER alone."""


class Base(DeclarativeBase):
    """Base of all tables."""


class Product(Base):
    """What is inspected; requests name it by `id`, as the recipe."""

    __tablename__ = "products"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    """Lower-case letters, digits, `-`, `_` and `.`; see `products.catalog.check_id`."""
    name: Mapped[str] = mapped_column(String(200))
    active_version_id: Mapped[int | None] = mapped_column(Key)
    """Of `model_versions`; no foreign key, which would be circular."""
    review_share: Mapped[float] = mapped_column(Float, default=0.02)
    """Share of passed parts that go to review at random, in [0, 1]."""
    near_miss: Mapped[float] = mapped_column(Float, default=3.0)
    """Passed parts whose p-value is at most this many times the promised rate go to review."""
    inspection_plan: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """`InspectionPlan.to_dict`, used by the next training."""
    is_archived: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class ModelVersion(Base):
    """A model of a product; its files lie in `models/SHA256` and never change."""

    __tablename__ = "model_versions"
    __table_args__ = (UniqueConstraint("product_id", "number"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True, autoincrement=True)
    product_id: Mapped[str] = mapped_column(ForeignKey("products.id"), index=True)
    number: Mapped[int] = mapped_column(Integer)
    """1, 2, ... of its product."""
    sha256: Mapped[str] = mapped_column(String(64))
    """Of the file, or over the SHA-256 of the files of an exported detector."""
    suffix: Mapped[str] = mapped_column(String(32))
    """Of the first file: `.safetensors`, `.onnx` or `.xml`."""
    size: Mapped[int] = mapped_column(BigInteger)
    origin: Mapped[str] = mapped_column(String(16))
    """`uploaded`, `trained` or `updated`."""
    made_by: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    """How it was made: job, settings, images, command."""
    description: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    """`Predictor.describe()`."""
    false_alarm_rate: Mapped[float | None] = mapped_column(Float)
    threshold: Mapped[float | None] = mapped_column(Float)
    calibration_images: Mapped[int] = mapped_column(Integer, default=0)
    calibration: Mapped[dict[str, Any]] = mapped_column(Json, default=dict, deferred=True)
    """`kind`, `scores` of the calibration images, and whether they were `grouped`; read by the monitoring alone."""
    figures: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    """Measured on labeled inspections, by `review.learning`."""
    training_statistics: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    """Brightness, focus and position of the training images, by `monitoring.image_checks`."""
    note: Mapped[str] = mapped_column(String(500), default="")
    created_by: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class StoredImage(Base):
    """An image as it was received; its file is named by its SHA-256."""

    __tablename__ = "images"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    suffix: Mapped[str] = mapped_column(String(8))
    size: Mapped[int] = mapped_column(BigInteger)
    width: Mapped[int] = mapped_column(Integer)
    height: Mapped[int] = mapped_column(Integer)
    stored_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now, index=True)
    removed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When retention removed the file."""


class TrainingImage(Base):
    """An image of a good part that the next training of a product learns."""

    __tablename__ = "training_images"
    __table_args__ = (UniqueConstraint("product_id", "image_sha256"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True, autoincrement=True)
    product_id: Mapped[str] = mapped_column(ForeignKey("products.id"))
    image_sha256: Mapped[str] = mapped_column(ForeignKey("images.sha256"), index=True)
    origin: Mapped[str] = mapped_column(String(16))
    """`uploaded` or `reviewed`."""
    added_by: Mapped[str] = mapped_column(String(100))
    added_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class Inspection(Base):
    """One image of one part, and the verdict; written once, before it is answered."""

    __tablename__ = "inspections"
    __table_args__ = (
        UniqueConstraint("product_id", "idempotency_key"),
        Index("ix_inspections_product_number", "product_id", "number"),
        Index("ix_inspections_product_serial", "product_id", "serial_number"),
    )

    number: Mapped[int] = mapped_column(Key, primary_key=True, autoincrement=True)
    """In the order of records, whatever the clock does."""
    id: Mapped[str] = mapped_column(String(32), unique=True)
    """A random UUID, hexadecimal: addresses tell nothing about other inspections."""
    product_id: Mapped[str] = mapped_column(ForeignKey("products.id"))
    version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"), index=True)
    version_number: Mapped[int] = mapped_column(Integer)
    """Of the version, which never changes."""
    image_sha256: Mapped[str] = mapped_column(ForeignKey("images.sha256"), index=True)
    idempotency_key: Mapped[str | None] = mapped_column(String(200))
    serial_number: Mapped[str | None] = mapped_column(String(200))
    lot: Mapped[str | None] = mapped_column(String(200), index=True)
    station: Mapped[str | None] = mapped_column(String(200), index=True)
    source: Mapped[str] = mapped_column(String(100))
    """`rest`, or the name of a source."""
    received_at: Mapped[datetime] = mapped_column(UtcDateTime, index=True)
    recorded_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)
    score: Mapped[float] = mapped_column(Float)
    p_value: Mapped[float | None] = mapped_column(Float)
    threshold: Mapped[float | None] = mapped_column(Float)
    is_anomalous: Mapped[bool | None] = mapped_column(index=True)
    milliseconds: Mapped[float] = mapped_column(Float)
    width: Mapped[int] = mapped_column(Integer)
    height: Mapped[int] = mapped_column(Integer)
    """Of the upright image, in pixels."""
    result_size: Mapped[int] = mapped_column(BigInteger)
    """Bytes of the file of the anomaly map and the mask."""
    verdict: Mapped[dict[str, Any]] = mapped_column(Json)
    """`Verdict.to_dict()` without `image`."""
    rendering: Mapped[dict[str, Any]] = mapped_column(Json)
    """What drawing the verdict again takes beside the files; see `inference.outcome`."""
    checks: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    """Brightness, focus and position of the image, by `monitoring.image_checks`."""
    review_reason: Mapped[str | None] = mapped_column(String(16), index=True)
    """Why it is in the review queue: `alarm`, `near-miss` or `sample`; None if it is not."""


class Label(Base):
    """What a reviewer says about an inspection; the newest of each reviewer counts."""

    __tablename__ = "labels"

    id: Mapped[int] = mapped_column(Key, primary_key=True, autoincrement=True)
    inspection_number: Mapped[int] = mapped_column(ForeignKey("inspections.number"), index=True)
    reviewer: Mapped[str] = mapped_column(String(100), index=True)
    label: Mapped[str] = mapped_column(String(16))
    """`defect`, `good` or `unsure`."""
    mask: Mapped[bytes | None] = mapped_column(LargeBinary)
    """1-bit PNG of the size of the image."""
    comment: Mapped[str] = mapped_column(String(1000), default="")
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class Job(Base):
    """Work that takes long, in a process of its own: `train`, `update`, `import`, `compare`."""

    __tablename__ = "jobs"

    id: Mapped[int] = mapped_column(Key, primary_key=True, autoincrement=True)
    kind: Mapped[str] = mapped_column(String(32))
    product_id: Mapped[str | None] = mapped_column(ForeignKey("products.id"), index=True)
    parameters: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    state: Mapped[str] = mapped_column(String(16), default="queued", index=True)
    """`queued`, `running`, `done`, `failed` or `canceled`."""
    progress: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    """`stage`, `done`, `total`, `seconds_left`."""
    result: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    error: Mapped[str | None] = mapped_column(Text)
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    heartbeat_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    created_by: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class User(Base):
    """A person who signs in."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(Key, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    password_hash: Mapped[str] = mapped_column(String(200))
    """Argon2id; empty: signs in by a one-time link alone."""
    role: Mapped[str] = mapped_column(String(16))
    """`operator`, `engineer` or `admin`."""
    language: Mapped[str | None] = mapped_column(String(8))
    is_disabled: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class Token(Base):
    """What a program signs in with; only its SHA-256 is kept."""

    __tablename__ = "tokens"

    id: Mapped[int] = mapped_column(Key, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    digest: Mapped[str] = mapped_column(String(64), unique=True)
    role: Mapped[str] = mapped_column(String(16))
    created_by: Mapped[str] = mapped_column(String(100))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class SignIn(Base):
    """A session of a browser, or a one-time link; only the SHA-256 of its secret is kept."""

    __tablename__ = "sign_ins"

    digest: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    """`session` or `link`."""
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)
    last_used_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)
    """Written at most once a minute."""
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)


class AuditEntry(Base):
    """Who changed what; never changed or removed."""

    __tablename__ = "audit"

    id: Mapped[int] = mapped_column(Key, primary_key=True, autoincrement=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime, default=now, index=True)
    who: Mapped[str] = mapped_column(String(100))
    action: Mapped[str] = mapped_column(String(64))
    """For example `version.activate`."""
    subject: Mapped[str] = mapped_column(String(200))
    details: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)


class Source(Base):
    """Where images come from: a folder, a camera."""

    __tablename__ = "sources"

    id: Mapped[int] = mapped_column(Key, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    kind: Mapped[str] = mapped_column(String(32))
    product_id: Mapped[str] = mapped_column(ForeignKey("products.id"))
    settings: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    is_enabled: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class SourceFile(Base):
    """A file of a watched folder that was processed, skipped or failed."""

    __tablename__ = "source_files"
    __table_args__ = (UniqueConstraint("source_id", "path", "size", "modified_ns"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True, autoincrement=True)
    source_id: Mapped[int] = mapped_column(ForeignKey("sources.id", ondelete="CASCADE"), index=True)
    path: Mapped[str] = mapped_column(Text)
    """Relative to the folder."""
    size: Mapped[int] = mapped_column(BigInteger)
    modified_ns: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str | None] = mapped_column(String(64), index=True)
    state: Mapped[str] = mapped_column(String(16))
    """`processed`, `duplicate` or `failed`."""
    inspection_number: Mapped[int | None] = mapped_column(ForeignKey("inspections.number"))
    error: Mapped[str | None] = mapped_column(Text)
    at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class Output(Base):
    """Where verdicts go: a webhook, a broker, a PLC."""

    __tablename__ = "outputs"

    id: Mapped[int] = mapped_column(Key, primary_key=True, autoincrement=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    kind: Mapped[str] = mapped_column(String(32))
    product_id: Mapped[str | None] = mapped_column(ForeignKey("products.id"))
    """None: all products."""
    settings: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    is_enabled: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class Delivery(Base):
    """A verdict that waits for an output; written with the inspection, removed when it arrived."""

    __tablename__ = "deliveries"

    id: Mapped[int] = mapped_column(Key, primary_key=True, autoincrement=True)
    output_id: Mapped[int] = mapped_column(ForeignKey("outputs.id", ondelete="CASCADE"), index=True)
    inspection_number: Mapped[int] = mapped_column(ForeignKey("inspections.number"))
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    last_error: Mapped[str | None] = mapped_column(Text)
    refused_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When it was set aside, as the receiver refuses it for good; it is not sent again by itself."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)


class Alarm(Base):
    """Something about the process, not about one part, that a person has to look at."""

    __tablename__ = "alarms"

    id: Mapped[int] = mapped_column(Key, primary_key=True, autoincrement=True)
    product_id: Mapped[str | None] = mapped_column(ForeignKey("products.id"), index=True)
    version_id: Mapped[int | None] = mapped_column(ForeignKey("model_versions.id"))
    kind: Mapped[str] = mapped_column(String(32))
    """`drift`, `brightness`, `focus`, `position`, `false-alarms`, `source`, `output` or `disk`."""
    message: Mapped[str] = mapped_column(Text)
    details: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
    raised_at: Mapped[datetime] = mapped_column(UtcDateTime, default=now)
    acknowledged_by: Mapped[str | None] = mapped_column(String(100))
    acknowledged_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class MonitorState(Base):
    """Where the monitoring of a version stands, so that a restart continues it."""

    __tablename__ = "monitor_states"

    version_id: Mapped[int] = mapped_column(ForeignKey("model_versions.id"), primary_key=True)
    last_number: Mapped[int] = mapped_column(Key, default=0)
    """The last inspection it has seen."""
    state: Mapped[dict[str, Any]] = mapped_column(Json, default=dict)
