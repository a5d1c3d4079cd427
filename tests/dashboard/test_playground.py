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


def piece(index: int, text: str, *, tokens: dict[str, float] | None = None, begins: int = 0) -> dict[str, Any]:
    """More of one answer as the wire tells it; `tokens` with their log-probabilities, each the likeliest one."""
    told: Any = tokens and {
        "tokens": list(tokens),
        "token_logprobs": list(tokens.values()),
        "top_logprobs": [{token: value} for token, value in tokens.items()],
        "text_offset": [begins + sum(map(len, list(tokens)[:place])) for place in range(len(tokens))],
    }
    return {"index": index, "text": text, "logprobs": told, "finish_reason": None}


def last(index: int, finish: str) -> dict[str, Any]:
    return {"index": index, "text": "", "logprobs": None, "finish_reason": finish}


def fold(question: Question, *pieces: dict[str, Any]) -> list[playground.JsonObject]:
    choices = question.blank()
    for each in pieces:
        choices[each["index"]] = playground.grown(choices[each["index"]], each)
    return choices


def test_the_pieces_of_a_stream_make_what_the_unstreamed_answer_is() -> None:
    pieces = [
        piece(1, "4", tokens={"4": -0.5}),
        piece(0, "57", tokens={"5": -0.25, "7": -1.0}),
        piece(0, "9", tokens={"9": -2.0}, begins=2),
        piece(1, "", tokens={"": -3.0}, begins=1),
        last(0, "length"),
        last(1, "stop"),
    ]

    choices = fold(Question("123+456=", 1.0, 3, 2, 0, wants_probabilities=True), *pieces)

    assert choices == [
        {
            "index": 0,
            "text": "579",
            "finish_reason": "length",
            "logprobs": {
                "tokens": ["5", "7", "9"],
                "token_logprobs": [-0.25, -1.0, -2.0],
                "top_logprobs": [{"5": -0.25}, {"7": -1.0}, {"9": -2.0}],
                "text_offset": [0, 1, 2],
            },
        },
        {
            "index": 1,
            "text": "4",
            "finish_reason": "stop",
            "logprobs": {
                "tokens": ["4", ""],
                "token_logprobs": [-0.5, -3.0],
                "top_logprobs": [{"4": -0.5}, {"": -3.0}],
                "text_offset": [0, 1],
            },
        },
    ]


def test_without_probabilities_the_pieces_make_text_alone() -> None:
    choices = fold(Question("1+1=", 1.0, 3, 1, 0, wants_probabilities=False), piece(0, "1"), piece(0, "2"))

    assert choices == [{"index": 0, "text": "12", "finish_reason": None, "logprobs": None}]


def test_an_answer_that_is_read_while_it_grows_stays_as_it_was_read() -> None:
    question = Question("1+1=", 1.0, 3, 1, 0, wants_probabilities=True)
    before = fold(question, piece(0, "1", tokens={"1": -0.5}))[0]

    playground.grown(before, piece(0, "2", tokens={"2": -0.5}, begins=1))

    assert before["text"] == "1"
    assert before["logprobs"]["tokens"] == ["1"]


def test_a_growing_answer_has_a_cursor_and_is_told_without_what_else_was_likely() -> None:
    question = Question("1+1=", 1.0, 3, 1, 0, wants_probabilities=True)
    growing = fold(question, piece(0, "1", tokens={"1": math.log(0.5)}))[0]
    stopped = "1 token · mean token probability 0.5 · stopped before its end"

    assert playground.answer(growing, is_growing=True) == {
        "text": "1",
        "tail": "▍",
        "tokens": {"text": ["1"], "p": [pytest.approx(0.5)], "likely": []},
    }
    assert playground.words(growing, is_growing=True) == "being drawn"
    assert playground.answer(growing, is_growing=False)["tail"] == ""
    assert playground.words(growing, is_growing=False) == stopped
    assert playground.words(question.blank()[0], is_growing=False) == "stopped before it began"


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

    tokens = playground.answer(choice, is_growing=False)["tokens"]

    assert tokens["text"] == ["a", "b"]
    assert tokens["p"] == pytest.approx([0.5, 0.02])
    assert [[token for token, _ in place] for place in tokens["likely"]] == [["a", "c"], ["d", "b"]]
    assert playground.words(choice, is_growing=False) == "2 tokens · mean token probability 0.1 · finished"


def test_an_answer_without_them_is_its_text() -> None:
    choice = {"text": "<b>", "finish_reason": "length", "logprobs": None}

    assert playground.answer(choice, is_growing=False) == {"text": "<b>", "tail": "", "tokens": None}
    assert playground.words(choice, is_growing=False) == "cut at the limit"
