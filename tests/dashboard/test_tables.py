from __future__ import annotations

from typing import Any

from dashboard import tables


def job(**fields: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "id": "ftjob-0123456789",
        "state": "running",
        "model": "tiny",
        "suffix": "arith",
        "method": {"reinforcement": {"config": {"algorithm": {"kind": "grpo"}}}},
        "step": 30,
        "num_steps": 120,
        "estimated_finish": 1150,
        "created_at": 400,
        "latest": {"reward/mean": 0.5, "policy/entropy": 0.2, "mask/ppm": 120.0},
        "metadata": {"owner": "ann"},
        "queue": None,
    }
    return base | fields


def test_a_run_is_one_row_of_the_list() -> None:
    shown = tables.runs([job()], {"ftjob-0123456789": {"reward/mean": [0.1, 0.5]}}, now=1000.0)

    assert {name: column[0] for name, column in shown.items()} == {
        "Run": "arith",
        "State": ["Running"],
        "Model": "tiny",
        "Algorithm": "grpo",
        "Owner": "ann",
        "Progress": 25.0,
        "Step": "30 / 120",
        "Time left": "2 min 30 s",
        "Reward": 0.5,
        "Reward curve": [0.1, 0.5],
        "Entropy": 0.2,
        "Entropy curve": [],
        "Mask (ppm)": 120.0,
        "Submitted": "10 min ago",
    }


def test_a_waiting_run_shows_its_place_in_the_queue_and_no_figures() -> None:
    waiting = job(state="queued", step=0, latest={}, queue={"position": 3, "reason": "All slots are busy."})

    shown = tables.runs([waiting], {}, now=1000.0)

    assert shown["Time left"] == ["no. 3"]
    assert shown["Reward"] == [None]


def test_runs_that_wait_are_listed_by_their_place_with_the_reason() -> None:
    third = job(id="ftjob-third", queue={"position": 3, "reason": "All slots are busy."})
    first = job(id="ftjob-first", queue={"position": 1, "reason": "A worker will take it."}, priority=5)

    assert tables.waiting([job(), third, first]) == {
        "No.": [1, 3],
        "Run": ["arith · -first", "arith · -third"],
        "Why": ["A worker will take it.", "All slots are busy."],
        "Priority": [5, 0],
    }


def test_workers_are_listed_with_the_living_first_and_their_leases_by_run() -> None:
    lease = {"fine_tuning_job_id": "ftjob-1", "state": "running", "attempt": 2, "lease_until": 1030}
    foreign = {"fine_tuning_job_id": None, "state": "starting", "attempt": 1, "lease_until": 990}
    rows = [
        {"name": "old", "slots": 1, "seen_at": 400, "is_alive": False, "leases": []},
        {"name": "busy", "slots": 4, "seen_at": 995, "is_alive": True, "leases": [lease, foreign]},
    ]

    shown = tables.workers(rows, now=1000.0)

    assert shown["Worker"] == ["busy", "old"]
    assert shown["Alive"] == [["alive"], ["silent"]]
    assert shown["Busy"] == [50.0, 0.0]
    assert shown["Last sign of life"] == ["5 s ago", "10 min ago"]
    held = tables.leases(rows, now=1000.0)
    assert held["Run"] == ["ftjob-1", "another tenant's"]
    assert held["Lease"] == ["30 s left", "lapsed 10 s ago"]


def test_no_runs_are_no_columns() -> None:
    assert tables.runs([], {}, now=0.0) == {}


def test_files_of_a_checkpoint_carry_digest_and_link() -> None:
    checkpoint = {"files": [{"path": "model.safetensors", "bytes": 3_200_000, "sha256": "ab" * 32}]}

    shown = tables.checkpoint_files(checkpoint, ["http://host/file?ticket=t"])

    assert shown.splitlines()[2:] == [
        rf"| [model\.safetensors](http://host/file?ticket=t) | 3.2 MB | `{'ab' * 32}` |",
    ]
