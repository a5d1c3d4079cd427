"""Judges mathematical equality. Knows how answers are written; the algebra lives in the child."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from stapo_core.config import MathGrader
from stapo_core.graders.children import ChildPool
from stapo_core.graders.score import Pair, Score

_TAIL = 4000  # characters of a response without a box that are searched for its last expression
_WIDEST = 4000  # an answer longer than this is no answer
_SUPERSCRIPTS = re.compile("⁻?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_ROOT = re.compile(r"√\s*([0-9]+|[A-Za-z])")
_FULL_STOP = re.compile(r"(?<=[0-9])\.$")
_FRACTIONS = str.maketrans(
    {
        character: "\\frac{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", character).split("⁄"))
        for character in "½⅓⅔¼¾⅛"
    }
)


class MathScorer:
    """Judges in child processes: symbolic algebra on foreign text can take for ever."""

    def __init__(self, config: MathGrader) -> None:
        self._children = ChildPool("stapo_core.graders.math_child", config.timeout_s)

    def score(self, pairs: Sequence[Pair]) -> list[Score]:
        """1 where the answer equals the reference; equal pairs are judged once."""
        asked = [Pair(answer_of(pair.text), reference_of(pair.reference)) for pair in pairs]
        scores = {pair: score for pair in dict.fromkeys(asked) if (score := _obvious(pair)) is not None}
        scores |= self._children.judge([pair for pair in dict.fromkeys(asked) if pair not in scores])
        return [scores[pair] for pair in asked]

    def close(self) -> None:
        """Kills the children."""
        self._children.close()


def answer_of(text: str) -> str:
    r"""What is judged: the last `\boxed{...}`, else the end of the text, where the last expression stands."""
    boxed = _last_boxed(text)
    return text[-_TAIL:] if boxed is None else _box(boxed)


def reference_of(text: str) -> str:
    r"""The reference in a box: it is LaTeX or a number, with or without dollars or a box of its own."""
    boxed = _last_boxed(text)
    return _box(text if boxed is None else boxed)


def _box(text: str) -> str:
    return f"\\boxed{{{_as_latex(text.strip().strip('$').strip())}}}"


def _as_latex(text: str) -> str:
    """What is typed as characters of its own, as LaTeX has it; the full stop after a number ends a sentence."""
    text = _SUPERSCRIPTS.sub(lambda found: f"^{{{unicodedata.normalize('NFKC', found[0])}}}", text).replace("−", "-")
    text = _ROOT.sub(lambda found: f"\\sqrt{{{found[1]}}}", text.translate(_FRACTIONS))
    return _FULL_STOP.sub("", text.replace("\\varnothing", "\\emptyset").replace("∅", "\\emptyset"))


def _last_boxed(text: str) -> str | None:
    start = max(text.rfind("\\boxed{"), text.rfind("\\fbox{"))
    if start < 0:
        return None
    first = text.index("{", start) + 1
    depth = 1
    for place in range(first, min(len(text), first + _WIDEST)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[first:place]
    return None


def _obvious(pair: Pair) -> Score | None:
    """The same characters mean the same, and no text is no answer: neither needs algebra."""
    if pair.reference == _box(""):
        return Score(0.0, "reference_unreadable")
    if pair.text == pair.reference:
        return Score(1.0)
    if pair.text.strip() in ("", _box("")):
        return Score(0.0)
    return None
