from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from stapo_core.rollout.stop_strings import StopStrings


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte, as the rarest characters of byte-level tokenizers are written."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({character: place for place, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize("stop", ["END", "\n\n", "終わり", "🙂🙂"])
def test_a_string_is_found_with_the_token_that_completes_it_and_not_before(stop: str) -> None:
    tokenizer = byte_tokenizer()
    stops = StopStrings((stop,), tokenizer)
    ids = torch.tensor([tokenizer(f"é {'x' * 100}{stop}")["input_ids"]])
    found = [bool(stops.found(ids[:, : length + 1])) for length in range(ids.shape[1])]
    assert found == [False] * (ids.shape[1] - 1) + [True]


def test_the_text_is_cut_before_the_first_of_them() -> None:
    stops = StopStrings(("END", "stop"), byte_tokenizer())
    assert stops.cut("a stop and an END") == "a "
    assert stops.cut("nothing") == "nothing"


def test_an_empty_string_is_refused() -> None:
    with pytest.raises(ValueError, match="stop string is empty"):
        StopStrings(("a", ""), byte_tokenizer())
