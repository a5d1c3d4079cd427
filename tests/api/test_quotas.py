"""Quotas hold for requests that come at the same moment: who counts is alone until it has added what it counted for."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import func, select

from api.errors import TooManyRequests
from api.store import completions, usage
from api.store.database import Session
from api.store.ids import FILE, new_id
from api.store.tables import Completion, File
from tests.api.conftest import Service

AT_ONCE = 6


def add_file(session: Session) -> None:
    usage.check_stored_bytes(session, "ours", 10, most=25)
    session.add(File(id=new_id(FILE), tenant="ours", filename="f", purpose="fine-tune", bytes=10, sha256=""))
    session.flush()


def add_completion(session: Session) -> None:
    completions.add_completion(session, "ours", "tiny", None, {}, completion_id=completions.new_completion_id())


def count(service: Service, table: Any) -> int:
    with service.database.transaction() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


@pytest.mark.parametrize(("add", "table", "most"), [(add_file, File, 2), (add_completion, Completion, 3)])
def test_of_those_that_come_at_once_no_more_get_in_than_there_is_room_for(
    service: Service, monkeypatch: pytest.MonkeyPatch, add: Callable[[Session], None], table: Any, most: int
) -> None:
    monkeypatch.setattr(completions, "MAX_WAITING", 3)
    together = Barrier(AT_ONCE)

    def come() -> bool:
        try:
            with service.database.transaction() as session:
                session.execute(select(1))
                together.wait(30.0)
                add(session)
                session.execute(select(func.pg_sleep(0.2)))  # the others have counted by then, if nothing stops them
        except TooManyRequests:
            return False
        return True

    with ThreadPoolExecutor(AT_ONCE) as callers:
        let_in = [each.result() for each in [callers.submit(come) for _ in range(AT_ONCE)]]
    assert (sum(let_in), count(service, table)) == (most, most)


def test_of_jobs_that_are_created_at_once_no_more_are_queued_than_the_tenant_may_have(service: Service) -> None:
    service.settings.max_live_jobs = 2
    body = service.job_body()
    with ThreadPoolExecutor(AT_ONCE) as callers:
        asked = [callers.submit(service.client.post, "/v1/fine_tuning/jobs", json=body) for _ in range(AT_ONCE)]
        statuses = sorted(each.result().status_code for each in asked)
    assert statuses == [201, 201, 429, 429, 429, 429]
