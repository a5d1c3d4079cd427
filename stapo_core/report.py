"""What a step tells the outside: its stages, how long they took, and one flat dict of metrics.

Knows events and numbers; it changes nothing in the run, and nothing that it meets in a number ends the run.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

from stapo_core.batch import Group
from stapo_core.diagnostics import Metrics, diagnose, join
from stapo_core.events import (
    Evaluated,
    GraderErrors,
    RolloutsRecorded,
    Stage,
    StageChanged,
    StepDone,
    Unjudged,
    Warned,
)
from stapo_core.learner import Learned
from stapo_core.recording import Recorder
from stapo_core.spool import Spool

Lap = Literal["sample", "grade", "refill", "learn", "publish"]
_STAGES: dict[Lap, Stage] = {
    "sample": "sampling",
    "grade": "grading",
    "refill": "sampling",
    "learn": "learning",
    "publish": "exporting",
}


class Report:
    """Speaks for one run; `stage` is the part of the work that it is in."""

    def __init__(self, spool: Spool, recorder: Recorder) -> None:
        self.stage: Stage = "loading"
        self._spool = spool
        self._recorder = recorder
        self._laps: dict[str, float] = {}
        self._notes: Metrics = {}

    def enter(self, stage: Stage, step: int) -> None:
        """Says which part of the work begins."""
        self.stage = stage
        self._spool.emit(StageChanged, stage=stage, step=step)

    @contextmanager
    def lap(self, name: Lap, step: int) -> Iterator[None]:
        """Times one part of a step, having said that it begins."""
        self.enter(_STAGES[name], step)
        started = time.perf_counter()
        yield
        self._laps[name] = time.perf_counter() - started

    def note(self, metrics: Metrics) -> None:
        """Adds metrics to those of the step in hand."""
        self._notes |= metrics

    def step_done(self, step: int, groups: Sequence[Group], learned: Learned) -> None:
        """Emits the step's metrics and warnings, and records its responses."""
        for message in learned.warnings:
            self.warn(message, step)
        metrics = {**_rewards(groups), **_responses(groups), **_learning(learned)}
        metrics["tokens/trained"] = float(sum(len(record.weights) for record in learned.records))
        metrics["tokens/total"] = float(learned.num_tokens_total)
        metrics |= {**self._notes, **self._speed(groups)}
        self._notes = {}
        values, flags = without_non_finite(metrics)
        self._spool.emit(StepDone, step=step, metrics=values, flags=flags)
        if learned.is_whole and self._recorder.records:
            self._record(step, groups, learned)

    def _record(self, step: int, groups: Sequence[Group], learned: Learned) -> None:
        """Records the step's tokens; a disk that refuses them costs the record, never the run."""
        try:
            path = self._recorder.record(step, groups, learned.records)
        except OSError as error:
            self.warn(f"the rollouts of this step could not be recorded: {error}", step)
        else:
            self._spool.emit(RolloutsRecorded, step=step, file=f"{path.parent.name}/{path.name}")

    def evaluated(self, step: int, metrics: Metrics, *, final: bool) -> None:
        """Emits an evaluation."""
        values, _ = without_non_finite(metrics)
        self._spool.emit(Evaluated, step=step, metrics=values, final=final)

    def grader_errors(
        self, step: int, num_responses: int, errors: Mapping[str, int], examples: Sequence[Unjudged]
    ) -> None:
        """Emits the evidence that a step's responses cannot be judged."""
        self._spool.emit(
            GraderErrors, step=step, num_responses=num_responses, errors=dict(errors), examples=list(examples)
        )

    def warn(self, message: str, step: int) -> None:
        """Emits a warning."""
        self._spool.emit(Warned, message=message, step=step)

    def _speed(self, groups: Sequence[Group]) -> Metrics:
        step_s = sum(self._laps.values())
        num_tokens = sum(len(response.token_ids) for group in groups for response in group.responses)
        laps: Metrics = {f"speed/{name}_s": seconds for name, seconds in self._laps.items()}
        return laps | {
            "speed/step_s": step_s,
            "speed/tokens_per_s": num_tokens / step_s if step_s else None,
            "memory/rss_mb": _resident_mb(),
        }


def without_non_finite(metrics: Mapping[str, float | None]) -> tuple[Metrics, list[str]]:
    """The metrics with null for each value that is not finite, and the keys of those."""
    flags = [key for key, value in metrics.items() if value is not None and not math.isfinite(value)]
    return {key: None if key in flags else value for key, value in metrics.items()}, flags


def response_metrics(groups: Sequence[Group], prefix: str) -> Metrics:
    """Mean length and share of responses that were cut, of any set of groups."""
    responses = [response for group in groups for response in group.responses]
    return {
        f"{prefix}/length_mean": statistics.fmean(len(response.token_ids) for response in responses),
        f"{prefix}/truncated": statistics.fmean(response.finish == "length" for response in responses),
    }


def _rewards(groups: Sequence[Group]) -> Metrics:
    rewards = [reward for group in groups for reward in group.rewards]
    return {
        "reward/mean": statistics.fmean(rewards),
        "reward/std": statistics.pstdev(rewards),
        "reward/groups_without_advantage": statistics.fmean(len(set(group.rewards)) == 1 for group in groups),
        "reward/groups_all_zero": statistics.fmean(set(group.rewards) == {0.0} for group in groups),
        "reward/groups_all_one": statistics.fmean(set(group.rewards) == {1.0} for group in groups),
    }


def _responses(groups: Sequence[Group]) -> Metrics:
    longest = max(len(response.token_ids) for group in groups for response in group.responses)
    return response_metrics(groups, "response") | {"response/length_max": float(longest)}


def _learning(learned: Learned) -> Metrics:
    """Means over the mini-batches of the step; counts over all of their tokens."""
    metrics: Metrics = {"policy/learning_rate": learned.learning_rate}
    if not learned.records:
        return metrics
    selected = [decision.selected for decision in learned.decisions]
    thresholds = [each.tau_h for each in selected if each.tau_h is not None and math.isfinite(each.tau_h)]
    return metrics | {
        "policy/loss": statistics.fmean(decision.loss for decision in learned.decisions),
        "policy/grad_norm": statistics.fmean(learned.grad_norms),
        "mask/tau_h": statistics.fmean(thresholds) if thresholds else None,
        "mask/tau_p": selected[-1].tau_p,
        "mask/inert": statistics.fmean(each.is_inert for each in selected),
        **diagnose(join(learned.records), selected[-1].sign),
    }


def _resident_mb() -> float:
    """Memory of this process, from the kernel's own account."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123  # a plain read of two numbers
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
