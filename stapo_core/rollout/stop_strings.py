"""Ends responses at strings. Knows the tokenizer; it knows no model and no end-of-sequence token."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Bool, Int64
from torch import Tensor, tensor
from transformers import PreTrainedTokenizerBase


class StopStrings:
    """Some strings, any of which ends a response; a string may begin and end in the middle of a token."""

    def __init__(self, strings: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> None:
        """Raises ValueError for an empty string, which would end every response at once."""
        if not all(strings):
            raise ValueError("a stop string is empty; leave it out")
        self._strings = tuple(strings)
        self._tokenizer = tokenizer
        # A token holds a byte or more, a character at most four; some more, since a tail may begin within a character.
        self._tail = 4 * max((len(string) for string in strings), default=0) + 8

    def found(self, token_ids: Int64[Tensor, "n T"]) -> Bool[Tensor, " n"]:
        """Whether each response holds one of the strings, asked after every token: only its tail is read."""
        if not self._strings:
            return tensor([False] * len(token_ids))
        texts = self._decode(token_ids[:, -self._tail :])
        return tensor([any(string in text for string in self._strings) for text in texts])

    def cut(self, text: str) -> str:
        """The text before the first of the strings."""
        places = [place for string in self._strings if (place := text.find(string)) >= 0]
        return text[: min(places)] if places else text

    def _decode(self, token_ids: Tensor) -> list[str]:
        decoded: list[str] = self._tokenizer.batch_decode(
            token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return decoded
