"""The migrations make exactly the schema that the code declares, whatever was forgotten in either."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from api.store.database import Database
from api.store.tables import Base


def test_the_migrations_make_the_declared_tables(database: Database) -> None:
    with database.connection() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
