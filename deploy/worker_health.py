"""The health check of a worker's container: has the worker on this host given a sign of life within its lease?

It asks the row that the worker's own housekeeping thread writes, so a worker whose threads hang is found out, and a
broker that is away makes nobody ill. While Postgres is away it fails: mark the container by it, never kill it for it.
"""

from __future__ import annotations

import socket
import sys

from api.settings import get_settings
from api.store import leases
from api.store.database import Database, Outage


def main() -> str | None:
    """None when all is well, else the sentence that ends up in the container's health log."""
    settings = get_settings()
    database = Database(settings.database_url, pool_size=1)
    host = socket.gethostname()
    try:
        with database.transaction() as session:
            if leases.is_worker_alive(session, silent_s=settings.lease_s, prefix=f"{host}:"):
                return None
    except Outage:
        return "the database does not answer"
    finally:
        database.close()
    return f"the worker on {host} has been silent for {settings.lease_s:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
