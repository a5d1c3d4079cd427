"""The connection to Postgres and the one way to open a transaction."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Connection, create_engine, event, exc, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.orm import Session as Session
from sqlalchemy.orm import sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

from api.errors import Unprocessable

CONNECT_TIMEOUT_S = 5
RESTED_S = 1.0
# A connection whose other end is gone without a word ends within half a minute, not after the hours of the kernel.
_KEEPALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 30_000}


class Outage(Exception):
    """Postgres does not answer. Nothing was written, unless the answer to a commit was lost on the way."""


class Database:
    """An engine and its sessions. Create one per process, close it at the end.

    Postgres breaks off a transaction in which nothing was said for `silent_s` seconds, and gives its locks free: a
    process that is suspended in the middle of one would hold its job for as long as it sleeps.
    """

    def __init__(self, url: str, *, pool_size: int = 10, silent_s: float = 60.0) -> None:
        self._engine = create_engine(
            url,
            pool_size=pool_size,
            max_overflow=pool_size,
            connect_args={"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "stapo"} | _KEEPALIVE,
        )
        event.listen(self._engine, "connect", lambda connection, _: _limit_silence(connection, silent_s))
        event.listen(self._engine, "checkin", _note_rest)
        event.listen(self._engine, "checkout", _wake)
        self._sessions = sessionmaker(self._engine, expire_on_commit=False)

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """One transaction: committed when the block ends, before anything is answered; rolled back when it raises."""
        with _outages(), self._sessions.begin() as session:
            yield session

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """A connection inside a transaction, for migrations."""
        with self._engine.begin() as connection:
            yield connection

    def ping(self) -> None:
        """Raises Outage unless Postgres answers."""
        with _outages(), self._engine.connect() as connection:
            connection.execute(text("SELECT 1"))

    def close(self) -> None:
        """Closes every connection."""
        self._engine.dispose()


def _limit_silence(connection: DBAPIConnection, silent_s: float) -> None:
    connection.autocommit = True
    connection.cursor().execute(f"SET idle_in_transaction_session_timeout = {max(1, round(1000 * silent_s))}")
    connection.autocommit = False


def _note_rest(connection: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
    record.info["rests_since"] = time.monotonic()


def _wake(connection: DBAPIConnection, record: ConnectionPoolEntry, _: object) -> None:
    """Asks a connection that has rested whether it still stands; the pool replaces one that does not.

    One that was in use a moment ago is not asked: that would be a third of all questions to Postgres.
    """
    if time.monotonic() - record.info.get("rests_since", math.inf) > RESTED_S:
        try:
            cursor = connection.cursor()
            cursor.execute("SELECT 1")
            connection.rollback()
        except Exception as error:
            raise exc.DisconnectionError from error


@contextmanager
def _outages() -> Iterator[None]:
    try:
        yield
    except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
        raise Outage(str(error).splitlines()[0]) from error
    except exc.InternalError as error:
        if not error.connection_invalidated:
            raise
        raise Outage(str(error).splitlines()[0]) from error  # we were silent for too long
    except exc.DataError as error:  # a NUL character, or a number beyond 64 bits
        reason = "; ".join(line.strip() for line in str(error.orig).splitlines()[:2])
        raise Unprocessable(f"A value of the request cannot be stored or looked up: {reason}.") from error
