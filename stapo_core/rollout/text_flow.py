"""The text of a response while it grows, token by token. Knows the tokenizer; it knows no model.

What has been given out is never taken back: bytes that do not make a character yet wait for the next token, and so
does text that may turn out to be the beginning of a stop string.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

_UNKNOWN = "\ufffd"
_MAX_HELD = 3  # bytes of a character of UTF-8 that lacks its last one
_WINDOW = 64  # tokens that are decoded together, so that a long response costs no more per token than a short one
_CONTEXT = 8  # tokens before a new window that stay in it: a tokenizer may write a token by what stands before it


class TextFlow:
    """One response: tokens in, text out, cut before the first stop string."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str] = ()) -> None:
        self._tokenizer = tokenizer
        self._stops = tuple(stops)
        self._ids: list[int] = []
        self._num_read = 0  # characters of the window's text that have been taken out of it
        self._held = ""  # taken out, and perhaps the beginning of a stop string
        self._is_over = False

    def add(self, token_id: int) -> str:
        """What the token adds to the text that is certain by now."""
        self._ids.append(token_id)
        text = self._decode()
        certain = len(text) - _num_trailing(text)
        piece = text[self._num_read : certain]
        self._num_read = max(self._num_read, certain)
        if len(self._ids) >= _WINDOW:
            num_waiting = len(text) - self._num_read
            self._ids = self._ids[-_CONTEXT:]
            self._num_read = max(0, len(self._decode()) - num_waiting)
        return self._release(piece)

    def end(self) -> str:
        """What was held back, now that nothing follows."""
        rest = self._decode()[self._num_read :]
        self._num_read += len(rest)
        piece = self._release(rest)
        held, self._held = self._held, ""
        return piece if self._is_over else piece + held

    def _decode(self) -> str:
        return str(self._tokenizer.decode(self._ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _release(self, piece: str) -> str:
        """Passes on what cannot belong to a stop string; nothing after one."""
        if self._is_over:
            return ""
        text = self._held + piece
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self._is_over, self._held = True, ""
            return text[: min(places)]
        num_held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - num_held :]
        return text[: len(text) - num_held]


class TokenTexts:
    """The text of single tokens, and their bytes where a token holds a part of a character."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def text(self, token_id: int) -> str:
        """The token as text; U+FFFD stands for bytes that are no character."""
        return str(self._tokenizer.decode([token_id], clean_up_tokenization_spaces=False))

    def bytes(self, token_id: int) -> list[int] | None:
        """The token's bytes in UTF-8; None where the tokenizer does not tell them."""
        text = self.text(token_id)
        if _UNKNOWN not in text:
            return list(text.encode())
        piece = str(self._tokenizer.convert_ids_to_tokens(token_id))
        if named := re.fullmatch(r"<0x([0-9A-F]{2})>", piece):
            return [int(named[1], 16)]
        if all(character in _BYTE_OF for character in piece):
            return [_BYTE_OF[character] for character in piece]
        return None


def _num_trailing(text: str) -> int:
    """How many characters at the end may be the beginning of a character whose last byte is still missing."""
    return min(len(text) - len(text.rstrip(_UNKNOWN)), _MAX_HELD)


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of `text` begin `stop`."""
    most = min(len(text), len(stop) - 1)
    return next((size for size in range(most, 0, -1) if text.endswith(stop[:size])), 0)


def _byte_characters() -> dict[str, int]:
    """The printable character that byte-level tokenizers write for each byte, as GPT-2's does."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + place): byte for place, byte in enumerate(others)}


_BYTE_OF = _byte_characters()
