"""Which tokens end a response. Knows the model's settings and its tokenizer; it knows no weights."""

from __future__ import annotations

from transformers import PreTrainedModel, PreTrainedTokenizerBase


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The end-of-sequence tokens that model and tokenizer name. Raises ValueError when there is none."""
    config = getattr(model, "generation_config", None)
    named = getattr(config, "eos_token_id", None)
    ids = set(named if isinstance(named, list) else [named]) | {tokenizer.eos_token_id}
    found = sorted(token_id for token_id in ids if token_id is not None)
    if not found:
        raise ValueError("neither the model nor its tokenizer names an end-of-sequence token; set eos_token_id")
    return found
