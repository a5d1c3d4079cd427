"""What a run will take, from two configs and arithmetic: memory by part, and work per step. Loads no model.

Knows the sizes of a decoder of the Llama and Qwen kind; must stay free of torch, so that a client can ask too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stapo_core.config import RunConfig, TrainConfig

_MIB = 2**20
_TILE_BYTES = {"cpu": 16 * _MIB, "cuda": 64 * _MIB}


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a decoder."""

    vocabulary: int
    width: int
    inner: int
    num_layers: int
    query_width: int
    key_width: int
    is_tied: bool

    @classmethod
    def read(cls, model_config: Mapping[str, Any]) -> Shape:
        """From a model's config.json. Raises KeyError naming the size that it lacks."""
        heads = model_config["num_attention_heads"]
        head_width = model_config.get("head_dim") or model_config["hidden_size"] // heads
        return cls(
            vocabulary=model_config["vocab_size"],
            width=model_config["hidden_size"],
            inner=model_config["intermediate_size"],
            num_layers=model_config["num_hidden_layers"],
            query_width=heads * head_width,
            key_width=(model_config.get("num_key_value_heads") or heads) * head_width,
            is_tied=bool(model_config.get("tie_word_embeddings", False)),
        )

    @property
    def layer_weights(self) -> int:
        """Matrix weights of one layer: attention and the gated feed-forward part."""
        return 2 * self.width * (self.query_width + self.key_width) + 3 * self.width * self.inner

    @property
    def num_weights(self) -> int:
        """Matrix weights of the model; vectors are left out."""
        embeddings = self.vocabulary * self.width * (1 if self.is_tied else 2)
        return embeddings + self.num_layers * self.layer_weights

    @property
    def num_adapter_weights_per_rank(self) -> int:
        """Weights that one rank of low-rank adapters adds: inputs plus outputs of the seven matrices of each layer."""
        attention = 2 * (self.width + self.query_width) + 2 * (self.width + self.key_width)
        return self.num_layers * (attention + 3 * (self.width + self.inner))


@dataclass(frozen=True, slots=True)
class Estimate:
    """Bytes by part, and floating-point operations of one step at the longest responses."""

    weights: int
    optimizer: int
    gradients: int
    activations: int
    head: int
    sampler: int
    flops_per_step: float

    @property
    def total(self) -> int:
        """Bytes at the peak: the sampler's cache and the learner's activations are never held together."""
        return self.weights + self.optimizer + self.gradients + max(self.activations + self.head, self.sampler)

    def lines(self) -> list[str]:
        """The estimate, to be printed."""
        parts = {
            "weights (float32, with the sampler's copy in bfloat16)": self.weights,
            "optimizer moments": self.optimizer,
            "gradients": self.gradients,
            "activations of one micro-batch": self.activations,
            "logits in hand and the head's gradient": self.head,
            "keys and values of sampling": self.sampler,
        }
        rows = [f"{name:<56}{size / _MIB:>12,.0f} MiB" for name, size in parts.items()]
        rows.append(f"{'peak':<56}{self.total / _MIB:>12,.0f} MiB")
        rows.append(f"{'work of one step, responses at their longest':<56}{self.flops_per_step / 1e12:>12,.2f} Tflop")
        return rows


def estimate_run(config: RunConfig) -> Estimate:
    """What a run takes on this machine. Raises OSError or ValueError for a model without a readable config.json."""
    model_config = json.loads((config.model / "config.json").read_bytes())
    return estimate(model_config, config.train, has_gpu=Path("/dev/nvidiactl").exists())


def estimate(model_config: Mapping[str, Any], train: TrainConfig, *, has_gpu: bool) -> Estimate:
    """What a run takes on one device. Raises KeyError for a model whose config.json names its sizes otherwise."""
    shape = Shape.read(model_config)
    in_bfloat16 = train.dtype == "bfloat16" or (train.dtype == "auto" and has_gpu)
    width = 2 if in_bfloat16 else 4
    trained = shape.num_weights if train.lora is None else train.lora.rank * shape.num_adapter_weights_per_rank
    tokens = train.batch.max_tokens_per_microbatch
    num_responses = train.batch.num_prompts * train.batch.group_size
    longest = train.sampling.max_prompt_tokens + train.sampling.max_response_tokens
    sampled_at_once = min(num_responses, max(1, 131_072 // longest))
    references = 2 if train.algorithm.kl_coefficient > 0 else 1
    adapters = trained if train.lora is not None else 0
    return Estimate(
        weights=4 * (references * shape.num_weights + adapters) + (2 * shape.num_weights if in_bfloat16 else 0),
        optimizer=8 * trained,
        gradients=4 * trained,
        activations=tokens * _activation_bytes(shape, width, is_recomputed=train.gradient_checkpointing),
        head=_head_bytes(shape, width, is_trained=train.lora is None, has_gpu=has_gpu),
        sampler=sampled_at_once * longest * shape.num_layers * 2 * shape.key_width * width,
        flops_per_step=_flops_per_step(shape, train),
    )


def _head_bytes(shape: Shape, width: int, *, is_trained: bool, has_gpu: bool) -> int:
    """Two tiles of logits, the head's gradient before it is added to the others, and a GPU's cast of the head."""
    head = shape.vocabulary * shape.width
    tile = max(_TILE_BYTES["cuda"], 32 * 4 * shape.vocabulary) if has_gpu else _TILE_BYTES["cpu"]
    cast = width * head if has_gpu and width < 4 else 0
    return 2 * tile + cast + (4 * head if is_trained else 0)


def _activation_bytes(shape: Shape, width: int, *, is_recomputed: bool) -> int:
    """Bytes that autograd keeps for one token: of every layer, or of its inputs and of one layer being redone."""
    norms = 4 * 3 * shape.width
    attention = width * (2 * shape.width + 4 * shape.query_width + 6 * shape.key_width)
    feed_forward = width * (shape.width + 4 * shape.inner)
    layer = norms + attention + feed_forward
    if is_recomputed:
        return shape.num_layers * 4 * shape.width + layer
    return shape.num_layers * layer


def _flops_per_step(shape: Shape, train: TrainConfig) -> float:
    """2 per weight and sampled token, 6 per weight and learned token in each pass, and the head's second forward."""
    responses = train.batch.num_prompts * train.batch.group_size * train.sampling.max_response_tokens
    prompts = train.batch.num_prompts * train.sampling.max_prompt_tokens
    body = shape.num_layers * shape.layer_weights
    head = shape.vocabulary * shape.width
    recomputed = 2.0 * body if train.gradient_checkpointing else 0.0
    sampled = 2.0 * (body + head) * responses + 2.0 * body * prompts
    learned = (6.0 * body + recomputed) * (responses + prompts) + 8.0 * head * responses
    return sampled + train.batch.num_passes * learned
