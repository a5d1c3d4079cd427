"""Rewards as the loop wants them: the grader's verdicts, with the soft overlong penalty where it is on.

What a grader could not judge becomes a warning; the reward of such a response is the grader's 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from stapo_core.batch import Group
from stapo_core.distributed import Alone, Ranks
from stapo_core.graders import GraderPool
from stapo_core.report import Report


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


class Grading:
    """Grades groups for training or, with no `overlong`, for evaluation."""

    def __init__(
        self, pool: GraderPool, report: Report, overlong: Overlong | None = None, *, ranks: Ranks | None = None
    ) -> None:
        self._pool = pool
        self._report = report
        self._overlong = overlong
        self._ranks: Ranks = ranks or Alone()

    def grade(self, groups: Sequence[Group], step: int) -> list[Group]:
        """The same groups with one reward per response; rank 0 judges for all, so that no two verdicts differ."""
        graded = self._ranks.from_first(lambda: self._pool.grade(groups))
        if errors := self._pool.take_errors():
            counts = ", ".join(f"{number} {kind}" for kind, number in sorted(errors.items()))
            self._report.warn(f"responses that could not be judged got the reward 0: {counts}", step)
        return graded if self._overlong is None else [self._penalize(group, self._overlong) for group in graded]

    def close(self) -> None:
        """Ends what the grader started."""
        self._pool.close()

    def _penalize(self, group: Group, overlong: Overlong) -> Group:
        lengths = [len(response.token_ids) for response in group.responses]
        pairs = zip(group.rewards, lengths, strict=True)
        return replace(group, rewards=tuple(reward + overlong.penalty(length) for reward, length in pairs))
