"""Validates responses against a JSON Schema in child processes, under a deadline: patterns and references can hang."""

from __future__ import annotations

from collections.abc import Sequence

from stapo_core.config import JsonSchemaGrader
from stapo_core.graders.children import ChildPool
from stapo_core.graders.score import Pair, Score

_WIDEST = 200_000  # characters; a longer response is no answer


class JsonSchemaScorer:
    """One schema for all pairs; there is no reference."""

    def __init__(self, config: JsonSchemaGrader) -> None:
        settings = {"schema": config.json_schema}
        self._children = ChildPool("stapo_core.graders.json_schema_child", config.timeout_s, settings)

    def score(self, pairs: Sequence[Pair]) -> list[Score]:
        """1 where the text is JSON that the schema accepts; equal texts are judged once."""
        scores = self._children.judge([pair for pair in dict.fromkeys(pairs) if len(pair.text) <= _WIDEST])
        return [scores.get(pair, Score(0.0)) for pair in pairs]

    def close(self) -> None:
        """Kills the children."""
        self._children.close()
