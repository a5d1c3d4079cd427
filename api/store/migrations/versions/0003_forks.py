"""A job has a name, and may begin at a checkpoint of another."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("name", sa.String(), nullable=True))
    op.add_column("jobs", sa.Column("base_checkpoint", sa.String(), nullable=True))
    op.add_column("jobs", sa.Column("base_job_id", sa.String(), nullable=True))
    op.add_column("jobs", sa.Column("base_step", sa.BigInteger(), nullable=True))
    op.create_foreign_key(op.f("fk_jobs_base_job_id_jobs"), "jobs", "jobs", ["base_job_id"], ["id"])
    op.create_index(op.f("ix_jobs_base_job_id"), "jobs", ["base_job_id"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_jobs_base_job_id"), table_name="jobs")
    op.drop_constraint(op.f("fk_jobs_base_job_id_jobs"), "jobs", type_="foreignkey")
    for column in ("base_step", "base_job_id", "base_checkpoint", "name"):
        op.drop_column("jobs", column)
