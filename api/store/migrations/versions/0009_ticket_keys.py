"""A stream ticket ends with the key that it was asked for with."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("stream_tickets", sa.Column("key_id", sa.String(), nullable=True))
    op.create_foreign_key(
        op.f("fk_stream_tickets_key_id_api_keys"), "stream_tickets", "api_keys", ["key_id"], ["id"], ondelete="CASCADE"
    )


def downgrade() -> None:
    op.drop_constraint(op.f("fk_stream_tickets_key_id_api_keys"), "stream_tickets", type_="foreignkey")
    op.drop_column("stream_tickets", "key_id")
