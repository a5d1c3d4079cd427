"""An auditor inside Postgres: it takes down each write to a job by a worker or an attempt that does not hold it.

It knows the tables and no code of the worker, so it sees what the fence should have refused. A worker's connections
name it in `chaos.worker`, a transaction that writes for an attempt names that in `chaos.fence`; the connections of the
API and of the harness name nobody.
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
  attempt int := nullif(current_setting('chaos.fence', true), '');
  what text := lower(TG_OP) || ' of ' || TG_TABLE_NAME;
  job jobs;
BEGIN
  IF writer IS NULL OR writer = '' THEN
    RETURN NULL;
  END IF;
  IF TG_TABLE_NAME = 'jobs' THEN
    IF attempt IS NULL AND OLD.state IN ({_quoted(CLAIMABLE_STATES)}) AND NEW.state = 'starting' THEN
      RETURN NULL;  -- a claim
    END IF;
    what := OLD.state || ' to ' || NEW.state;
    job := OLD;
    IF job.state NOT IN ({_quoted(LEASED_STATES)}) THEN
      job.worker := 'nobody';
    END IF;
  ELSE
    SELECT * INTO job FROM jobs WHERE id = coalesce(NEW.job_id, OLD.job_id);
  END IF;
  IF attempt IS NULL AND job.lease_until < now() THEN
    RETURN NULL;  -- whoever takes a job from a worker that fell silent
  END IF;
  IF attempt IS NULL AND TG_TABLE_NAME = 'job_events'
      AND (job.lease_until IS NULL OR job.state = 'starting' AND job.worker = writer) THEN
    RETURN NULL;  -- and either of them says so
  END IF;
  IF writer IS DISTINCT FROM job.worker OR attempt IS DISTINCT FROM job.fence THEN
    writer := writer || coalesce(' as attempt ' || attempt, '');
    INSERT INTO ghost_writes VALUES (DEFAULT, job.id, writer, job.worker || ' as attempt ' || job.fence, what);
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER audit AFTER UPDATE ON jobs FOR EACH ROW EXECUTE FUNCTION note_ghost();
CREATE TRIGGER audit AFTER INSERT ON job_events FOR EACH ROW EXECUTE FUNCTION note_ghost();
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON step_metrics FOR EACH ROW EXECUTE FUNCTION note_ghost();
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON checkpoints FOR EACH ROW EXECUTE FUNCTION note_ghost();
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON rollouts FOR EACH ROW EXECUTE FUNCTION note_ghost();
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
