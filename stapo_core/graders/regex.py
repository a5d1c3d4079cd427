"""Looks for a pattern in child processes, under a deadline: a search can take exponential time. Knows no syntax."""

from __future__ import annotations

from collections.abc import Sequence

from stapo_core.config import RegexGrader
from stapo_core.graders.children import ChildPool
from stapo_core.graders.score import Pair, Score


class RegexScorer:
    """One pattern for all pairs; references are compared in the child."""

    def __init__(self, config: RegexGrader) -> None:
        settings = config.model_dump(include={"pattern", "match", "ignore_case"})
        settings["has_reference"] = config.reference is not None
        self._children = ChildPool("stapo_core.graders.regex_child", config.timeout_s, settings)

    def score(self, pairs: Sequence[Pair]) -> list[Score]:
        """1 where the pattern is found and what it holds is the reference; equal pairs are judged once."""
        scores = self._children.judge(list(dict.fromkeys(pairs)))
        return [scores[pair] for pair in pairs]

    def close(self) -> None:
        """Kills the children."""
        self._children.close()
