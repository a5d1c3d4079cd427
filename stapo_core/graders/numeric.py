"""Reads the last number of a text and compares it with a reference. Pure, in time linear in the text."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from decimal import Decimal, DecimalException, localcontext

from stapo_core.config import NumericGrader
from stapo_core.graders.score import Pair, Score

# A sign counts unless it stands behind a number, a word or a bracket, where it is an operator: `12-5` ends in 5.
_NUMBER = re.compile(
    r"(?:(?<![\w.)\]}])[-+\u2212])?"
    r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]+(?:\.[0-9]+)?|\.[0-9]+)"
    r"(?:[eE][-+]?[0-9]+)?"
)
# What a reference may not have around its last number, or that number is not its value: 3/4, 2^10, 1.2.3.
_GOES_ON_BEFORE, _GOES_ON_AFTER = re.compile(r"[/^]\s*\{?$|\}\{$|[0-9]$"), re.compile(r"\s*[/^]")
_MAX_DIGITS = 1000


class NumericScorer:
    """Runs inline: reading a number cannot hang."""

    def __init__(self, config: NumericGrader) -> None:
        self._absolute = Decimal(repr(config.absolute_tolerance))
        self._relative = Decimal(repr(config.relative_tolerance))

    def score(self, pairs: Sequence[Pair]) -> list[Score]:
        """1 where |number - reference| <= max(absolute, relative * |reference|); no number in the text is 0."""
        return [self._score(pair) for pair in pairs]

    def close(self) -> None:
        """There is nothing to end."""

    def _score(self, pair: Pair) -> Score:
        reference = last_number(pair.reference)
        if reference is None or _goes_on(pair.reference):
            return Score(0.0, "reference_not_a_number")
        found = last_number(pair.text)
        return Score(float(found is not None and self._is_close(found, reference)))

    def _is_close(self, found: Decimal, reference: Decimal) -> bool:
        if found == reference:
            return True
        try:
            with localcontext(prec=_MAX_DIGITS):
                return abs(found - reference) <= max(self._absolute, self._relative * abs(reference))
        except DecimalException:  # an exponent beyond all bounds: the two are not close
            return False


def _goes_on(text: str) -> bool:
    """Whether the last number is only a part of what is written there."""
    (number,) = deque(_NUMBER.finditer(text), maxlen=1)
    before, after = text[max(0, number.start() - 9) : number.start()], text[number.end() : number.end() + 9]
    return bool(_GOES_ON_BEFORE.search(before) or _GOES_ON_AFTER.match(after))


def last_number(text: str) -> Decimal | None:
    """The last number written in decimal digits; thousands may be set off by commas. None if there is none."""
    found = deque(_NUMBER.finditer(text), maxlen=1)
    if not found or len(found[0][0]) > _MAX_DIGITS:
        return None
    try:
        return Decimal(found[0][0].replace(",", "").replace("\u2212", "-"))
    except DecimalException:
        return None
