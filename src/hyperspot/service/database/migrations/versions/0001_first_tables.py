"""The first tables."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Apply."""
    op.create_table(
        "audit",
        sa.Column("id", KEY, autoincrement=True, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("who", sa.String(length=100), nullable=False),
        sa.Column("action", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=200), nullable=False),
        sa.Column("details", JSON, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_audit_at", "audit", ["at"], unique=False)
    op.create_table(
        "images",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("suffix", sa.String(length=8), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("stored_at", TIME, nullable=False),
        sa.Column("removed_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("sha256"),
    )
    op.create_index("ix_images_stored_at", "images", ["stored_at"], unique=False)
    op.create_table(
        "products",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("active_version_id", KEY, nullable=True),
        sa.Column("review_share", sa.Float(), nullable=False),
        sa.Column("near_miss", sa.Float(), nullable=False),
        sa.Column("inspection_plan", JSON, nullable=True),
        sa.Column("is_archived", sa.Boolean(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "tokens",
        sa.Column("id", KEY, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("created_by", sa.String(length=100), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=True),
        sa.Column("last_used_at", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("digest"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "users",
        sa.Column("id", KEY, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("password_hash", sa.String(length=200), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.Column("language", sa.String(length=8), nullable=True),
        sa.Column("is_disabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "jobs",
        sa.Column("id", KEY, autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("product_id", sa.String(length=64), nullable=True),
        sa.Column("parameters", JSON, nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("progress", JSON, nullable=False),
        sa.Column("result", JSON, nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("heartbeat_at", TIME, nullable=True),
        sa.Column("created_by", sa.String(length=100), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("started_at", TIME, nullable=True),
        sa.Column("finished_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["product_id"],
            ["products.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_jobs_product_id", "jobs", ["product_id"], unique=False)
    op.create_index("ix_jobs_state", "jobs", ["state"], unique=False)
    op.create_table(
        "model_versions",
        sa.Column("id", KEY, autoincrement=True, nullable=False),
        sa.Column("product_id", sa.String(length=64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("suffix", sa.String(length=32), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("origin", sa.String(length=16), nullable=False),
        sa.Column("made_by", JSON, nullable=False),
        sa.Column("description", JSON, nullable=False),
        sa.Column("false_alarm_rate", sa.Float(), nullable=True),
        sa.Column("threshold", sa.Float(), nullable=True),
        sa.Column("calibration_images", sa.Integer(), nullable=False),
        sa.Column("calibration", JSON, nullable=False),
        sa.Column("figures", JSON, nullable=False),
        sa.Column("training_statistics", JSON, nullable=False),
        sa.Column("note", sa.String(length=500), nullable=False),
        sa.Column("created_by", sa.String(length=100), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["product_id"],
            ["products.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("product_id", "number"),
    )
    op.create_index("ix_model_versions_product_id", "model_versions", ["product_id"], unique=False)
    op.create_table(
        "outputs",
        sa.Column("id", KEY, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("product_id", sa.String(length=64), nullable=True),
        sa.Column("settings", JSON, nullable=False),
        sa.Column("is_enabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["product_id"],
            ["products.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "sign_ins",
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("user_id", KEY, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("last_used_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
        ),
        sa.PrimaryKeyConstraint("digest"),
    )
    op.create_index("ix_sign_ins_user_id", "sign_ins", ["user_id"], unique=False)
    op.create_table(
        "sources",
        sa.Column("id", KEY, autoincrement=True, nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("product_id", sa.String(length=64), nullable=False),
        sa.Column("settings", JSON, nullable=False),
        sa.Column("is_enabled", sa.Boolean(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["product_id"],
            ["products.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "training_images",
        sa.Column("id", KEY, autoincrement=True, nullable=False),
        sa.Column("product_id", sa.String(length=64), nullable=False),
        sa.Column("image_sha256", sa.String(length=64), nullable=False),
        sa.Column("origin", sa.String(length=16), nullable=False),
        sa.Column("added_by", sa.String(length=100), nullable=False),
        sa.Column("added_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["image_sha256"],
            ["images.sha256"],
        ),
        sa.ForeignKeyConstraint(
            ["product_id"],
            ["products.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("product_id", "image_sha256"),
    )
    op.create_index("ix_training_images_image_sha256", "training_images", ["image_sha256"], unique=False)
    op.create_table(
        "alarms",
        sa.Column("id", KEY, autoincrement=True, nullable=False),
        sa.Column("product_id", sa.String(length=64), nullable=True),
        sa.Column("version_id", KEY, nullable=True),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("details", JSON, nullable=False),
        sa.Column("raised_at", TIME, nullable=False),
        sa.Column("acknowledged_by", sa.String(length=100), nullable=True),
        sa.Column("acknowledged_at", TIME, nullable=True),
        sa.ForeignKeyConstraint(
            ["product_id"],
            ["products.id"],
        ),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["model_versions.id"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_alarms_product_id", "alarms", ["product_id"], unique=False)
    op.create_table(
        "inspections",
        sa.Column("number", KEY, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("product_id", sa.String(length=64), nullable=False),
        sa.Column("version_id", KEY, nullable=False),
        sa.Column("version_number", sa.Integer(), nullable=False),
        sa.Column("image_sha256", sa.String(length=64), nullable=False),
        sa.Column("idempotency_key", sa.String(length=200), nullable=True),
        sa.Column("serial_number", sa.String(length=200), nullable=True),
        sa.Column("lot", sa.String(length=200), nullable=True),
        sa.Column("station", sa.String(length=200), nullable=True),
        sa.Column("source", sa.String(length=100), nullable=False),
        sa.Column("received_at", TIME, nullable=False),
        sa.Column("recorded_at", TIME, nullable=False),
        sa.Column("score", sa.Float(), nullable=False),
        sa.Column("p_value", sa.Float(), nullable=True),
        sa.Column("threshold", sa.Float(), nullable=True),
        sa.Column("is_anomalous", sa.Boolean(), nullable=True),
        sa.Column("milliseconds", sa.Float(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("result_size", sa.BigInteger(), nullable=False),
        sa.Column("verdict", JSON, nullable=False),
        sa.Column("rendering", JSON, nullable=False),
        sa.Column("checks", JSON, nullable=False),
        sa.Column("review_reason", sa.String(length=16), nullable=True),
        sa.ForeignKeyConstraint(
            ["image_sha256"],
            ["images.sha256"],
        ),
        sa.ForeignKeyConstraint(
            ["product_id"],
            ["products.id"],
        ),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["model_versions.id"],
        ),
        sa.PrimaryKeyConstraint("number"),
        sa.UniqueConstraint("id"),
        sa.UniqueConstraint("product_id", "idempotency_key"),
    )
    op.create_index("ix_inspections_image_sha256", "inspections", ["image_sha256"], unique=False)
    op.create_index("ix_inspections_is_anomalous", "inspections", ["is_anomalous"], unique=False)
    op.create_index("ix_inspections_lot", "inspections", ["lot"], unique=False)
    op.create_index("ix_inspections_product_number", "inspections", ["product_id", "number"], unique=False)
    op.create_index(
        "ix_inspections_product_received",
        "inspections",
        ["product_id", "received_at", "station", "is_anomalous"],
        unique=False,
    )
    op.create_index("ix_inspections_product_serial", "inspections", ["product_id", "serial_number"], unique=False)
    op.create_index("ix_inspections_product_station", "inspections", ["product_id", "station", "number"], unique=False)
    op.create_index("ix_inspections_review_reason", "inspections", ["review_reason"], unique=False)
    op.create_index("ix_inspections_version_id", "inspections", ["version_id"], unique=False)
    op.create_table(
        "monitor_states",
        sa.Column("version_id", KEY, nullable=False),
        sa.Column("last_number", KEY, nullable=False),
        sa.Column("state", JSON, nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"],
            ["model_versions.id"],
        ),
        sa.PrimaryKeyConstraint("version_id"),
    )
    op.create_table(
        "deliveries",
        sa.Column("id", KEY, autoincrement=True, nullable=False),
        sa.Column("output_id", KEY, nullable=False),
        sa.Column("inspection_number", KEY, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("refused_at", TIME, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["inspection_number"],
            ["inspections.number"],
        ),
        sa.ForeignKeyConstraint(["output_id"], ["outputs.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_deliveries_output_id", "deliveries", ["output_id"], unique=False)
    op.create_table(
        "labels",
        sa.Column("id", KEY, autoincrement=True, nullable=False),
        sa.Column("inspection_number", KEY, nullable=False),
        sa.Column("reviewer", sa.String(length=100), nullable=False),
        sa.Column("label", sa.String(length=16), nullable=False),
        sa.Column("mask", sa.LargeBinary(), nullable=True),
        sa.Column("comment", sa.String(length=1000), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["inspection_number"],
            ["inspections.number"],
        ),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_labels_inspection_number", "labels", ["inspection_number"], unique=False)
    op.create_index("ix_labels_reviewer", "labels", ["reviewer"], unique=False)
    op.create_table(
        "source_files",
        sa.Column("id", KEY, autoincrement=True, nullable=False),
        sa.Column("source_id", KEY, nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("modified_ns", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("inspection_number", KEY, nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("at", TIME, nullable=False),
        sa.ForeignKeyConstraint(
            ["inspection_number"],
            ["inspections.number"],
        ),
        sa.ForeignKeyConstraint(["source_id"], ["sources.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("source_id", "path", "size", "modified_ns"),
    )
    op.create_index("ix_source_files_sha256", "source_files", ["sha256"], unique=False)
    op.create_index("ix_source_files_source_id", "source_files", ["source_id"], unique=False)


def downgrade() -> None:
    """Take back."""
    op.drop_index("ix_source_files_source_id", table_name="source_files")
    op.drop_index("ix_source_files_sha256", table_name="source_files")
    op.drop_table("source_files")
    op.drop_index("ix_labels_reviewer", table_name="labels")
    op.drop_index("ix_labels_inspection_number", table_name="labels")
    op.drop_table("labels")
    op.drop_index("ix_deliveries_output_id", table_name="deliveries")
    op.drop_table("deliveries")
    op.drop_table("monitor_states")
    op.drop_index("ix_inspections_version_id", table_name="inspections")
    op.drop_index("ix_inspections_review_reason", table_name="inspections")
    op.drop_index("ix_inspections_product_station", table_name="inspections")
    op.drop_index("ix_inspections_product_serial", table_name="inspections")
    op.drop_index("ix_inspections_product_received", table_name="inspections")
    op.drop_index("ix_inspections_product_number", table_name="inspections")
    op.drop_index("ix_inspections_lot", table_name="inspections")
    op.drop_index("ix_inspections_is_anomalous", table_name="inspections")
    op.drop_index("ix_inspections_image_sha256", table_name="inspections")
    op.drop_table("inspections")
    op.drop_index("ix_alarms_product_id", table_name="alarms")
    op.drop_table("alarms")
    op.drop_index("ix_training_images_image_sha256", table_name="training_images")
    op.drop_table("training_images")
    op.drop_table("sources")
    op.drop_index("ix_sign_ins_user_id", table_name="sign_ins")
    op.drop_table("sign_ins")
    op.drop_table("outputs")
    op.drop_index("ix_model_versions_product_id", table_name="model_versions")
    op.drop_table("model_versions")
    op.drop_index("ix_jobs_state", table_name="jobs")
    op.drop_index("ix_jobs_product_id", table_name="jobs")
    op.drop_table("jobs")
    op.drop_table("users")
    op.drop_table("tokens")
    op.drop_table("products")
    op.drop_index("ix_images_stored_at", table_name="images")
    op.drop_table("images")
    op.drop_index("ix_audit_at", table_name="audit")
    op.drop_table("audit")
