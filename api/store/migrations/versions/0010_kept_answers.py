"""Kept answers are whole, and the old ones are found without reading all."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("DELETE FROM idempotency_keys WHERE status IS NULL OR response IS NULL")
    op.alter_column("idempotency_keys", "status", nullable=False)
    op.alter_column("idempotency_keys", "response", nullable=False)
    op.create_index(op.f("ix_idempotency_keys_created_at"), "idempotency_keys", ["created_at"])


def downgrade() -> None:
    op.drop_index(op.f("ix_idempotency_keys_created_at"), "idempotency_keys")
    op.alter_column("idempotency_keys", "response", nullable=True)
    op.alter_column("idempotency_keys", "status", nullable=True)
