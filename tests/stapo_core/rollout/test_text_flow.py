"""Text that grows token by token, against the text of all tokens together."""

from __future__ import annotations

import random
from typing import Any

import pytest
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from stapo_core.rollout.text_flow import TextFlow, TokenTexts


def make_byte_tokenizer() -> Any:
    """One token per byte, written as GPT-2's tokenizer writes bytes; two bytes of an emoji are a token of their own."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={word: place for place, word in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def make_fallback_tokenizer() -> Any:
    """Words and, for what is no word, bytes: as SentencePiece writes them."""
    words = {f"<0x{byte:02X}>": byte for byte in range(256)} | {"▁one": 256, "▁two": 257, "é": 258}
    tokenizer = Tokenizer(models.BPE(vocab=words, merges=[], byte_fallback=True))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)


BYTES = make_byte_tokenizer()
FALLBACK = make_fallback_tokenizer()


def flow(tokenizer: Any, token_ids: list[int], stops: tuple[str, ...] = ()) -> list[str]:
    growing = TextFlow(tokenizer, stops)
    return [*(growing.add(token_id) for token_id in token_ids), growing.end()]


def test_a_character_of_four_bytes_comes_whole_with_its_last_byte() -> None:
    ids = BYTES("a😀é")["input_ids"]
    assert flow(BYTES, ids) == ["a", "", "", "", "😀", "", "é", ""]


def test_bytes_that_fall_back_come_as_one_character() -> None:
    ids = [256, *"😀".encode(), 258, 257]
    assert flow(FALLBACK, ids) == [" one", "", "", "", "😀", "é", " two", ""]


@pytest.mark.parametrize("seed", range(5))
def test_the_pieces_of_any_text_are_the_text(seed: int) -> None:
    source = random.Random(seed)
    text = "".join(source.choice("ab 1é€😀\n") for _ in range(400))
    ids = BYTES(text)["input_ids"]
    assert "".join(flow(BYTES, ids)) == text


@pytest.mark.parametrize("seed", range(3))
def test_bytes_that_are_no_text_come_out_as_they_are_decoded_together(seed: int) -> None:
    source = random.Random(seed)
    ids = [source.randrange(256) for _ in range(300)]
    pieces = flow(BYTES, ids)
    assert "".join(pieces) == BYTES.decode(ids, clean_up_tokenization_spaces=False)
    assert max(map(len, pieces)) <= 8  # nothing piles up


def test_a_long_text_is_decoded_window_by_window() -> None:
    decoded: list[int] = []

    class Counting:
        def decode(self, ids: list[int], **options: Any) -> str:
            decoded.append(len(ids))
            return str(BYTES.decode(ids, **options))

    growing = TextFlow(Counting())
    text = "0123456789" * 200
    assert "".join(growing.add(token_id) for token_id in BYTES(text)["input_ids"]) == text
    assert max(decoded) <= 64


def test_text_that_may_begin_a_stop_string_waits_and_nothing_comes_after_one() -> None:
    ids = BYTES("a##b###c")["input_ids"]
    assert flow(BYTES, ids, ("###",)) == ["a", "", "", "##b", "", "", "", "", ""]
    assert "".join(flow(BYTES, BYTES("a##")["input_ids"], ("###",))) == "a##"


def test_the_first_of_several_stop_strings_ends_the_text() -> None:
    assert "".join(flow(BYTES, BYTES("one. two\nthree")["input_ids"], ("\n", ". "))) == "one"


def test_a_token_tells_its_bytes() -> None:
    first = BYTES("€")["input_ids"][0]
    assert TokenTexts(BYTES).bytes(first) == [0xE2]
    assert TokenTexts(BYTES).text(first) == "\ufffd"
    assert TokenTexts(FALLBACK).bytes(0xE2) == [0xE2]
    assert TokenTexts(FALLBACK).bytes(256) == list(b" one")
