"""Turns responses into rewards: one file per grader, chosen in one literal table.

Must stay free of torch: the API asks it which fields a grader reads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from stapo_core.config import Grader, MultiGrader, ScoreModelGrader
from stapo_core.config.graders.programs import USER_CODE
from stapo_core.graders import templates
from stapo_core.graders.ahead import Ahead
from stapo_core.graders.format import FormatScorer
from stapo_core.graders.json_schema import JsonSchemaScorer
from stapo_core.graders.length import LengthScorer
from stapo_core.graders.mathematics import MathScorer
from stapo_core.graders.multi import combine
from stapo_core.graders.numeric import NumericScorer
from stapo_core.graders.programs import CodeScorer, PythonScorer
from stapo_core.graders.reasoning_gym import ReasoningGymScorer
from stapo_core.graders.regex import RegexScorer
from stapo_core.graders.score import Pair, Sample, Scorer, Verdicts
from stapo_core.graders.score_model import ScoreModelScorer
from stapo_core.graders.string_check import StringCheckScorer
from stapo_core.graders.text_similarity import TextSimilarityScorer
from stapo_core.sandbox.host import find_obstacle

SCORERS: dict[str, Callable[[Any], Scorer]] = {
    "string_check": StringCheckScorer,
    "numeric": NumericScorer,
    "math": MathScorer,
    "regex": RegexScorer,
    "json_schema": JsonSchemaScorer,
    "length": LengthScorer,
    "format": FormatScorer,
    "text_similarity": TextSimilarityScorer,
    "score_model": ScoreModelScorer,
    "reasoning_gym": ReasoningGymScorer,
    "code": CodeScorer,
    "python": PythonScorer,
}
"""All but `multi`, which is a formula over these."""


def item_fields(grader: Grader) -> frozenset[str]:
    """Dotted paths of the row fields a grader reads. Raises TemplateError for an unknown template variable."""
    read: Iterable[frozenset[str]] = (
        map(item_fields, grader.graders.values())
        if isinstance(grader, MultiGrader)
        else map(templates.fields, _templates(grader))
    )
    return frozenset().union(*read)


class UserCodeRefused(ValueError):
    """A grader runs foreign programs, and may not or cannot here; `param` is its place below the grader, if any."""

    def __init__(self, message: str, param: str) -> None:
        super().__init__(message)
        self.param = param


def check_user_code(config: Grader, *, is_allowed: bool) -> bool:
    """Whether a grader runs foreign programs. Raises UserCodeRefused where it does and that is not allowed."""
    parts = config.graders if isinstance(config, MultiGrader) else {"": config}
    for name, part in parts.items():
        if isinstance(part, USER_CODE):
            if is_allowed:
                return True
            raise UserCodeRefused(
                f"a grader of type '{part.type}' runs foreign programs, which is off here; the operator can allow it, "
                f"in a sandbox, with STAPO_USER_CODE=sandboxed in the environment of the API, the workers or "
                f"`stapo train`",
                f"graders.{name}" if name else "",
            )
    return False


def build_grader(config: Grader, *, allows_user_code: bool = False) -> GraderPool:
    """The grader a config names; one that runs foreign programs only where that is allowed and can be sandboxed.

    Raises TemplateError for an unknown template variable, and UserCodeRefused.
    """
    item_fields(config)
    if check_user_code(config, is_allowed=allows_user_code) and (obstacle := find_obstacle()):
        raise UserCodeRefused(f"foreign programs cannot be sandboxed here, so none is run: {obstacle}", "")
    return GraderPool(config)


class GraderPool:
    """Judges samples, also ahead of being asked; `close` ends its threads and child processes."""

    def __init__(self, config: Grader) -> None:
        self._config = config
        parts = config.graders if isinstance(config, MultiGrader) else {config.name: config}
        self._parts = {name: (part, Ahead(SCORERS[part.type](part))) for name, part in parts.items()}

    def begin(self, sample: Sample) -> None:
        """Has a sample judged meanwhile, so that `judge` need not wait for it."""
        for part, scorer in self._parts.values():
            scorer.begin([_fill(part, sample)])

    def judge(self, samples: Sequence[Sample]) -> Verdicts:
        """What each sample is worth; equal ones are judged once. Raises TemplateError for a field that a row lacks."""
        asked = {name: [_fill(part, sample) for sample in samples] for name, (part, _) in self._parts.items()}
        for name, pairs in asked.items():
            self._parts[name][1].begin(pairs)
        parts = {name: self._parts[name][1].score(pairs) for name, pairs in asked.items()}
        if isinstance(self._config, MultiGrader):
            return Verdicts(combine(self._config, parts), parts)
        (total,) = parts.values()
        return Verdicts(total, parts)

    def close(self) -> None:
        """Ends what the grader started."""
        for _, scorer in self._parts.values():
            scorer.close()


def _fill(config: Any, sample: Sample) -> Pair:
    """The pair that a grader is asked about; messages become JSON."""

    def fill(template: str) -> str:
        return templates.render(template, item=sample.item, output_text=sample.text)

    if isinstance(config, ScoreModelGrader):
        messages = [{"role": message.role, "content": fill(message.template)} for message in config.input]
        return Pair(json.dumps(messages, ensure_ascii=False), "")
    return Pair(fill(config.input), fill(_reference(config)))


def _templates(config: Any) -> list[str]:
    """Every string of a grader in which variables are filled in."""
    if isinstance(config, ScoreModelGrader):
        return [message.template for message in config.input]
    return [config.input, _reference(config)]


def _reference(config: Any) -> str:
    """The template of the reference; some graders have none."""
    reference: str | None = getattr(config, "reference", None)
    return reference or ""
