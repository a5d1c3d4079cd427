"""Turns responses into rewards: one file per grader, chosen in one literal table.

Must stay free of torch: the API asks it which fields a grader reads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from stapo_core.config import Grader, MultiGrader
from stapo_core.graders import templates
from stapo_core.graders.format import FormatScorer
from stapo_core.graders.json_schema import JsonSchemaScorer
from stapo_core.graders.length import LengthScorer
from stapo_core.graders.mathematics import MathScorer
from stapo_core.graders.multi import combine
from stapo_core.graders.numeric import NumericScorer
from stapo_core.graders.regex import RegexScorer
from stapo_core.graders.score import Pair, Score, Scorer
from stapo_core.graders.string_check import StringCheckScorer
from stapo_core.graders.text_similarity import TextSimilarityScorer

if TYPE_CHECKING:
    from stapo_core.batch import Group

SCORERS: dict[str, Callable[[Any], Scorer]] = {
    "string_check": StringCheckScorer,
    "numeric": NumericScorer,
    "math": MathScorer,
    "regex": RegexScorer,
    "json_schema": JsonSchemaScorer,
    "length": LengthScorer,
    "format": FormatScorer,
    "text_similarity": TextSimilarityScorer,
}
"""All but `multi`, which is a formula over these."""


def item_fields(grader: Grader) -> frozenset[str]:
    """Dotted paths of the row fields a grader reads. Raises TemplateError for an unknown template variable."""
    read: Iterable[frozenset[str]] = (
        map(item_fields, grader.graders.values())
        if isinstance(grader, MultiGrader)
        else (templates.fields(grader.input), templates.fields(_reference(grader)))
    )
    return frozenset().union(*read)


def build_grader(config: Grader) -> GraderPool:
    """The grader a config names. Raises TemplateError for an unknown template variable."""
    item_fields(config)
    return GraderPool(config)


class GraderPool:
    """Grades groups and counts, by kind, what it could not judge; `close` ends its child processes."""

    def __init__(self, config: Grader) -> None:
        self._config = config
        parts = config.graders if isinstance(config, MultiGrader) else {config.name: config}
        self._parts = {name: (part, SCORERS[part.type](part)) for name, part in parts.items()}
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
        found = {name: self._score(part, scorer, groups) for name, (part, scorer) in self._parts.items()}
        if isinstance(self._config, MultiGrader):
            scores = combine(self._config, found)
        else:
            (scores,) = found.values()
        self._errors.update(score.error for score in scores if score.error is not None)
        rewards = iter(scores)
        return [replace(group, rewards=tuple(next(rewards).value for _ in group.responses)) for group in groups]

    def close(self) -> None:
        """Ends what the grader started."""
        for _, scorer in self._parts.values():
            scorer.close()

    def _score(self, config: Any, scorer: Scorer, groups: Sequence[Group]) -> list[Score]:
        pairs = []
        for group in groups:
            item = group.prompt.item
            for response in group.responses:
                text = templates.render(config.input, item=item, output_text=response.text)
                reference = templates.render(_reference(config), item=item, output_text=response.text)
                pairs.append(Pair(text, reference))
        return scorer.score(pairs)


def _reference(config: Any) -> str:
    """The template of the reference; some graders have none."""
    reference: str | None = getattr(config, "reference", None)
    return reference or ""
