from __future__ import annotations

from typing import Literal

import pytest

from stapo_core.config import StringCheckGrader
from stapo_core.graders.score import Pair
from stapo_core.graders.string_check import StringCheckScorer


@pytest.mark.parametrize(
    ("operation", "text", "reference", "reward"),
    [
        ("eq", "yes", "yes", 1.0),
        ("eq", "yes ", "yes", 0.0),
        ("eq", "Yes", "yes", 0.0),
        ("ne", "yes", "no", 1.0),
        ("ne", "no", "no", 0.0),
        ("like", "it is yes.", "yes", 1.0),
        ("like", "it is Yes.", "yes", 0.0),
        ("like", "yes", "it is yes", 0.0),
        ("ilike", "it is YES.", "yes", 1.0),
        ("ilike", "STRASSE", "straße", 1.0),
        ("ilike", "no", "yes", 0.0),
    ],
)
def test_each_operation_compares_as_the_dialect_says(
    operation: Literal["eq", "ne", "like", "ilike"], text: str, reference: str, reward: float
) -> None:
    config = StringCheckGrader(type="string_check", reference="{{item.answer}}", operation=operation)
    (score,) = StringCheckScorer(config).score([Pair(text, reference)])
    assert (score.value, score.error) == (reward, None)
