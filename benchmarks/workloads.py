"""What is measured on: random models of two sizes, prompts of random words, and how long responses are.

Knows transformers and files; it runs nothing. Everything follows from one seed.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from transformers.utils.logging import disable_progress_bar

NUM_PROMPTS, GROUP_SIZE = 8, 8
"""Of one step, for both trainers."""
REWARDED = "77 "
"""A response is rewarded when it contains a word that ends so; some responses of a group do, some do not."""
_ROWS = 512
_SEED = 0


@dataclass(frozen=True, slots=True)
class Size:
    """A Qwen3 with tied embeddings."""

    layers: int
    width: int
    inner: int
    heads: int
    vocabulary: int

    @property
    def body_parameters(self) -> int:
        """Weights of the linear layers, without embeddings."""
        head_dim = self.width // self.heads
        attention = 2 * self.width * self.width + 2 * self.width * head_dim * (self.heads // 2)
        return self.layers * (attention + 3 * self.width * self.inner)


@dataclass(frozen=True, slots=True)
class Workload:
    """Tokens of every prompt, and the most of a response; `mean_end` is the mean place of a natural end."""

    prompt_tokens: int
    response_tokens: int
    mean_end: int | None = None


SIZES = {
    "tiny": Size(layers=4, width=128, inner=384, heads=4, vocabulary=4096),
    "42m": Size(layers=8, width=512, inner=1536, heads=8, vocabulary=32_768),
}
WORKLOADS = {
    "fixed": Workload(prompt_tokens=64, response_tokens=128),
    "natural": Workload(prompt_tokens=64, response_tokens=128, mean_end=48),
    "long": Workload(prompt_tokens=256, response_tokens=64),
}


def prepare(folder: Path, size: Size, workload: Workload) -> None:
    """Writes `model/`, `train.jsonl` and `workload.json`."""
    disable_progress_bar()
    torch.manual_seed(_SEED)
    tokenizer = _tokenizer(size.vocabulary)
    model = _model(size, tokenizer)
    if workload.mean_end is not None:
        _make_end_likely(model, tokenizer.eos_token_id, 1.0 / workload.mean_end)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "workload.json").write_text(json.dumps(asdict(workload)))
    source = random.Random(_SEED)
    words = [f"w{number}" for number in range(3, size.vocabulary)]
    rows = [{"prompt": " ".join(source.choices(words, k=workload.prompt_tokens))} for _ in range(_ROWS)]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def _tokenizer(vocabulary: int) -> Any:
    words = ["<pad>", "<eos>", "<unk>", *(f"w{number}" for number in range(3, vocabulary))]
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
    )


def _model(size: Size, tokenizer: Any) -> Any:
    config = Qwen3Config(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.heads // 2,
        head_dim=size.width // size.heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    return Qwen3ForCausalLM(config)


@torch.no_grad()
def _make_end_likely(model: Any, end: int, wanted: float) -> None:
    """Gives all hidden states a common direction and lets the end's embedding lie in it, so that p(end) is `wanted`."""
    embeddings = model.get_input_embeddings().weight
    embeddings += 0.02 * torch.randn(embeddings.shape[1])
    hidden = model.base_model(torch.randint(3, len(embeddings), (8, 64))).last_hidden_state.flatten(0, 1)
    direction = torch.nn.functional.normalize(hidden.mean(dim=0), dim=0)
    others = (hidden @ embeddings.T).logsumexp(dim=1)
    along = hidden @ direction
    low, high = 0.0, 10.0
    for _ in range(40):
        middle = (low + high) / 2
        p = torch.sigmoid(middle * along - others).mean().item()
        low, high = (middle, high) if p < wanted else (low, middle)
    embeddings[end] = low * direction
