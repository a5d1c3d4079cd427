"""The fused decoder against the model's own forward, and which models it may decode."""

from __future__ import annotations

import peft
import pytest
import torch
from torch import Tensor
from transformers import GemmaConfig, GemmaForCausalLM, MistralConfig, MistralForCausalLM, PreTrainedModel

from stapo_core import products
from stapo_core.rollout import Draw, fused_weights
from stapo_core.rollout.decoding import Decoder, ModelDecoder
from stapo_core.rollout.fused_decoder import FusedDecoder, open_decoders
from stapo_core.rollout.fused_weights import FusedWeights, can_fuse
from stapo_core.rollout.transformers_sampler import TransformersSampler
from tests.stapo_core.rollout.models import END, MAKERS, make_model, make_prompts, make_tokenizer

FUSED = ["llama", "llama_biased", "mistral", "qwen2", "qwen3", "qwen3_tied"]


def fused(model: PreTrainedModel) -> FusedDecoder:
    return FusedDecoder(FusedWeights(model))


@torch.no_grad()
def walk(decoder: Decoder, *, lengths: tuple[int, ...] = (5, 9, 3)) -> list[Tensor]:
    """Logits along one way through everything a decoder does: unequal groups in mixed order, rows and groups ending."""
    generator = torch.Generator().manual_seed(3)

    def some(count: int) -> Tensor:
        return torch.randint(0, END, (count,), generator=generator)

    logits = [decoder.prefill([prompt.token_ids for prompt in make_prompts(*lengths)])]
    decoder.fan_out(torch.tensor([2, 0, 0, 1, 0, 2]), 12)
    logits += [decoder.step(some(6)) for _ in range(3)]
    decoder.keep(torch.tensor([0, 5, 2, 3]))
    logits += [decoder.step(some(4)) for _ in range(3)]
    decoder.keep(torch.tensor([0, 1]))  # both go on from the last prompt
    logits += [decoder.step(some(2)) for _ in range(3)]
    return logits


@pytest.mark.parametrize("name", FUSED)
def test_logits_equal_the_models_own_at_every_step(name: str) -> None:
    model = make_model(name)
    expected = torch.cat(walk(ModelDecoder(model)))
    assert (torch.cat(walk(fused(model))) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_prompts_of_one_length_need_no_mask_and_give_the_same() -> None:
    model = make_model("qwen3")
    expected = torch.cat(walk(ModelDecoder(model), lengths=(6, 6, 6)))
    assert (torch.cat(walk(fused(model), lengths=(6, 6, 6))) - expected).abs().max() < 1e-5 * expected.abs().max()


def test_without_the_packing_operators_the_numbers_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("llama_biased")
    packed = torch.cat(walk(fused(model)))
    monkeypatch.setattr(fused_weights, "_can_pack", lambda: False)
    assert (torch.cat(walk(fused(model))) - packed).abs().max() < 1e-5 * packed.abs().max()


def test_in_half_precision_it_stays_as_near_the_exact_logits_as_the_model_does() -> None:
    model = make_model("qwen3")
    exact = torch.cat(walk(ModelDecoder(model)))
    model = model.to(torch.bfloat16)
    own_error = (torch.cat(walk(ModelDecoder(model))).float() - exact).pow(2).mean()
    error = (torch.cat(walk(fused(model))).float() - exact).pow(2).mean()
    assert error < 1.5 * own_error


@pytest.mark.parametrize("name", FUSED)
def test_tokens_are_those_of_the_models_own_forward(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model(name)
    drawer = TransformersSampler(model, make_tokenizer(), max_response_tokens=80)
    prompts, draw = make_prompts(5, 9, 5, 7, 3), Draw(seed=9, step=1, num_samples=8, temperature=1.0)
    ours = drawer.sample(prompts, draw)
    generic = "stapo_core.rollout.transformers_sampler.open_decoders"
    monkeypatch.setattr(generic, lambda model: lambda: ModelDecoder(model))
    expected = drawer.sample(prompts, draw)
    for group, other in zip(ours, expected, strict=True):
        for response, same in zip(group.responses, other.responses, strict=True):
            assert response.token_ids.tolist() == same.token_ids.tolist()
            assert (response.logprobs - same.logprobs).abs().max() < 1e-5


@pytest.mark.parametrize("name", ["qwen3", "qwen3_tied"])
def test_an_update_in_place_is_seen_by_the_next_decoder_and_a_stale_one_is_off(name: str) -> None:
    model = make_model(name)
    stale = fused(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.01)
    expected = torch.cat(walk(ModelDecoder(model)))
    assert (torch.cat(walk(open_decoders(model)())) - expected).abs().max() < 1e-5 * expected.abs().max()
    assert (torch.cat(walk(stale)) - expected).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["qwen3", "qwen3_tied"])
def test_a_sampler_that_was_never_told_of_an_update_still_draws_from_it(name: str) -> None:
    model = make_model(name)
    drawer = TransformersSampler(model, make_tokenizer(), max_response_tokens=8)
    prompts, draw = make_prompts(5, 8), Draw(0, 0, 4, 1.0)
    drawer.sample(prompts, draw)
    with torch.no_grad():
        model.lm_head.weight.mul_(1.5)
    for group in drawer.sample(prompts, draw):
        ids, prompt = group.responses[0].token_ids, list(group.prompt.token_ids)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + ids.tolist()])).logits[0, len(prompt) - 1 : -1]
        expected = torch.log_softmax(logits, -1).gather(-1, ids[:, None])[:, 0]
        assert (expected - group.responses[0].logprobs).abs().max() < 1e-5


def test_the_family_is_fused_and_the_others_take_the_general_path() -> None:
    assert [name for name in MAKERS if can_fuse(make_model(name))] == sorted(FUSED, key=list(MAKERS).index)
    assert isinstance(open_decoders(make_model("gemma3"))(), ModelDecoder)


def test_linear_layers_that_only_multiply_otherwise_are_fused() -> None:
    model = make_model("qwen3")
    products.adopt(model)
    assert can_fuse(model)


def _add_adapters(model: PreTrainedModel, **settings: bool) -> None:
    config = peft.LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM", **settings)
    peft.get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.1)


@pytest.mark.parametrize("name", ["qwen2", "qwen3"])
def test_low_rank_adapters_are_decoded_with_the_weights_they_adapt(name: str) -> None:
    model = make_model(name)
    without = torch.cat(walk(ModelDecoder(model)))
    _add_adapters(model)
    assert can_fuse(model)
    expected = torch.cat(walk(ModelDecoder(model)))
    assert (torch.cat(walk(fused(model))) - expected).abs().max() < 1e-5 * expected.abs().max()
    assert (without - expected).abs().max() > 1e-2


def _add_weighted_adapters(model: PreTrainedModel) -> None:
    _add_adapters(model, use_dora=True)


def _adapt_embeddings(model: PreTrainedModel) -> None:
    peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["embed_tokens"], task_type="CAUSAL_LM"))


def _copy_a_norm_for_training(model: PreTrainedModel) -> None:
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["norm"], task_type="CAUSAL_LM")
    peft.get_peft_model(model, config)


def _add_adapters_in_half_precision(model: PreTrainedModel) -> None:
    _add_adapters(model)
    model.to(torch.bfloat16)


def _hook(model: PreTrainedModel) -> None:
    model.model.layers[1].register_forward_hook(lambda *_: None)


def _mix_precisions(model: PreTrainedModel) -> None:
    model.lm_head.to(torch.bfloat16)


def _stretch(model: PreTrainedModel) -> None:
    model.config.rope_parameters = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}


@pytest.mark.parametrize(
    "change",
    [
        _add_weighted_adapters,
        _adapt_embeddings,
        _copy_a_norm_for_training,
        _add_adapters_in_half_precision,
        _hook,
        _mix_precisions,
        _stretch,
    ],
)
def test_a_model_that_does_more_than_its_class_says_is_not_fused(change: object) -> None:
    model = make_model("qwen3")
    change(model)  # type: ignore[operator]
    assert not can_fuse(model)


def test_other_activations_and_sliding_windows_are_not_fused() -> None:
    shape = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "head_dim": 8}
    assert not can_fuse(MistralForCausalLM(MistralConfig(**shape, num_key_value_heads=2, sliding_window=4)))
    assert not can_fuse(GemmaForCausalLM(GemmaConfig(**shape, num_key_value_heads=2)))
