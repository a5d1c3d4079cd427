from __future__ import annotations

import pytest

from stapo_core.data import DataError
from stapo_core.rollout.prompts import encode_prompts
from tests.stapo_core.rollout.models import make_tokenizer

MESSAGES = [{"role": "system", "content": "t1"}, {"role": "user", "content": "t2 t3"}]
TEMPLATE = "{% for m in messages %}{{ m.content }} {% endfor %}{% if add_generation_prompt %}t9{% endif %}"


def test_text_is_tokenized_as_it_stands() -> None:
    row = {"prompt": "t5 t6", "answer": "x"}
    (prompt,) = encode_prompts([row], make_tokenizer(), 8)
    assert (prompt.index, prompt.text, prompt.token_ids, prompt.item) == (0, "t5 t6", (5, 6), row)


@pytest.mark.parametrize("field", ["prompt", "messages"])
def test_messages_go_through_the_chat_template_up_to_the_answer(field: str) -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = TEMPLATE
    (prompt,) = encode_prompts([{field: MESSAGES}], tokenizer, 8)
    assert prompt.text == "t1 t2 t3 t9"
    assert prompt.token_ids == (1, 2, 3, 9)


def test_messages_without_a_chat_template_are_refused() -> None:
    with pytest.raises(DataError, match=r"row 2: .*has no chat template"):
        encode_prompts([{"prompt": "t1"}, {"messages": MESSAGES}], make_tokenizer(), 8)


def test_a_template_that_fails_is_quoted() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(DataError, match=r"row 1: .*no system role"):
        encode_prompts([{"messages": MESSAGES}], tokenizer, 8)


def test_a_prompt_over_the_limit_names_its_row_and_length() -> None:
    rows = [{"prompt": "t1 t2"}, {"prompt": "t1 t2 t3"}]
    with pytest.raises(DataError, match=r"row 2: .*3 tokens and sampling\.max_prompt_tokens is 2"):
        encode_prompts(rows, make_tokenizer(), 2)


def test_a_prompt_is_named_by_its_line_where_lines_are_known() -> None:
    with pytest.raises(DataError, match=r"^line 7: .*3 tokens"):
        encode_prompts([{"prompt": "t1"}, {"prompt": "t1 t2 t3"}], make_tokenizer(), 2, lines=[4, 7])
