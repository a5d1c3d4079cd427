"""Scores validation files: mean reward over several responses per problem (avg@k), and pass@k. It never learns."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stapo_core.batch import Group, Prompt
from stapo_core.diagnostics import Metrics
from stapo_core.grading import Grading
from stapo_core.report import Report, response_metrics
from stapo_core.rollout import Draw, Limits, Sampler

_SEED_APART = 2**63
"""Lifts evaluation seeds above every training seed; each evaluation draws with the same ones, so noise is shared."""
_RIGHT = 0.5
"""A response with at least this reward counts as right for pass@k."""


@dataclass(frozen=True, slots=True)
class HeldOut:
    """The problems of one validation file, and how responses to them are drawn; the usual file has no name."""

    name: str | None
    problems: Sequence[Prompt]
    num_samples: int
    temperature: float
    top_p: float = 1.0


@dataclass(frozen=True, slots=True)
class Best:
    """The step with the best mean reward on the first file; step 0, the base model, never counts."""

    step: int | None = None
    reward: float = -math.inf


class Evaluator:
    """Evaluates a run at its start, at every `every_steps` steps, and at its end; without files, never."""

    def __init__(
        self,
        held_out: Sequence[HeldOut],
        *,
        sampler: Sampler,
        grading: Grading,
        report: Report,
        every_steps: int,
        seed: int,
        num_steps: int,
    ) -> None:
        self._held_out = held_out
        self._sampler = sampler
        self._grading = grading
        self._report = report
        self._every_steps = every_steps
        self._seed = seed
        self._num_steps = num_steps
        self._evaluated_step = -1
        self.best = Best()

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of the evaluator, as JSON: a resumed run repeats none and knows the best."""
        best = None if self.best.step is None else [self.best.step, self.best.reward]
        return {"evaluated_step": self._evaluated_step, "best": best}

    def load_state(self, values: Mapping[str, Any]) -> None:
        """Takes over what `state` gave; checkpoints of earlier versions know no best."""
        self._evaluated_step = values["evaluated_step"]
        self.best = Best(*(values.get("best") or ()))

    def evaluate_when_due(self, step: int) -> None:
        """Scores the files with the weights after `step`, once, at the start, at the interval and at the end.

        Raises Stopped when asked to stop meanwhile.
        """
        at_interval = self._every_steps > 0 and step % self._every_steps == 0
        is_due = at_interval or step in (0, self._num_steps)
        if self._held_out and is_due and step > self._evaluated_step:
            self._evaluate(step)

    def _evaluate(self, step: int) -> None:
        self._report.enter("evaluating", step)
        metrics: Metrics = {}
        for place, held_out in enumerate(self._held_out):
            groups = self._answer(held_out, place, step)
            for area in _areas(held_out, place):
                metrics |= _metrics(groups, area)
        self._report.evaluated(step, metrics, final=step == self._num_steps)
        self._evaluated_step = step
        reward = metrics["eval/reward_mean"]
        if step > 0 and reward is not None and reward > self.best.reward:
            self.best = Best(step, reward)

    def _answer(self, held_out: HeldOut, place: int, step: int) -> list[Group]:
        """Graded responses to one file; its place among the files makes its draws its own."""
        limits = Limits(top_p=held_out.top_p)
        draw = Draw(self._seed + _SEED_APART, place, held_out.num_samples, held_out.temperature, limits)
        return self._grading.grade(self._sampler.sample(held_out.problems, draw), step)


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """Chance that at least one of k samples is right: 1 - C(n - c, k) / C(n, k), unbiased (arXiv 2107.03374)."""
    return 1.0 - math.comb(num_samples - num_right, k) / math.comb(num_samples, k)


def _areas(held_out: HeldOut, place: int) -> list[str]:
    """Where a file's metrics stand: `eval` for the first, `eval/<name>` for each that has a name."""
    usual = ["eval"] if place == 0 else []
    return usual if held_out.name is None else [*usual, f"eval/{held_out.name}"]


def _metrics(groups: Sequence[Group], area: str) -> Metrics:
    rewards = [reward for group in groups for reward in group.rewards]
    num_samples = len(groups[0].responses)
    num_right = [sum(reward >= _RIGHT for reward in group.rewards) for group in groups]
    ks = [2**power for power in range(num_samples.bit_length()) if 2**power > 1]
    return {
        f"{area}/reward_mean": statistics.fmean(rewards),
        **{f"{area}/pass_at_{k}": statistics.fmean(pass_at_k(num_samples, c, k) for c in num_right) for k in ks},
        **response_metrics(groups, area),
        f"{area}/num_problems": float(len(groups)),
        f"{area}/num_samples": float(num_samples),
    }
