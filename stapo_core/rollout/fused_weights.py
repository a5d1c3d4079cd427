"""The weights of the Llama family laid out for decoding: fewer and larger matrix products.

Knows which models qualify and the names of their weights; it knows no attention and no sampling. `h` query heads,
`k` key-value heads of width `d`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from peft.tuners import lora
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from stapo_core import products

ARCHITECTURES = frozenset({"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"})
"""What is decoded here: RMSNorm before attention and a gated SiLU, rotary positions, optional norms of q and k."""

_STATIC_ROPES = frozenset({"default", "linear", "llama3", "yarn"})  # tables that do not depend on the length
_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head")

Product: TypeAlias = Callable[[Tensor], Tensor]


def can_fuse(model: PreTrainedModel) -> bool:
    """Whether the model is what its class says and nothing more: no hooks, quantised layers, windows or such."""
    config = model.config
    if type(model).__name__ not in ARCHITECTURES or config.hidden_act != "silu":
        return False
    if set(getattr(config, "layer_types", None) or ["full_attention"]) != {"full_attention"}:
        return False
    if not hasattr(config, "layer_types") and getattr(config, "sliding_window", None) is not None:
        return False
    if config.rope_parameters["rope_type"] not in _STATIC_ROPES:
        return False
    modules = dict(model.named_modules())
    is_plain = all(_is_plain(module) for name, module in modules.items() if name.endswith(_PROJECTIONS))
    is_plain &= all(
        type(module).__name__.endswith("RMSNorm") for name, module in modules.items() if name.endswith("norm")
    )
    is_plain &= type(model.model.embed_tokens) is nn.Embedding
    is_hooked = any(module._forward_hooks or module._forward_pre_hooks for module in modules.values())
    return is_plain and not is_hooked and len({parameter.dtype for parameter in model.parameters()}) == 1


def _is_plain(layer: Any) -> bool:
    """One matrix, or one with low-rank adapters that can be added to it without rounding them away."""
    if type(layer) is lora.Linear:
        is_vanilla = not layer.lora_variant and not any(layer.lora_bias.values())
        is_live = not layer.merged and not layer.disable_adapters
        is_exact = layer.weight.dtype == torch.float32  # a small product added to bfloat16 would be lost
        return is_vanilla and is_live and is_exact and _is_plain(layer.base_layer)
    return type(layer) in (nn.Linear, products.Linear)


@dataclass(frozen=True, slots=True)
class FusedLayer:
    """One layer's weights: q, k and v as one product, gate and up as another."""

    qkv: Product
    out: Product
    gate_up: Product
    down: Product
    input_norm: Tensor
    middle_norm: Tensor
    head_norm: Float[Tensor, "h+k d"] | None
    """The weights of the norms of q and k, one row per head."""


class FusedWeights:
    """A copy of the weights, laid out for decoding; it does not follow later updates of the model."""

    def __init__(self, model: PreTrainedModel) -> None:
        config, body = model.config, model.model
        self.num_heads: int = config.num_attention_heads
        self.num_kv_heads: int = config.num_key_value_heads
        self.eps: float = config.rms_norm_eps
        self.scale: float = body.layers[0].self_attn.scaling
        self.embedding: Tensor = body.embed_tokens.weight.detach()
        self.layers = [self._layer(layer) for layer in body.layers]
        self.final_norm: Tensor = body.norm.weight.detach()
        self.head = _fuse(model.lm_head)
        self._rotary = body.rotary_emb

    def rotary(self, length: int) -> tuple[Tensor, Tensor]:
        """Cosines and sines of positions 0 to length - 1, each [length, 1, d / 2]: the two halves of d share them."""
        positions = torch.arange(length, device=self.embedding.device)
        cos, sin = self._rotary(self.embedding, positions[None])
        half = cos.shape[-1] // 2
        return cos[0, :, None, :half].contiguous(), sin[0, :, None, :half].contiguous()

    def _layer(self, layer: Any) -> FusedLayer:
        attention, mlp = layer.self_attn, layer.mlp
        head_norm = None
        if hasattr(attention, "q_norm"):
            q_norm, k_norm = attention.q_norm.weight.detach(), attention.k_norm.weight.detach()
            head_norm = torch.cat([q_norm.expand(self.num_heads, -1), k_norm.expand(self.num_kv_heads, -1)])
        return FusedLayer(
            qkv=_fuse(attention.q_proj, attention.k_proj, attention.v_proj),
            out=_fuse(attention.o_proj),
            gate_up=_fuse(mlp.gate_proj, mlp.up_proj),
            down=_fuse(mlp.down_proj),
            input_norm=layer.input_layernorm.weight.detach(),
            middle_norm=layer.post_attention_layernorm.weight.detach(),
            head_norm=head_norm,
        )


def _fuse(*layers: Any) -> Product:
    """The layers as one product, their outputs side by side; on a CPU in oneDNN's own layout."""
    weight = torch.cat([_weight(layer) for layer in layers])
    biases = [layer.bias.detach() for layer in layers if layer.bias is not None]
    bias = torch.cat(biases) if biases else None
    if weight.device.type != "cpu" or not _can_pack():
        return lambda states: functional.linear(states, weight, bias)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    multiply = torch.ops.mkldnn._linear_pointwise
    return lambda states: multiply(states, packed, bias, "none", [], "")


def _weight(layer: Any) -> Float[Tensor, "out in"]:
    """With what its adapters add."""
    weight: Tensor = layer.weight.detach()
    if isinstance(layer, lora.Linear):
        for name in set(layer.active_adapters) & set(layer.lora_A):
            weight = weight + layer.get_delta_weight(name).detach()
    return weight


def _can_pack() -> bool:
    """These two operators are not part of torch's public face: without them there is the ordinary product."""
    names = ("_reorder_linear_weight", "_linear_pointwise")
    is_built: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    return is_built and all(hasattr(torch.ops.mkldnn, name) for name in names)
