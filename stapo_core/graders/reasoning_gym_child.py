"""The child of the reasoning_gym grader: makes the problem again from its number, and asks the task for its verdict."""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from functools import lru_cache
from typing import Any

from stapo_core.data.reasoning_gym import make_task
from stapo_core.graders.child import Judge, Unjudgeable, serve

_TASKS, _PROBLEMS = 16, 1024  # kept at a time


def make_judge(_: dict[str, Any]) -> Judge:
    """Loads the tasks before the first deadline runs."""
    make_task("chain_sum", {"seed": 0, "size": 1})
    return _judge


def _judge(text: str, reference: str) -> float:
    try:
        asked = json.loads(reference)
        task, config, index = asked["task"], json.dumps(asked["config"], sort_keys=True), int(asked["index"])
    except (ValueError, TypeError, KeyError) as error:
        raise Unjudgeable("reference_unreadable") from error
    with redirect_stdout(sys.stderr):  # some tasks print, and stdout is for verdicts
        return float(_task(task, config).score_answer(text, _problem(task, config, index)))


@lru_cache(_TASKS)
def _task(task: str, config: str) -> Any:
    return make_task(task, json.loads(config))


@lru_cache(_PROBLEMS)
def _problem(task: str, config: str, index: int) -> Any:
    return _task(task, config)[index]


if __name__ == "__main__":
    serve(make_judge)
