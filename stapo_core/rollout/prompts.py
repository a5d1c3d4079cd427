"""Turns rows into prompts. Knows the tokenizer and its chat template; it knows no model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from stapo_core.batch import Prompt
from stapo_core.data import DataError, Fault


def encode_prompts(
    rows: Iterable[Mapping[str, Any]],
    tokenizer: PreTrainedTokenizerBase,
    max_prompt_tokens: int,
    lines: Sequence[int] | None = None,
) -> list[Prompt]:
    """Tokenizes every row's prompt; `Prompt.index` counts rows from 0.

    Text is taken as it stands; messages go through the tokenizer's chat template, ending where the assistant's
    answer begins. Raises DataError for a prompt that is too long or cannot be rendered, naming its line of `lines`
    or, without them, the number of its row.
    """
    prompts = []
    for index, row in enumerate(rows):
        try:
            prompts.append(_encode(index, row, tokenizer, max_prompt_tokens))
        except Fault as fault:
            line, unit = (index + 1, "row") if lines is None else (lines[index], "line")
            raise DataError(fault.message, line, reason=fault.reason, unit=unit) from fault
    return prompts


def _encode(index: int, row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, max_prompt_tokens: int) -> Prompt:
    source = row.get("messages", row.get("prompt"))
    if isinstance(source, str):
        text, token_ids = source, tokenizer(source)["input_ids"]
    else:
        text = _render(source or (), tokenizer)
        # The template writes the special tokens itself.
        token_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not token_ids:
        raise Fault("empty_prompt", "the prompt has no tokens; write the problem in it")
    if len(token_ids) > max_prompt_tokens:
        raise Fault(
            "prompt_too_long",
            f"the prompt has {len(token_ids)} tokens and sampling.max_prompt_tokens is {max_prompt_tokens}; "
            "shorten the prompt or raise the limit",
        )
    return Prompt(index=index, text=text, token_ids=tuple(token_ids), item=row)


def _render(messages: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase) -> str:
    if not tokenizer.chat_template:
        raise Fault(
            "no_chat_template",
            "the prompt is a list of messages and the model's tokenizer has no chat template; "
            "write the prompt as a string or choose a chat model",
        )
    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))
    except Exception as error:  # templates are programs of the model's author and raise what they like
        raise Fault("bad_messages", f"the model's chat template refuses these messages ({error})") from error
