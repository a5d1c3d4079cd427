"""How near one text comes to another, by the usual measures. Pure; a bounded share of long texts is compared.

fuzzy_match: 2 LCS / (a + b) over characters. bleu: sentence BLEU of n-grams up to 4 (Papineni et al. 2002), those
above 1 smoothed by one (Lin and Och 2004). gleu: the smaller of precision and recall of all n-grams up to 4 (Wu et
al. 2016). rouge_n and rouge_l: F1 of n-grams and of the LCS over words (Lin 2004), without stemming.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Hashable, Sequence

from stapo_core.config import TextSimilarityGrader
from stapo_core.graders.score import Pair, Score

_WORD = re.compile(r"\w+")
_WORD_OR_MARK = re.compile(r"\w+|[^\w\s]")
_LONGEST = 4
_MAX_CHARACTERS = 20_000  # of either text; what lies beyond is not compared

_Grams = Counter[tuple[str, ...]]


class TextSimilarityScorer:
    """Runs inline: the time is bounded by the length that is compared."""

    def __init__(self, config: TextSimilarityGrader) -> None:
        metric = config.evaluation_metric
        self._measure = METRICS[metric]
        self._is_of_words = metric.startswith("rouge")
        self._num_words = int(metric[-1]) if self._is_of_words and metric[-1].isdigit() else 1

    def score(self, pairs: Sequence[Pair]) -> list[Score]:
        """The measure; a reference of too few words, which nothing could come near to, is an error."""
        measured = {pair: self._score(pair) for pair in dict.fromkeys(pairs)}
        return [measured[pair] for pair in pairs]

    def close(self) -> None:
        """There is nothing to end."""

    def _score(self, pair: Pair) -> Score:
        if not _WORD_OR_MARK.search(pair.reference):
            return Score(0.0, "reference_empty")
        if self._is_of_words and len(_words(pair.reference[:_MAX_CHARACTERS])) < self._num_words:
            return Score(0.0, "reference_too_short")
        return Score(self._measure(pair.text[:_MAX_CHARACTERS], pair.reference[:_MAX_CHARACTERS]))


def fuzzy_match(text: str, reference: str) -> float:
    """The share of characters that stand in both in the same order."""
    return 2 * longest_common(text, reference) / (len(text) + len(reference))


def bleu(text: str, reference: str) -> float:
    """Geometric mean of clipped precisions, times the penalty for brevity."""
    words, wanted = _WORD_OR_MARK.findall(text), _WORD_OR_MARK.findall(reference)
    if not words:
        return 0.0
    log_mean = 0.0
    for size in range(1, _LONGEST + 1):
        ours, theirs = _grams(words, size), _grams(wanted, size)
        smoothing = 0 if size == 1 else 1
        common, total = (ours & theirs).total() + smoothing, ours.total() + smoothing
        if common == 0:
            return 0.0
        log_mean += math.log(common / total) / _LONGEST
    return math.exp(min(0.0, 1 - len(wanted) / len(words)) + log_mean)


def gleu(text: str, reference: str) -> float:
    """The n-grams in common over those of the longer list."""
    words, wanted = _WORD_OR_MARK.findall(text), _WORD_OR_MARK.findall(reference)
    common = ours_total = theirs_total = 0
    for size in range(1, _LONGEST + 1):
        ours, theirs = _grams(words, size), _grams(wanted, size)
        common += (ours & theirs).total()
        ours_total, theirs_total = ours_total + ours.total(), theirs_total + theirs.total()
    return common / max(ours_total, theirs_total)


def rouge_n(text: str, reference: str, size: int) -> float:
    """F1 of n-grams of words, without regard to capitals."""
    ours, theirs = _grams(_words(text), size), _grams(_words(reference), size)
    return _f1((ours & theirs).total(), ours.total(), theirs.total())


def rouge_l(text: str, reference: str) -> float:
    """F1 of the longest common subsequence of words, without regard to capitals."""
    ours, theirs = _words(text), _words(reference)
    return _f1(longest_common(ours, theirs), len(ours), len(theirs))


def longest_common(left: Sequence[Hashable], right: Sequence[Hashable]) -> int:
    """Length of the longest common subsequence, one row of the table in the bits of one integer (Hyyro 2004)."""
    places: dict[Hashable, int] = {}
    for place, item in enumerate(left):
        places[item] = places.get(item, 0) | 1 << place
    everything = (1 << len(left)) - 1
    row = everything
    for item in right:
        matches = row & places.get(item, 0)
        row = ((row + matches) | (row - matches)) & everything
    return len(left) - row.bit_count()


METRICS: dict[str, Callable[[str, str], float]] = {
    "fuzzy_match": fuzzy_match,
    "bleu": bleu,
    "gleu": gleu,
    "rouge_1": lambda text, reference: rouge_n(text, reference, 1),
    "rouge_2": lambda text, reference: rouge_n(text, reference, 2),
    "rouge_3": lambda text, reference: rouge_n(text, reference, 3),
    "rouge_4": lambda text, reference: rouge_n(text, reference, 4),
    "rouge_5": lambda text, reference: rouge_n(text, reference, 5),
    "rouge_l": rouge_l,
}


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())


def _grams(words: Sequence[str], size: int) -> _Grams:
    return Counter(tuple(words[place : place + size]) for place in range(len(words) - size + 1))


def _f1(common: int, ours: int, theirs: int) -> float:
    return 2 * common / (ours + theirs) if common else 0.0
