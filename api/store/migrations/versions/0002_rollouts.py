"""Recorded rollouts: one row per response."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "rollouts",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("step", sa.BigInteger(), nullable=False),
        sa.Column("place", sa.BigInteger(), nullable=False),
        sa.Column("first_token", sa.BigInteger(), nullable=False),
        sa.Column("prompt_index", sa.BigInteger(), nullable=False),
        sa.Column("sample_index", sa.BigInteger(), nullable=False),
        sa.Column("reward", sa.Float(), nullable=False),
        sa.Column("advantage", sa.Float(), nullable=False),
        sa.Column("length", sa.BigInteger(), nullable=False),
        sa.Column("finish", sa.String(), nullable=False),
        sa.Column("num_candidates", sa.BigInteger(), nullable=False),
        sa.Column("num_masked", sa.BigInteger(), nullable=False),
        sa.Column("num_clipped", sa.BigInteger(), nullable=False),
        sa.Column("min_p", sa.Float(), nullable=False),
        sa.Column("mean_entropy", sa.Float(), nullable=True),
        sa.Column("prompt", sa.String(), nullable=False),
        sa.Column("preview", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_rollouts_job_id_jobs"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollouts")),
        sa.UniqueConstraint("number", name=op.f("uq_rollouts_number")),
        sa.UniqueConstraint("job_id", "step", "place", name=op.f("uq_rollouts_job_id_step_place")),
    )


def downgrade() -> None:
    op.drop_table("rollouts")
