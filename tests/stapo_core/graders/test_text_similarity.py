from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from stapo_core.config import TextSimilarityGrader
from stapo_core.graders.score import Pair, Score
from stapo_core.graders.text_similarity import METRICS, TextSimilarityScorer, longest_common


def score(metric: str, text: str, reference: str) -> Score:
    config = TypeAdapter(TextSimilarityGrader).validate_python(
        {"type": "text_similarity", "reference": "{{item.answer}}", "evaluation_metric": metric}
    )
    return TextSimilarityScorer(config).score([Pair(text, reference)])[0]


@pytest.mark.parametrize(
    ("metric", "text", "reference", "expected"),
    [
        # LCS of kitten and sitting is ittn.
        ("fuzzy_match", "kitten", "sitting", 2 * 4 / 13),
        ("fuzzy_match", "abc", "xyz", 0.0),
        # Words in common: the cat, of 3 and 6.
        ("rouge_1", "the cat ran", "the cat sat on the mat", 2 * 2 / 9),
        # Bigrams in common: the cat, of 2 and 5.
        ("rouge_2", "The cat ran", "the cat sat on the mat", 2 * 1 / 7),
        ("rouge_3", "a b c d", "b c d e", 2 * 1 / 4),
        ("rouge_4", "a b c d", "a b c d e", 2 * 1 / 3),
        ("rouge_5", "a b c d", "a b c d e", 0.0),
        # LCS of words: police the gunman? No: police killed is not in order; `the gunman` is 2 of 4 and 4.
        ("rouge_l", "the gunman kill police", "police killed the gunman", 2 * 2 / 8),
        # N-grams in common of a b c and a b d: a, b, a b; 6 in each list.
        ("gleu", "a b c", "a b d", 3 / 6),
        # Precisions 2/3, (1 + 1)/(2 + 1), (0 + 1)/(1 + 1), (0 + 1)/(0 + 1); the lengths are equal.
        ("bleu", "a b c", "a b d", (2 / 3 * 2 / 3 * 1 / 2 * 1) ** 0.25),
        # All precisions are 1; 2 words against 4 cost exp(1 - 4 / 2).
        ("bleu", "a b", "a b c d", math.exp(-1)),
        # Clipping: `the` stands 7 times in the text and twice in the reference; 2/7, then (0 + 1)/(n + 1).
        ("bleu", "the the the the the the the", "the cat is on the mat", (2 / 7 / 7 / 6 / 5) ** 0.25),
    ],
)
def test_measures_equal_their_values_by_hand(metric: str, text: str, reference: str, expected: float) -> None:
    assert score(metric, text, reference).value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS)
def test_equal_texts_are_worth_one_and_no_text_nothing(metric: str) -> None:
    text = "one two three four five six"
    assert score(metric, text, text).value == pytest.approx(1.0, abs=1e-12)
    assert score(metric, "", text) == Score(0.0)


@pytest.mark.parametrize("metric", METRICS)
def test_a_reference_without_words_is_an_error_and_no_zero_in_silence(metric: str) -> None:
    assert score(metric, "text", " \n") == Score(0.0, "reference_empty")


@pytest.mark.parametrize(
    ("metric", "reference", "is_too_short"),
    [
        ("rouge_1", "?!", True), ("rouge_l", "?!", True), ("rouge_1", "one", False), ("rouge_l", "one", False),
        ("rouge_2", "one", True), ("rouge_2", "one two", False), ("rouge_5", "a b c d", True), ("bleu", "?!", False),
    ],
)  # fmt: skip
def test_a_reference_of_too_few_words_for_the_measure_is_an_error(
    metric: str, reference: str, is_too_short: bool
) -> None:
    expected = Score(0.0, "reference_too_short") if is_too_short else Score(1.0)
    assert score(metric, reference, reference) == expected


@pytest.mark.parametrize("metric", METRICS)
def test_long_texts_are_judged_at_once(metric: str) -> None:
    start = time.process_time()
    assert 0.0 <= score(metric, "ab " * 200_000, "ba " * 200_000).value <= 1.0
    assert time.process_time() - start < 5.0


@given(st.text(max_size=40), st.text(max_size=40))
def test_every_measure_lies_between_zero_and_one(text: str, reference: str) -> None:
    assert all(0.0 <= score(metric, text, reference).value <= 1.0 + 1e-12 for metric in METRICS)


@given(st.text("abc", max_size=12), st.text("abc", max_size=12))
def test_the_longest_common_subsequence_equals_the_table(left: str, right: str) -> None:
    table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    assert longest_common(left, right) == table[-1][-1]


@pytest.mark.parametrize("metric", ["cosine", "meteor"])
def test_measures_that_need_a_model_are_refused_by_name(metric: str) -> None:
    with pytest.raises(ValidationError, match="evaluation_metric"):
        score(metric, "a", "a")
