"""The child of the python grader: calls the user's `grade(sample, item)` in the sandbox, afresh for each response."""

from __future__ import annotations

import json
import math
from typing import Any

from stapo_core.graders.caged import Cage
from stapo_core.graders.child import Judge, Unjudgeable, serve
from stapo_core.sandbox.host import Program


def make_judge(settings: dict[str, Any]) -> Judge:
    """A judge by one source; its texts are responses, its references rows as JSON."""
    cage = Cage()

    def judge(text: str, reference: str) -> float:
        bound = {"sample": make_sample(text), "item": json.loads(reference)}
        program = Program(settings["source"], settings["timeout_s"], bound=bound, expressions=("grade(sample, item)",))
        outcome = cage.run(program)
        if not outcome.answers:
            raise Unjudgeable(outcome.raised or "no_answer")
        (answer,) = outcome.answers[:1]
        if answer.raised is not None:
            raise Unjudgeable(answer.raised)
        try:
            reward = float(answer.value) if isinstance(answer.value, int | float) else math.nan
        except OverflowError:
            reward = math.inf
        if not math.isfinite(reward):
            raise Unjudgeable("not_a_number")
        return reward

    return judge


def make_sample(text: str) -> dict[str, Any]:
    """What the dialect tells `grade` of a response."""
    try:
        output_json = json.loads(text)
    except (ValueError, RecursionError):
        output_json = None
    return {
        "output_text": text,
        "output_json": output_json,
        "output_tools": [],
        "choices": [{"message": {"role": "assistant", "content": text}}],
    }


if __name__ == "__main__":
    serve(make_judge)
