"""What a model is asked, and its answers as columns. The page itself is tried beside a real worker."""

from __future__ import annotations

import math
from typing import Any

import pytest

from dashboard import playground
from dashboard.playground import Question

MODELS = [{"id": "tiny"}, {"id": "other"}]
JOB = {"id": "ftjob-0123456789", "suffix": "sums", "model": "other"}
SAVED = [
    {"step_number": 20, "final": True, "fine_tuned_model_checkpoint": "ft:other:sums:1:ckpt-step-20"},
    {"step_number": 10, "final": False, "fine_tuned_model_checkpoint": "ft:other:sums:1:ckpt-step-10"},
]


def test_a_run_offers_its_checkpoints_beside_the_models_and_its_base_and_newest_are_chosen() -> None:
    names = playground.model_names(MODELS, JOB, SAVED, [])

    assert names["ft:other:sums:1:ckpt-step-20"] == "sums · step 20, final"
    assert list(names) == ["tiny", "other", "ft:other:sums:1:ckpt-step-20", "ft:other:sums:1:ckpt-step-10"]
    assert playground.usual_models(names, JOB, SAVED) == ["other", "ft:other:sums:1:ckpt-step-20"]
    assert playground.usual_models(names, None, []) == ["tiny"]


def test_a_model_that_the_address_names_can_be_asked_though_no_list_has_it() -> None:
    assert playground.model_names(MODELS, None, [], ["ft:gone"])["ft:gone"] == "ft:gone"


@pytest.mark.parametrize("wants", [True, False])
def test_probabilities_are_asked_for_on_demand_alone(wants: bool) -> None:
    body = Question("1+1=", 0.5, 16, 2, 7, wants).body("tiny")

    assert body["prompt"] == "1+1="
    assert (body["temperature"], body["max_tokens"], body["n"], body["seed"]) == (0.5, 16, 2, 7)
    assert body.get("logprobs") == (playground.ALTERNATIVES if wants else None)


def test_an_answer_with_log_probabilities_becomes_columns_with_the_likeliest_first() -> None:
    choice: dict[str, Any] = {
        "text": "ab",
        "finish_reason": "stop",
        "logprobs": {
            "tokens": ["a", "b"],
            "token_logprobs": [math.log(0.5), math.log(0.02)],
            "top_logprobs": [{"a": math.log(0.5), "c": math.log(0.4)}, {"b": math.log(0.02), "d": math.log(0.9)}],
        },
    }

    tokens = playground.answer(choice)["tokens"]

    assert tokens["text"] == ["a", "b"]
    assert tokens["p"] == pytest.approx([0.5, 0.02])
    assert [[token for token, _ in place] for place in tokens["likely"]] == [["a", "c"], ["d", "b"]]
    assert playground.words(choice) == "2 tokens · 0.1 per token (geometric mean) · ended by itself"


def test_an_answer_without_them_is_its_text() -> None:
    choice = {"text": "<b>", "finish_reason": "length", "logprobs": None}

    assert playground.answer(choice) == {"text": "<b>", "finish": "length", "tokens": None}
    assert playground.words(choice) == "cut at the limit"
