"""The loop: sample, grade, learn, publish, report. A step is one rollout; weights after n steps are version n."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from stapo_core import data
from stapo_core.batch import Prompt
from stapo_core.checkpoint import Checkpoints, TrainerState
from stapo_core.evaluation import Evaluator
from stapo_core.grading import Grading
from stapo_core.learner import Learner
from stapo_core.refill import Refill
from stapo_core.report import Report
from stapo_core.rollout import Draw, Sampler, Stopped


@dataclass(frozen=True, slots=True)
class Outcome:
    """Why the loop ended, and the step that the weights stand at; `message` says more where there is more to say."""

    step: int
    reason: Literal["num_steps_reached", "stopped", "grader_errors"]
    message: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """The parts of a run, built and loaded; `start` is the step that the weights stand at."""

    prompts: Sequence[Prompt]
    sampler: Sampler
    grading: Grading
    refill: Refill
    learner: Learner
    evaluator: Evaluator
    checkpoints: Checkpoints
    report: Report
    seed: int
    start: int
    num_steps: int

    def take(self, step: int) -> list[Prompt]:
        """The prompts of a step: they follow from the seed and the step alone."""
        num_prompts = self.learner.config.batch.num_prompts
        return [self.prompts[row] for row in data.take(len(self.prompts), self.seed, step - 1, num_prompts)]

    def draw(self, step: int) -> Draw:
        """How a step draws its responses."""
        config = self.learner.config
        return Draw(self.seed, step, config.batch.group_size, config.sampling.temperature)

    def save_when_due(self, step: int) -> None:
        """Writes a checkpoint at the intervals of the config, at the end, and of a step that is the best so far."""
        if step == self.num_steps or self.checkpoints.is_due(step) or self.is_best(step):
            self.save(step)

    def is_best(self, step: int) -> bool:
        """Whether this step's checkpoint is the one to be spared."""
        return self.checkpoints.keeps_best and step == self.evaluator.best.step

    def mark_when_best(self, step: int) -> None:
        """Marks the checkpoint that the run resumed from: it was saved when a stop broke off its evaluation."""
        if self.is_best(step):
            self.checkpoints.mark_best(step, final=step == self.num_steps)

    def save(self, step: int) -> None:
        """Writes a checkpoint of a whole step."""
        self.report.enter("saving", step)
        learner = self.learner.state()
        state = TrainerState(learner.tensors, {**learner.values, **self.evaluator.state()})
        final, is_best = step == self.num_steps, self.is_best(step)
        self.checkpoints.save(step, self.learner.policy, state, final=final, is_best=is_best)


def train(run: Run) -> Outcome:
    """Trains from `run.start` to the end, or until asked to stop: an unfinished step is dropped, whole ones are kept.

    Sampler, grading and learner raise Stopped only while nothing of the step has changed the weights.
    """
    done = run.start
    try:
        run.evaluator.evaluate_when_due(done)
        run.mark_when_best(done)
        for step in range(run.start + 1, run.num_steps + 1):
            with run.report.lap("sample", step):
                groups = run.sampler.sample(run.take(step), run.draw(step))
            with run.report.lap("grade", step):
                groups = run.grading.grade(groups, step)
            with run.report.lap("refill", step):
                groups = run.refill(groups, run.draw(step))
            with run.report.lap("learn", step):
                run.sampler.sleep()
                learned = run.learner.update(groups)
            with run.report.lap("publish", step):
                run.sampler.wake()
                run.sampler.load(run.learner.policy.weights(), version=step)
            done = step
            run.report.step_done(step, groups, learned)
            run.evaluator.evaluate_when_due(step)
            run.save_when_due(step)
    except Stopped as stopped:
        if done > run.checkpoints.saved_step:
            run.save(done)
        return Outcome(done, stopped.reason, str(stopped))
    return Outcome(done, "num_steps_reached")
