"""Dynamic sampling (DAPO, arXiv 2503.14476): groups of equal rewards make room for groups that teach something.

Knows how to ask for more groups; it knows no update. Everything drawn follows from seed, step and round. The metrics of
the step are then those of the groups that were kept; `reward/mean_drawn` is the mean before any was replaced.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from stapo_core import data
from stapo_core.batch import Group, Prompt
from stapo_core.grading import Grading
from stapo_core.report import Report
from stapo_core.rollout import Draw, Sampler

_ROUND_APART = 2**64
"""Keeps the seeds of extra rounds above those of training and evaluation; those of checks lie above these."""


class Refill(Protocol):
    """Gives a step the groups that it learns from."""

    def __call__(self, groups: Sequence[Group], draw: Draw) -> list[Group]:
        """As many groups as it was given."""
        ...


def keep_all(groups: Sequence[Group], draw: Draw) -> list[Group]:
    """Every group, as it is."""
    return list(groups)


class ReplaceIdle:
    """Replaces groups without an advantage in at most `max_rounds` rounds; what is still idle then is kept."""

    def __init__(
        self, prompts: Sequence[Prompt], *, sampler: Sampler, grading: Grading, report: Report, max_rounds: int
    ) -> None:
        self._prompts = prompts
        self._sampler = sampler
        self._grading = grading
        self._report = report
        self._max_rounds = max_rounds

    def __call__(self, groups: Sequence[Group], draw: Draw) -> list[Group]:
        """As many groups, those with an advantage first. Raises Stopped when asked to stop meanwhile."""
        useful = [group for group in groups if _teaches(group)]
        idle = [group for group in groups if not _teaches(group)]
        num_rounds = 0
        while len(useful) < len(groups) and num_rounds < self._max_rounds:
            num_rounds += 1
            again = replace(draw, seed=draw.seed + num_rounds * _ROUND_APART)
            fresh = self._sample(len(groups) - len(useful), again, {group.prompt.index for group in useful + idle})
            useful += [group for group in fresh if _teaches(group)]
            idle += [group for group in fresh if not _teaches(group)]
        num_dropped = len(useful) + len(idle) - len(groups)
        self._report.note(
            {
                "sampling/extra_rounds": float(num_rounds),
                "sampling/dropped_groups": float(num_dropped),
                "reward/mean_drawn": statistics.fmean(reward for group in groups for reward in group.rewards),
            }
        )
        if len(useful) < len(groups):
            short = len(groups) - len(useful)
            self._report.warn(f"{short} groups still have equal rewards after {num_rounds} extra rounds", draw.step)
        return (useful + idle)[: len(groups)]

    def _sample(self, number: int, draw: Draw, seen: set[int]) -> list[Group]:
        """Groups of prompts that the step has not seen; of those it has, where there are no others."""
        rows = data.take(len(self._prompts), draw.seed, draw.step - 1, len(self._prompts))
        prompts = sorted((self._prompts[row] for row in rows), key=lambda prompt: prompt.index in seen)[:number]
        return self._grading.grade(self._sampler.sample(prompts, draw), draw.step)


def _teaches(group: Group) -> bool:
    return len(set(group.rewards)) > 1
