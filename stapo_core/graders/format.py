"""Rewards a form: named tags in their order. Pure, in time linear in the text."""

from __future__ import annotations

from collections.abc import Sequence

from stapo_core.config import FormatGrader
from stapo_core.graders.score import Pair, Score


class FormatScorer:
    """Runs inline: it looks for fixed words."""

    def __init__(self, config: FormatGrader) -> None:
        self._config = config
        self._marks = [mark for tag in config.tags for mark in (f"<{tag}>", f"</{tag}>")]

    def score(self, pairs: Sequence[Pair]) -> list[Score]:
        """1 where the form is kept."""
        return [Score(float(self._keeps_form(pair.text))) for pair in pairs]

    def close(self) -> None:
        """There is nothing to end."""

    def _keeps_form(self, text: str) -> bool:
        if any(text.count(mark) != 1 for mark in self._marks):
            return False
        places = [text.index(mark) for mark in self._marks]
        if places != sorted(places):
            return False
        ends = [place + len(mark) for place, mark in zip(places, self._marks, strict=True)]
        # What lies before, between and behind the marks: inside a tag at odd places, outside at even ones.
        pieces = [text[start:stop].strip() for start, stop in zip([0, *ends], [*places, len(text)], strict=True)]
        inside, (before, *beside) = pieces[1::2], pieces[0::2]
        allowed = self._config.text_outside
        if (before and allowed == "forbidden") or (any(beside) and allowed != "anywhere"):
            return False
        return self._config.allow_empty or all(inside)
