"""Folders with small real models whose heads are wide enough for vLLM's attention on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from tests.stapo_core.tiny import VOCABULARY, make_tokenizer


def make_folder(folder: Path, *, tied: bool, spread: float = 5.0, width: int = 32) -> Path:
    """A Qwen3 with random weights, heads of `width`; `spread` widens the embeddings, so that some tokens are rare."""
    torch.manual_seed(0)
    config = transformers.Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=width,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        eos_token_id=1,
        pad_token_id=0,
    )
    model: Any = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(spread)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder
