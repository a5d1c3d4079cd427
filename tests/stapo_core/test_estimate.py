"""The estimate against real models: what torch counts, and what autograd really keeps."""

from __future__ import annotations

import pytest
import torch
import transformers

from stapo_core.batch import Piece
from stapo_core.config import LoraConfig, TrainConfig
from stapo_core.estimate import Shape, estimate
from stapo_core.policy import Policy
from tests.stapo_core.tiny import make_policy, make_tokenizer


def make_config(*, tied: bool = False) -> transformers.Qwen3Config:
    return transformers.Qwen3Config(
        vocab_size=500,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=2,
        head_dim=32,
        tie_word_embeddings=tied,
    )


@pytest.mark.parametrize("tied", [True, False])
def test_weights_are_those_of_the_real_model(tied: bool) -> None:
    config = make_config(tied=tied)
    model = transformers.AutoModelForCausalLM.from_config(config)
    matrices = sum(parameter.numel() for parameter in model.parameters() if parameter.ndim == 2)

    assert Shape.read(config.to_dict()).num_weights == matrices


def test_adapters_are_those_that_peft_makes() -> None:
    policy = make_policy()
    shape = Shape.read(policy.model.config.to_dict())
    policy.add_adapters(LoraConfig(rank=4))

    assert 4 * shape.num_adapter_weights_per_rank == sum(p.numel() for p in policy.trainable().values())


@pytest.mark.parametrize("recomputes", [False, True])
def test_activations_are_within_a_third_of_what_autograd_keeps(recomputes: bool) -> None:
    torch.manual_seed(0)
    config = make_config()
    policy = Policy(transformers.AutoModelForCausalLM.from_config(config), make_tokenizer())
    if recomputes:
        policy.checkpoint_gradients()
    num_tokens = 512
    piece = Piece(torch.arange(8), tuple(torch.arange(63) for _ in range(8)), tuple(range(8)))
    weights = {parameter.untyped_storage().data_ptr() for parameter in policy.model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        stats = policy.score([piece], temperature=1.0)
    assert stats.logprobs.requires_grad

    train = TrainConfig.model_validate(
        {
            "batch": {"max_tokens_per_microbatch": num_tokens},
            "sampling": {"max_prompt_tokens": 8, "max_response_tokens": 64},
            "gradient_checkpointing": recomputes,
        }
    )
    estimated = estimate(config.to_dict(), train, has_gpu=False).activations
    if recomputes:  # one layer is redone at a time in the backward pass, which this count does not see
        assert sum(kept.values()) < estimated < sum(kept.values()) * 5
    else:
        assert estimated == pytest.approx(sum(kept.values()), rel=0.33)


def test_a_reference_model_and_bfloat16_show_in_the_weights() -> None:
    config = make_config().to_dict()
    plain = estimate(config, TrainConfig(), has_gpu=False)
    with_kl = TrainConfig.model_validate({"algorithm": {"kind": "grpo", "kl_coefficient": 0.1}})

    assert estimate(config, with_kl, has_gpu=False).weights == 2 * plain.weights
    assert estimate(config, TrainConfig(), has_gpu=True).weights == 1.5 * plain.weights
    assert plain.total >= plain.weights + plain.optimizer + plain.gradients
    assert any("peak" in line for line in plain.lines())


def test_the_head_takes_two_tiles_its_gradient_and_on_a_gpu_its_cast() -> None:
    config = make_config().to_dict()
    head = 500 * 128
    adapters = TrainConfig.model_validate({"lora": {"rank": 4}})

    assert estimate(config, TrainConfig(), has_gpu=False).head == 2 * 16 * 2**20 + 4 * head
    assert estimate(config, adapters, has_gpu=False).head == 2 * 16 * 2**20
    assert estimate(config, TrainConfig(), has_gpu=True).head == 2 * 64 * 2**20 + 2 * head + 4 * head
