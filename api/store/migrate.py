"""`python -m api.store.migrate`: brings the schema up to date and makes the first API key."""

from __future__ import annotations

import os
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import text

from api.settings import get_settings
from api.store import keys
from api.store.database import Database

DEFAULT_TENANT = "default"
_LOCK = 7_405_213  # one migration at a time, whoever starts it


def migrate(database: Database) -> None:
    """Runs every migration that is missing; safe to call from several processes at once."""
    with database.connection() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def make_first_key(database: Database, path: Path) -> None:
    """Writes a key to `path`, readable by its owner alone, if the database holds none."""
    with database.transaction() as session:
        session.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        if keys.has_keys(session):
            return
        secret = keys.create_key(session, tenant=DEFAULT_TENANT, name="first key")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secret + "\n")


def main() -> None:
    """Migrates the database that the settings name."""
    settings = get_settings()
    database = Database(settings.database_url, pool_size=1)
    migrate(database)
    make_first_key(database, settings.first_key_path)
    database.close()


if __name__ == "__main__":
    main()
