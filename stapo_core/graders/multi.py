"""Combines the scores of several graders by a formula. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stapo_core.config import MultiGrader
from stapo_core.config.formula import Formula
from stapo_core.graders.score import Score


def combine(config: MultiGrader, found: Mapping[str, Sequence[Score]]) -> list[Score]:
    """One score per response; `found` holds every grader's scores, in the same order.

    A response that one of the graders could not judge gets 0 and that grader's error; so does one whose formula has
    no finite value (a division by 0, a root of a negative number), as `formula`.
    """
    formula = Formula(config.calculate_output)
    return [_combine(formula, dict(zip(found, scores, strict=True))) for scores in zip(*found.values(), strict=True)]


def _combine(formula: Formula, scores: Mapping[str, Score]) -> Score:
    seconds = sum(score.seconds for score in scores.values())
    for name, score in scores.items():
        if score.error is not None:
            return Score(0.0, f"{name}: {score.error}", seconds)
    note = next((f"{name}: {score.note}" for name, score in scores.items() if score.note is not None), None)
    try:
        return Score(formula.evaluate({name: score.value for name, score in scores.items()}), None, seconds, note)
    except (ArithmeticError, ValueError):
        return Score(0.0, "formula", seconds)
