"""Turns responses into rewards: one file per grader, chosen in one literal table.

Must stay free of torch: the API asks it which fields a grader reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stapo_core.config import Grader
from stapo_core.graders import templates
from stapo_core.graders.mathematics import MathScorer
from stapo_core.graders.numeric import NumericScorer
from stapo_core.graders.score import Pair, Score, Scorer
from stapo_core.graders.string_check import StringCheckScorer

if TYPE_CHECKING:
    from stapo_core.batch import Group

SCORERS: dict[str, Callable[[Any], Scorer]] = {
    "string_check": StringCheckScorer,
    "numeric": NumericScorer,
    "math": MathScorer,
}


def item_fields(grader: Grader) -> frozenset[str]:
    """Dotted paths of the row fields a grader reads. Raises TemplateError for an unknown template variable."""
    return templates.fields(grader.input) | templates.fields(grader.reference)


def build_grader(config: Grader) -> GraderPool:
    """The grader a config names. Raises TemplateError for an unknown template variable."""
    item_fields(config)
    return GraderPool(config, SCORERS[config.type](config))


class GraderPool:
    """Grades groups and counts, by kind, what it could not judge; `close` ends its child processes."""

    def __init__(self, config: Grader, scorer: Scorer) -> None:
        self._config = config
        self._scorer = scorer
        self._errors: Counter[str] = Counter()

    @property
    def errors(self) -> dict[str, int]:
        """Responses that got 0 because they could not be judged, by kind, since `take_errors` was last called."""
        return dict(self._errors)

    def take_errors(self) -> dict[str, int]:
        """Gives the counts and begins again at none."""
        taken = self.errors
        self._errors.clear()
        return taken

    def grade(self, groups: Sequence[Group]) -> list[Group]:
        """The same groups with one reward per response."""
        pairs = [self._pair(group, response.text) for group in groups for response in group.responses]
        scores = iter(self._score(pairs))
        return [replace(group, rewards=tuple(next(scores).value for _ in group.responses)) for group in groups]

    def close(self) -> None:
        """Ends what the grader started."""
        self._scorer.close()

    def _score(self, pairs: Sequence[Pair]) -> list[Score]:
        scores = self._scorer.score(pairs)
        self._errors.update(score.error for score in scores if score.error is not None)
        return scores

    def _pair(self, group: Group, text: str) -> Pair:
        item = group.prompt.item
        return Pair(
            text=templates.render(self._config.input, item=item, output_text=text),
            reference=templates.render(self._config.reference, item=item, output_text=text),
        )
