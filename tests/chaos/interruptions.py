"""A real job, killed with -9 in each of its steps, beside one that was left alone: bit for bit the same.

One job, interrupted once in every step: so it is resumed as often as it has steps, each time from what the platform
kept. The checkpoint of each step is compared with that of the job that never stopped.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import select

from api.lifecycle import TERMINAL, JobState
from api.store.tables import StepMetrics
from stapo_core.events import StageChanged, parse_event
from stapo_core.folders import folder_name, verify
from tests.chaos.faults import Fault, Hand
from tests.chaos.scenes import wait_until
from tests.chaos.site import Site

NOT_REPEATABLE = ("speed/", "memory/")
PLACES = ("sampling", "updating", "updated", "checkpoint_drafted", "checkpoint_synced")
PATIENCE_S = 900.0


@dataclass
class Comparison:
    """What is equal in each step."""

    num_steps: int
    num_kills: int = 0
    cut_in: set[int] = field(default_factory=set)
    num_attempts: int = 0
    differences: dict[int, list[str]] = field(default_factory=dict)

    @property
    def num_equal(self) -> int:
        """Steps that are equal in every bit."""
        return self.num_steps - len(self.differences)


def interrupt_every_step(site: Site, *, num_steps: int, on_progress: Callable[[int], None]) -> Comparison:
    """Runs both jobs and compares them. The site needs one worker with one slot and the real trainer."""
    settings: dict[str, Any] = {
        "algorithm": {"kind": "stapo", "tau_p": 0.02, "entropy_window": 3},
        "optimizer": {"learning_rate": 1e-3, "warmup_steps": 5, "schedule": "cosine"},
        "sampling": {"max_prompt_tokens": 8, "max_response_tokens": 16},
        "batch": {"num_prompts": 4, "group_size": 8, "num_minibatches": 2, "max_tokens_per_microbatch": 64},
        "checkpoint": {"every_steps": 1, "keep": num_steps},
    }
    left_alone = site.create_job(num_steps=num_steps, **settings)
    wait_until(site, lambda rows: rows[left_alone].state in TERMINAL, patience_s=PATIENCE_S)
    result, hand = Comparison(num_steps), Hand(site, random.Random(0))
    hand.delivered()
    hand.arm(_kill_in(1))
    killed = site.create_job(num_steps=num_steps, **settings)

    def look(rows: dict[str, Any]) -> bool:
        for _ in hand.delivered():
            result.num_kills += 1
            result.cut_in.add(_step_in_hand(site, killed))
            on_progress(result.num_kills)
            if result.num_kills < num_steps:
                hand.arm(_kill_in(result.num_kills + 1))
        return rows[killed].state in TERMINAL

    wait_until(site, look, patience_s=PATIENCE_S + 30.0 * num_steps)
    jobs = site.jobs()
    result.num_attempts = jobs[killed].fence
    if jobs[killed].state != JobState.SUCCEEDED:
        result.differences[0] = [f"the job is {jobs[killed].state}: {jobs[killed].error}"]
    wanted, found = _metrics(site, left_alone), _metrics(site, killed)
    for step in range(1, num_steps + 1):
        differing = [] if wanted.get(step) == found.get(step) else ["metrics"]
        differing += _differing_files(_folder(site, left_alone, step), _folder(site, killed, step))
        if differing:
            result.differences[step] = differing
    return result


def _kill_in(step: int) -> Fault:
    """An odd step is cut when its checkpoint is whole and nobody knows; an even one at its first pass of a place.

    The attempt after the cut of an even step does that step again, and is cut in the one behind it.
    """
    if step % 2 == 0:
        return Fault(PLACES[step // 2 % len(PLACES)], "kill")
    return Fault("checkpoint_renamed", "kill" if step == 1 else "kill @2")


def _step_in_hand(site: Site, job_id: str) -> int:
    """The step that the trainer was in when it died, by its own word."""
    events = map(parse_event, (site.home / "runs" / job_id / "events.jsonl").read_bytes().splitlines())
    return [event.step for event in events if isinstance(event, StageChanged)][-1]


def _folder(site: Site, job_id: str, step: int) -> Path:
    return site.home / "runs" / job_id / "checkpoints" / folder_name(step)


def _differing_files(left: Path, right: Path) -> list[str]:
    """Weights, optimizer, random states, cursor and counters lie in files, and files are equal when digests are."""
    digests = [{file.path: file.sha256 for file in verify(folder).files} for folder in (left, right)]
    paths = digests[0].keys() | digests[1].keys()
    return sorted(path for path in paths if digests[0].get(path) != digests[1].get(path))


def _metrics(site: Site, job_id: str) -> dict[int, str]:
    query = select(StepMetrics).where(StepMetrics.job_id == job_id, StepMetrics.kind == "train")
    with site.database.transaction() as session:
        rows = list(session.scalars(query))
    kept = {
        row.step: {key: value for key, value in row.values.items() if not key.startswith(NOT_REPEATABLE)}
        for row in rows
    }
    return {step: json.dumps(values, sort_keys=True) for step, values in kept.items()}
