"""Has the migration of this version run? Pods ask before they start; compose waits for the migration itself."""

from __future__ import annotations

import sys
from pathlib import Path

from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from api.settings import get_settings
from api.store import migrations
from api.store.database import Database, Outage


def main() -> str | None:
    """None when the schema is this version's, else what it is waiting for."""
    wanted = ScriptDirectory(str(Path(migrations.__file__).parent)).get_current_head()
    database = Database(get_settings().database_url, pool_size=1)
    try:
        with database.connection() as connection:
            found = MigrationContext.configure(connection).get_current_revision()
    except Outage:
        return "the database does not answer"
    finally:
        database.close()
    return None if found == wanted else f"the schema is at {found or 'nothing'}, this version needs {wanted}"


if __name__ == "__main__":
    sys.exit(main())
