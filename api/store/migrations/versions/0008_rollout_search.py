"""Rollouts found by their words, and those that retention spares."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("rollouts", sa.Column("pinned", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    op.add_column("rollouts", sa.Column("words", postgresql.TSVECTOR(), server_default=sa.text("''"), nullable=False))
    op.execute("UPDATE rollouts SET words = to_tsvector('simple', prompt || ' ' || preview)")
    op.create_index("ix_rollouts_words", "rollouts", ["words"], postgresql_using="gin")


def downgrade() -> None:
    op.drop_index("ix_rollouts_words", table_name="rollouts")
    op.drop_column("rollouts", "words")
    op.drop_column("rollouts", "pinned")
