"""Scores the validation file: mean reward over several responses per problem (avg@k). It never learns."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from stapo_core.batch import Group, Prompt
from stapo_core.config import EvaluationConfig
from stapo_core.grading import Grading
from stapo_core.report import Report, response_metrics
from stapo_core.rollout import Draw, Sampler

_SEED_APART = 2**63
"""Lifts evaluation seeds above every training seed; each evaluation draws with the same ones, so noise is shared."""
_RIGHT = 0.5
"""A response with at least this reward counts as right for pass@k."""


class Evaluator:
    """Evaluates a run at its start, at every `every_steps` steps, and at its end; without problems, never."""

    def __init__(
        self,
        problems: Sequence[Prompt],
        *,
        sampler: Sampler,
        grading: Grading,
        report: Report,
        config: EvaluationConfig,
        seed: int,
        num_steps: int,
    ) -> None:
        self._problems = problems[: config.max_problems]
        self._sampler = sampler
        self._grading = grading
        self._report = report
        self._config = config
        self._seed = seed
        self._num_steps = num_steps
        self.evaluated_step = -1
        """The newest step that was evaluated; part of a checkpoint, so that a resumed run repeats none."""

    def evaluate_when_due(self, step: int) -> None:
        """Scores the problems with the weights after `step`, once, at the start, at the interval and at the end.

        Raises Stopped when asked to stop meanwhile.
        """
        at_interval = self._config.every_steps > 0 and step % self._config.every_steps == 0
        is_due = at_interval or step in (0, self._num_steps)
        if self._problems and is_due and step > self.evaluated_step:
            self._evaluate(step)

    def _evaluate(self, step: int) -> None:
        self._report.enter("evaluating", step)
        draw = Draw(
            seed=self._seed + _SEED_APART,
            step=0,
            num_samples=self._config.num_samples,
            temperature=self._config.temperature,
        )
        groups = self._grading.grade(self._sampler.sample(self._problems, draw), step)
        self._report.evaluated(step, _metrics(groups), final=step == self._num_steps)
        self.evaluated_step = step


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """Chance that at least one of k samples is right: 1 - C(n - c, k) / C(n, k), unbiased (arXiv 2107.03374)."""
    return 1.0 - math.comb(num_samples - num_right, k) / math.comb(num_samples, k)


def _metrics(groups: Sequence[Group]) -> dict[str, float | None]:
    rewards = [reward for group in groups for reward in group.rewards]
    num_samples = len(groups[0].responses)
    num_right = [sum(reward >= _RIGHT for reward in group.rewards) for group in groups]
    ks = [2**power for power in range(num_samples.bit_length()) if 2**power > 1]
    return {
        "eval/reward_mean": statistics.fmean(rewards),
        **{f"eval/pass_at_{k}": statistics.fmean(pass_at_k(num_samples, c, k) for c in num_right) for k in ks},
        **response_metrics(groups, "eval"),
        "eval/num_problems": float(len(groups)),
        "eval/num_samples": float(num_samples),
    }
