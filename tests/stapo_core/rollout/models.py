"""Small real models with random weights, and a tokenizer for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from stapo_core.batch import Prompt

VOCABULARY = 50
END, PAD = VOCABULARY - 2, VOCABULARY - 1

_SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.15,
    "bos_token_id": None,
    "eos_token_id": END,
    "pad_token_id": PAD,
}

_LLAMA3_ROPE: dict[str, Any] = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}

MAKERS: dict[str, Callable[[], PreTrainedModel]] = {
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**_SHAPE)),
    "qwen3_tied": lambda: Qwen3ForCausalLM(Qwen3Config(**_SHAPE, tie_word_embeddings=True)),
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**_SHAPE)),
    "llama_biased": lambda: LlamaForCausalLM(
        LlamaConfig(**_SHAPE, attention_bias=True, mlp_bias=True, rope_parameters=_LLAMA3_ROPE)
    ),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**{**_SHAPE, "num_key_value_heads": 4})),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**{**_SHAPE, "num_key_value_heads": 1}, sliding_window=None)),
    "gpt2": lambda: GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, eos_token_id=END, bos_token_id=END)
    ),
    "gemma3": lambda: Gemma3ForCausalLM(
        Gemma3TextConfig(
            **_SHAPE, sliding_window=4, layer_types=["sliding_attention", "full_attention", "sliding_attention"]
        )
    ),
    "mamba": lambda: MambaForCausalLM(
        MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, eos_token_id=END)
    ),
}


def make_model(name: str, *, seed: int = 0) -> PreTrainedModel:
    """A model in evaluation mode; the same seed gives the same weights. Norms and biases are random too."""
    torch.manual_seed(seed)
    model = MAKERS[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return model


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Words `t0` to `t47`, `<eos>` and `<pad>`."""
    vocabulary = {f"t{place}": place for place in range(END)} | {"<eos>": END, "<pad>": PAD}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="t0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>")


def make_prompts(*lengths: int) -> list[Prompt]:
    """One prompt of random tokens per length."""
    generator = torch.Generator().manual_seed(sum(lengths))
    return [
        Prompt(index, "", tuple(torch.randint(0, END, (length,), generator=generator).tolist()), {})
        for index, length in enumerate(lengths)
    ]
