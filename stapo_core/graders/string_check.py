"""Compares two strings as the dialect's `string_check` does. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stapo_core.config import StringCheckGrader
from stapo_core.graders.score import Pair, Score

OPERATIONS: dict[str, Callable[[str, str], bool]] = {
    "eq": lambda text, reference: text == reference,
    "ne": lambda text, reference: text != reference,
    "like": lambda text, reference: reference in text,
    "ilike": lambda text, reference: reference.casefold() in text.casefold(),
}


class StringCheckScorer:
    """Runs inline: a comparison cannot hang."""

    def __init__(self, config: StringCheckGrader) -> None:
        self._compare = OPERATIONS[config.operation]

    def score(self, pairs: Sequence[Pair]) -> list[Score]:
        """1 where the comparison holds."""
        return [Score(float(self._compare(pair.text, pair.reference))) for pair in pairs]

    def close(self) -> None:
        """There is nothing to end."""
