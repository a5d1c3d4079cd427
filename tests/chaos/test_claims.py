"""Thirty-two claimers race for jobs, some die on the way, and each job is settled once."""

from __future__ import annotations

from tests.chaos.claims import race

SEED = 6


def test_no_job_is_settled_twice_or_never(fresh_database: str) -> None:
    found = race(fresh_database, num_jobs=100, seed=SEED)
    assert (found.num_doubled, found.num_lost) == (0, 0)
    assert {"raise", "cut", "die"} <= found.aborted.keys()
    assert len(found.claims) > found.num_jobs
