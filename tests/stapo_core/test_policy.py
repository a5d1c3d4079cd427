"""A shared prompt is an optimisation that nobody can see in the numbers; folders that cannot be trained are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers

from stapo_core.batch import Piece, TokenStats
from stapo_core.config import LoraConfig
from stapo_core.policy import ModelError, Policy
from tests.stapo_core.tiny import VOCABULARY, make_model, make_policy, make_tokenizer

CPU = torch.device("cpu")


def make_pieces() -> list[Piece]:
    source = torch.Generator().manual_seed(1)

    def ids(length: int) -> torch.Tensor:
        return torch.randint(0, VOCABULARY, (length,), generator=source)

    return [
        Piece(ids(5), (ids(3), ids(7), ids(1)), (0, 1, 2)),
        Piece(ids(9), (ids(4),), (3,)),
        Piece(ids(1), (ids(1), ids(2)), (4, 5)),
    ]


def score(policy: Policy, pieces: list[Piece], *, shared: bool) -> tuple[TokenStats, dict[str, torch.Tensor]]:
    policy.shares_prompts = shared
    policy.model.zero_grad()
    stats = policy.score(pieces, temperature=0.7)
    torch.autograd.backward(stats.logprobs.sin().sum())
    return stats, {n: p.grad.clone() for n, p in policy.trainable().items() if p.grad is not None}


@pytest.mark.parametrize("tied", [True, False])
def test_a_prompt_forwarded_once_gives_the_numbers_and_gradients_of_one_forwarded_each_time(tied: bool) -> None:
    policy = make_policy(tied=tied)
    shared, gradient = score(policy, make_pieces(), shared=True)
    plain, expected = score(policy, make_pieces(), shared=False)

    assert torch.allclose(shared.logprobs, plain.logprobs, atol=3e-6)
    assert torch.allclose(shared.entropies, plain.entropies, atol=3e-6)
    assert gradient.keys() == expected.keys()
    for name in expected:
        assert (gradient[name] - expected[name]).norm() <= 3e-6 * expected[name].norm() + 1e-9


def test_recomputed_activations_give_the_same_gradients_and_no_dropout() -> None:
    policy, other = make_policy(), make_policy()
    other.model.config.attention_dropout = 0.5
    for layer in other.model.base_model.layers:
        layer.self_attn.attention_dropout = 0.5
    other.checkpoint_gradients()
    kept, expected = score(policy, make_pieces(), shared=False)
    recomputed, gradient = score(other, make_pieces(), shared=False)

    assert other.model.is_gradient_checkpointing
    assert torch.equal(recomputed.logprobs, kept.logprobs)
    assert all(torch.allclose(gradient[name], expected[name], atol=1e-7) for name in expected)


def test_responses_of_one_token_need_the_prompt_alone() -> None:
    policy = make_policy()
    pieces = [Piece(torch.tensor([3, 4]), (torch.tensor([5]), torch.tensor([6])), (0, 1))]

    logits = policy.model(input_ids=torch.tensor([[3, 4]])).logits[0, -1]
    expected = torch.log_softmax(logits, dim=0)[[5, 6]]

    assert torch.allclose(policy.score(pieces, temperature=1.0).logprobs, expected, atol=2e-6)


def test_a_model_with_a_sliding_window_takes_the_plain_path_and_is_right() -> None:
    torch.manual_seed(0)
    config = transformers.MistralConfig(
        vocab_size=VOCABULARY, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, sliding_window=4,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    policy = Policy(model, make_tokenizer())
    ids = torch.arange(12)

    stats = policy.score([Piece(ids[:4], (ids[4:],), (0,))], temperature=1.0)

    logits = model(input_ids=ids[None]).logits[0, 3:-1]
    assert not policy.shares_prompts
    assert torch.allclose(stats.logprobs, logits.log_softmax(1).gather(1, ids[4:, None]).squeeze(1), atol=2e-6)


def save(folder: Path) -> None:
    make_model().save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)


def test_a_saved_folder_loads_in_float32_with_its_tokenizer(tmp_path: Path) -> None:
    save(tmp_path)

    policy = Policy.load(tmp_path, device=CPU)

    assert {p.dtype for p in policy.trainable().values()} == {torch.float32}
    assert policy.num_parameters == sum(p.numel() for p in make_model().parameters())
    assert policy.tokenizer.eos_token == "<eos>"


def test_bfloat16_keeps_float32_weights_and_gives_nearly_the_same_log_probs(tmp_path: Path) -> None:
    save(tmp_path)
    exact, rounded = (Policy.load(tmp_path, device=CPU, precision=p) for p in ("float32", "bfloat16"))

    ours = rounded.score(make_pieces(), temperature=1.0).logprobs
    theirs = exact.score(make_pieces(), temperature=1.0).logprobs

    assert {p.dtype for p in rounded.trainable().values()} == {torch.float32}
    assert ours.dtype == torch.float32
    assert (ours - theirs).abs().mean() < 0.05


def test_a_fresh_adapter_changes_nothing_and_merging_leaves_the_weights_in_training_alone() -> None:
    policy, plain = make_policy(), make_policy()
    policy.add_adapters(LoraConfig(rank=4))
    with torch.no_grad():
        fresh = policy.score(make_pieces(), temperature=1.0).logprobs
        assert torch.allclose(fresh, plain.score(make_pieces(), temperature=1.0).logprobs, atol=2e-6)
        for name, parameter in policy.trainable().items():
            parameter.add_(0.05 if "lora_B" in name else 0.0)
        before = {name: value.clone() for name, value in policy.weights().items()}
        ours = policy.score(make_pieces(), temperature=1.0).logprobs
        merged = Policy(policy.merged(), None).score(make_pieces(), temperature=1.0).logprobs

    assert all("lora_" in name for name in policy.trainable())
    assert torch.allclose(merged, ours, atol=1e-4)
    assert not torch.allclose(ours, fresh, atol=1e-2)
    assert all(torch.equal(value, before[name]) for name, value in policy.weights().items())


def test_folders_that_cannot_be_trained_are_refused_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        Policy.load(tmp_path, device=CPU)
    save(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"no \*\.safetensors"):
        Policy.load(tmp_path, device=CPU)
    weights.write_bytes(b"not safetensors")
    with pytest.raises(ModelError, match="cannot be loaded"):
        Policy.load(tmp_path, device=CPU)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"auto_map": {"AutoModelForCausalLM": "x.Y"}}))
    with pytest.raises(ModelError, match="code of its own"):
        Policy.load(tmp_path, device=CPU)


def test_a_head_that_does_more_than_multiply_is_refused() -> None:
    model = make_model(tied=False)
    model.lm_head = torch.nn.Linear(64, VOCABULARY, bias=True)

    with pytest.raises(ModelError, match="one linear layer without a bias"):
        Policy(model, make_tokenizer()).check_head()
