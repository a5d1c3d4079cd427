"""Rewards a length. Pure, in time linear in the text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stapo_core.config import LengthGrader
from stapo_core.graders.score import Pair, Score

UNITS: dict[str, Callable[[str], int]] = {
    "characters": len,
    "words": lambda text: len(text.split()),
    "lines": lambda text: sum(1 for line in text.splitlines() if line.strip()),
}


class LengthScorer:
    """Runs inline: counting cannot hang."""

    def __init__(self, config: LengthGrader) -> None:
        self._config = config
        self._count = UNITS[config.unit]

    def score(self, pairs: Sequence[Pair]) -> list[Score]:
        """1 within the bounds; outside 1 - distance / falloff, not below 0."""
        return [Score(self._reward(self._count(pair.text))) for pair in pairs]

    def close(self) -> None:
        """There is nothing to end."""

    def _reward(self, length: int) -> float:
        distance = max(self._config.min_length - length, length - self._config.max_length, 0)
        if distance == 0:
            return 1.0
        return max(0.0, 1.0 - distance / self._config.falloff) if self._config.falloff else 0.0
