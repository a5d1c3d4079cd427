"""Rewards as the loop wants them: the grader's verdicts, with the soft overlong penalty where it is on.

What a grader could not judge is counted by kind and told; its reward is 0. Where too much of a step is like that, or
where every response so far is worth the same, to go on would waste the run, so it does not. A program that met a limit
also gets 0 and is counted, but it is its model's doing and stops nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from stapo_core.batch import Group, Prompt
from stapo_core.config import GradingConfig
from stapo_core.distributed import Alone, Ranks
from stapo_core.events import Unjudged
from stapo_core.graders import GraderPool
from stapo_core.graders.score import Sample, Score
from stapo_core.report import Report
from stapo_core.rollout import Stopped

_EXAMPLES_PER_KIND = 3
_EXAMPLE_CHARACTERS = 500


class GraderErrors(Stopped):
    """Too many responses of one step could not be judged; the text says how many, and why."""

    reason = "grader_errors"


class OneScore(Exception):
    """Every response since the run began got the same score, which teaches nothing."""

    code = "grader_gives_one_score"
    param = "grader"


@dataclass(frozen=True, slots=True)
class Overlong:
    """DAPO's soft penalty (arXiv 2503.14476): 0 up to (1 - share) max_tokens, falling linearly to -1 at max_tokens."""

    max_tokens: int
    share: float

    def penalty(self, num_tokens: int) -> float:
        """What is added to the reward of a response of so many tokens; never positive."""
        if self.share == 0.0:
            return 0.0
        room = self.share * self.max_tokens
        return -min(1.0, max(0.0, (num_tokens - (self.max_tokens - room)) / room))


class FirstScores:
    """Looks at the scores of a run until two of them differ, or until there were `limit` of one kind."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._num_seen = 0
        self._seen: set[float] = set()

    def look(self, scores: Sequence[float]) -> None:
        """Raises OneScore once `limit` scores, or more, have been equal. With a limit of 0 it never does."""
        if self._limit == 0 or len(self._seen) > 1:
            return
        self._num_seen += len(scores)
        self._seen |= set(scores)
        if self._num_seen >= self._limit and len(self._seen) == 1:
            (score,) = self._seen
            raise OneScore(
                f"all of the first {self._num_seen} responses got the score {score:g}, and equal scores teach nothing; "
                f"look at the grader and at responses of the base model (a probe shows both), or set "
                f"train.grading.refuse_one_score_after to 0 to train all the same"
            )


@dataclass(slots=True)
class Tally:
    """What became of the responses of one step."""

    step: int
    num_responses: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    examples: list[Unjudged] = field(default_factory=list)

    @property
    def error_share(self) -> float:
        """The share of the responses that could not be judged."""
        return self.errors.total() / self.num_responses if self.num_responses else 0.0

    def add(self, prompt: Prompt, text: str, score: Score) -> None:
        """Counts one response; the first few of each kind of trouble are kept."""
        self.num_responses += 1
        if score.note is not None:
            self.notes[score.note] += 1
        if score.error is None:
            return
        self.errors[score.error] += 1
        if self.errors[score.error] <= _EXAMPLES_PER_KIND:
            cut_prompt, cut_text = prompt.text[:_EXAMPLE_CHARACTERS], text[:_EXAMPLE_CHARACTERS]
            self.examples.append(Unjudged(kind=score.error, prompt=cut_prompt, response=cut_text))


class Grading:
    """Grades groups as they are: for evaluation."""

    def __init__(
        self, pool: GraderPool, report: Report, rules: GradingConfig | None = None, *, ranks: Ranks | None = None
    ) -> None:
        self._pool = pool
        self._report = report
        self._rules = rules or GradingConfig()
        self._ranks: Ranks = ranks or Alone()
        self._tally = Tally(step=-1)
        self._noted: set[str] = set()

    def begin(self, prompt: Prompt, text: str) -> None:
        """Has one response judged while others are still being drawn; `grade` then finds it done."""
        self._pool.begin(Sample(prompt.item, text))

    def grade(self, groups: Sequence[Group], step: int) -> list[Group]:
        """The same groups with one reward per response; rank 0 judges for all, so that no two verdicts differ.

        Raises GraderErrors when more of the step than `max_error_share` allows could not be judged.
        """
        asked = [(group.prompt, response.text) for group in groups for response in group.responses]
        samples = [Sample(prompt.item, text) for prompt, text in asked]
        scores = self._ranks.from_first(lambda: self._pool.judge(samples).total)
        self._count(asked, scores, step)
        rewards = iter(scores)
        return [replace(group, rewards=tuple(next(rewards).value for _ in group.responses)) for group in groups]

    def close(self) -> None:
        """Ends what the grader started."""
        self._pool.close()

    def _count(self, asked: Sequence[tuple[Prompt, str]], scores: Sequence[Score], step: int) -> None:
        tally = self._tally = self._tally if self._tally.step == step else Tally(step)
        for (prompt, text), score in zip(asked, scores, strict=True):
            tally.add(prompt, text, score)
        new = Counter(score.error for score in scores if score.error is not None)
        if new:
            self._report.warn(f"responses that could not be judged got the reward 0: {_listed(new)}", step)
        if fresh := set(tally.notes) - self._noted:  # each kind once; the metrics count them at every step
            self._noted |= fresh
            self._report.warn(f"programs that met a limit got the reward 0: {_listed(tally.notes)}", step)
        if tally.error_share > self._rules.max_error_share:
            self._report.grader_errors(step, tally.num_responses, tally.errors, tally.examples)
            raise GraderErrors(
                f"{tally.errors.total()} of {tally.num_responses} responses of step {step} could not be judged "
                f"({_listed(tally.errors)}), more than train.grading.max_error_share {self._rules.max_error_share:g}"
            )


class TrainingGrading(Grading):
    """Grades groups for training: with the overlong penalty, and with an eye on what the scores can teach."""

    def __init__(
        self,
        pool: GraderPool,
        report: Report,
        rules: GradingConfig,
        *,
        overlong: Overlong,
        first: FirstScores,
        ranks: Ranks | None = None,
    ) -> None:
        super().__init__(pool, report, rules, ranks=ranks)
        self._overlong = overlong
        self._first = first

    def grade(self, groups: Sequence[Group], step: int) -> list[Group]:
        """The same groups with one reward per response. Raises GraderErrors, and OneScore at the run's beginning."""
        graded = super().grade(groups, step)
        kinds = {f"grader/errors/{kind}": float(number) for kind, number in self._tally.errors.items()}
        notes = {f"grader/notes/{kind}": float(number) for kind, number in self._tally.notes.items()}
        self._report.note({"grader/error_share": self._tally.error_share, **kinds, **notes})
        self._first.look([reward for group in graded for reward in group.rewards])
        return [self._penalize(group) for group in graded]

    def _penalize(self, group: Group) -> Group:
        lengths = [len(response.token_ids) for response in group.responses]
        pairs = zip(group.rewards, lengths, strict=True)
        return replace(group, rewards=tuple(reward + self._overlong.penalty(length) for reward, length in pairs))


def _listed(errors: Counter[str]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in sorted(errors.items()))
