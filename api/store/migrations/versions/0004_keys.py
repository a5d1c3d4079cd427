"""Keys have a prefix, scopes, an end, and a time of last use."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ALL_SCOPES = '["jobs:read", "jobs:write", "artifacts:read", "admin"]'


def upgrade() -> None:
    op.add_column("api_keys", sa.Column("number", sa.BigInteger(), sa.Identity(always=True), nullable=False))
    op.add_column("api_keys", sa.Column("prefix", sa.String(), server_default="", nullable=False))
    op.add_column("api_keys", sa.Column("scopes", postgresql.JSONB(), server_default=ALL_SCOPES, nullable=False))
    op.add_column("api_keys", sa.Column("expires_at", postgresql.TIMESTAMP(timezone=True), nullable=True))
    op.add_column("api_keys", sa.Column("last_used_at", postgresql.TIMESTAMP(timezone=True), nullable=True))
    op.alter_column("api_keys", "scopes", server_default=None)
    op.alter_column("api_keys", "prefix", server_default=None)
    op.create_unique_constraint(op.f("uq_api_keys_number"), "api_keys", ["number"])
    op.create_index(op.f("ix_api_keys_tenant_number"), "api_keys", ["tenant", "number"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_api_keys_tenant_number"), table_name="api_keys")
    op.drop_constraint(op.f("uq_api_keys_number"), "api_keys", type_="unique")
    for column in ("last_used_at", "expires_at", "scopes", "prefix", "number"):
        op.drop_column("api_keys", column)
