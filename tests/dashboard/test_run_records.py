"""Which checkpoint is the best of a run."""

from __future__ import annotations

from typing import Any

from dashboard.run_records import best_checkpoint


def saved(step: int, reward: float | None) -> dict[str, Any]:
    metrics = {} if reward is None else {"eval/reward_mean": reward}
    return {"id": f"ckpt-{step}", "step_number": step, "metrics": metrics}


def test_the_best_checkpoint_has_the_highest_validation_reward_and_the_earliest_of_equals_wins() -> None:
    assert best_checkpoint([saved(40, 0.5), saved(30, 0.75), saved(20, 0.75), saved(10, None)]) == "ckpt-20"


def test_without_an_evaluation_no_checkpoint_is_the_best() -> None:
    assert best_checkpoint([saved(10, None)]) is None
    assert best_checkpoint([]) is None
