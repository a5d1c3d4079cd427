"""How Postgres finds a page of recorded responses."""

from __future__ import annotations

from typing import Any

from sqlalchemy import event, text

from api.store import jobs, rollouts
from api.store.rollouts import RolloutFilter
from tests.api.conftest import Service


def test_the_newest_steps_are_found_by_the_index_and_not_by_sorting_all(service: Service) -> None:
    job_id = service.create_job()["id"]
    asked: list[tuple[str, Any]] = []
    with service.database.transaction() as session:
        job = jobs.get_job(session, "ours", job_id)
        connection = session.connection()
        event.listen(connection, "before_cursor_execute", lambda *call: asked.append((call[2], call[3])))
        rollouts.list_rollouts(session, job, RolloutFilter(), sort="-step", after=None, limit=20)
        (query, values) = asked[-1]
        session.execute(text("SET LOCAL enable_seqscan = off"))  # the table is too small to have a choice
        session.execute(text("SET LOCAL enable_bitmapscan = off"))
        plan = "\n".join(row[0] for row in connection.exec_driver_sql(f"EXPLAIN {query}", values))
    assert "uq_rollouts_job_id" in plan
    assert "Presorted Key: step" in plan
