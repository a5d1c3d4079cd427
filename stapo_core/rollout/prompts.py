"""Turns rows into prompts. Knows the tokenizer and its chat template; it knows no model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from stapo_core.batch import Prompt
from stapo_core.data import DataError


def encode_prompts(
    rows: Iterable[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase, max_prompt_tokens: int
) -> list[Prompt]:
    """Tokenizes every row's prompt; `Prompt.index` counts rows from 0.

    Text is taken as it stands; messages go through the tokenizer's chat template, ending where the assistant's
    answer begins. Raises DataError, naming the row, for a prompt that is too long or cannot be rendered.
    """
    return [_encode(index, row, tokenizer, max_prompt_tokens) for index, row in enumerate(rows)]


def _encode(index: int, row: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase, max_prompt_tokens: int) -> Prompt:
    source = row.get("messages", row.get("prompt"))
    if isinstance(source, str):
        text, token_ids = source, tokenizer(source)["input_ids"]
    else:
        text = _render(index, source or (), tokenizer)
        # The template writes the special tokens itself.
        token_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not token_ids:
        raise _refuse(index, "the prompt has no tokens; write the problem in it")
    if len(token_ids) > max_prompt_tokens:
        raise _refuse(
            index,
            f"the prompt has {len(token_ids)} tokens and sampling.max_prompt_tokens is {max_prompt_tokens}; "
            "shorten the prompt or raise the limit",
        )
    return Prompt(index=index, text=text, token_ids=tuple(token_ids), item=row)


def _render(index: int, messages: Sequence[Mapping[str, Any]], tokenizer: PreTrainedTokenizerBase) -> str:
    if not tokenizer.chat_template:
        raise _refuse(
            index,
            "the prompt is a list of messages and the model's tokenizer has no chat template; "
            "write the prompt as a string or choose a chat model",
        )
    try:
        return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))
    except Exception as error:  # templates are programs of the model's author and raise what they like
        raise _refuse(index, f"the model's chat template refuses these messages ({error})") from error


def _refuse(index: int, message: str) -> DataError:
    return DataError(f"row {index + 1} (blank lines not counted): {message}")
