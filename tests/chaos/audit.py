"""An auditor inside Postgres: it takes down each write to a job by a worker that does not hold it.

It knows the tables and no code of the worker, so it sees what the fence should have refused. A worker's connections
name it in `chaos.worker`; those of the API and of the harness name nobody.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import text

from api.store.database import Database
from api.store.tables import CLAIMABLE_STATES, LEASED_STATES


def _quoted(states: list[str]) -> str:
    return ", ".join(f"'{state}'" for state in states)


_AUDITOR = f"""
CREATE TABLE ghost_writes (at timestamptz DEFAULT clock_timestamp(), job_id text, writer text, holder text, what text);
CREATE FUNCTION note_ghost() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  writer text := current_setting('chaos.worker', true);
  holder text;
BEGIN
  IF writer IS NULL OR writer = '' THEN
    RETURN NEW;
  END IF;
  IF TG_TABLE_NAME = 'jobs' THEN
    IF OLD.state IN ({_quoted(CLAIMABLE_STATES)}) AND NEW.state = 'starting' THEN
      RETURN NEW;  -- a claim
    END IF;
    IF OLD.state IN ({_quoted(LEASED_STATES)}) AND (writer = OLD.worker OR OLD.lease_until < now()) THEN
      RETURN NEW;  -- the holder, or whoever takes a job from a worker that fell silent
    END IF;
    INSERT INTO ghost_writes VALUES (DEFAULT, NEW.id, writer, OLD.worker, OLD.state || ' to ' || NEW.state);
  ELSE
    SELECT worker INTO holder FROM jobs WHERE id = NEW.job_id;
    IF writer <> holder THEN
      INSERT INTO ghost_writes VALUES (DEFAULT, NEW.job_id, writer, holder, TG_TABLE_NAME);
    END IF;
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER audit BEFORE UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION note_ghost();
CREATE TRIGGER audit BEFORE INSERT ON step_metrics FOR EACH ROW EXECUTE FUNCTION note_ghost();
CREATE TRIGGER audit BEFORE INSERT ON checkpoints FOR EACH ROW EXECUTE FUNCTION note_ghost();
"""  # noqa: S608  # the only words put in are states


def install(database: Database) -> None:
    """Has every later write looked at."""
    with database.transaction() as session:
        session.connection().exec_driver_sql(_AUDITOR)


def ghost_writes(database: Database) -> list[str]:
    """What was written by a worker that did not hold the job."""
    query = "SELECT job_id, what, writer, holder FROM ghost_writes ORDER BY at"
    with database.transaction() as session:
        rows: list[Any] = list(session.execute(text(query)))
    return [f"{row.job_id}: {row.what} written by {row.writer}, held by {row.holder}" for row in rows]
