"""The sampler on real small models, against their own full forward pass."""

from __future__ import annotations

from collections import Counter
from itertools import count

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from stapo_core.batch import Group
from stapo_core.rollout import Draw, Limits, Stopped
from stapo_core.rollout.transformers_sampler import TransformersSampler
from tests.stapo_core.rollout.models import END, MAKERS, make_model, make_prompts, make_tokenizer


def sampler(
    model: PreTrainedModel, *, max_response_tokens: int = 24, max_batch_tokens: int = 10_000
) -> TransformersSampler:
    return TransformersSampler(
        model, make_tokenizer(), max_response_tokens=max_response_tokens, max_batch_tokens=max_batch_tokens
    )


def full_forward(model: PreTrainedModel, group: Group, place: int, temperature: float) -> Tensor:
    """Log-probs of every token of a response, from one forward over prompt and response."""
    prompt, response = group.prompt.token_ids, group.responses[place].token_ids.tolist()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits.double() / temperature, dim=-1)


@pytest.mark.parametrize("name", MAKERS)
def test_log_probs_and_entropies_equal_a_full_forward(name: str) -> None:
    model = make_model(name)
    groups = sampler(model).sample(make_prompts(5, 9, 5, 7, 3), Draw(seed=1, step=2, num_samples=4, temperature=0.8))
    for group in groups:
        for place, response in enumerate(group.responses):
            log_p = full_forward(model, group, place, 0.8)
            chosen = log_p.gather(-1, response.token_ids[:, None])[:, 0]
            assert (chosen - response.logprobs).abs().max() < 1e-5
            assert (-(log_p.exp() * log_p).sum(-1) - response.entropies).abs().max() < 1e-5


def test_a_response_ends_at_its_first_end_token_or_is_cut() -> None:
    groups = sampler(make_model("qwen3")).sample(make_prompts(4, 6), Draw(0, 0, num_samples=64, temperature=1.0))
    finishes = Counter(response.finish for group in groups for response in group.responses)
    assert finishes["stop"] > 0
    assert finishes["length"] > 0
    for response in (response for group in groups for response in group.responses):
        ids = response.token_ids.tolist()
        assert END not in ids[:-1]
        assert (ids[-1] == END) == (response.finish == "stop")
        assert response.finish == "stop" or len(ids) == 24
        words = [f"t{token}" for token in ids if token < END]
        assert response.text.split() == words


def test_a_response_is_the_same_whoever_is_drawn_beside_it() -> None:
    drawer = sampler(make_model("qwen3"))
    prompts, draw = make_prompts(5, 9, 5, 7, 3), Draw(seed=4, step=1, num_samples=6, temperature=1.0)
    together = drawer.sample(prompts, draw)
    for prompt, among in zip(prompts, together, strict=True):
        (alone,) = drawer.sample([prompt], draw)
        assert texts(alone) == texts(among)


def test_the_size_of_the_batch_changes_no_token() -> None:
    model, prompts, draw = make_model("qwen3"), make_prompts(5, 9, 5), Draw(2, 2, num_samples=5, temperature=1.0)
    large = sampler(model).sample(prompts, draw)
    small = sampler(model, max_batch_tokens=70).sample(prompts, draw)  # two responses at a time
    single = sampler(model, max_batch_tokens=1).sample(prompts, draw)
    assert [texts(group) for group in large] == [texts(group) for group in small] == [texts(group) for group in single]


def test_fewer_samples_are_the_first_of_more() -> None:
    drawer, prompts = sampler(make_model("qwen3")), make_prompts(6)
    (few,) = drawer.sample(prompts, Draw(3, 0, num_samples=2, temperature=1.0))
    (many,) = drawer.sample(prompts, Draw(3, 0, num_samples=8, temperature=1.0))
    assert texts(few) == texts(many)[:2]


def test_the_same_draw_gives_the_same_bits_and_another_seed_or_step_other_tokens() -> None:
    drawer, prompts = sampler(make_model("qwen3")), make_prompts(6, 8)
    first, again = (drawer.sample(prompts, Draw(3, 1, 4, 1.0)) for _ in range(2))
    for one, two in zip(first, again, strict=True):
        for left, right in zip(one.responses, two.responses, strict=True):
            assert torch.equal(left.token_ids, right.token_ids)
            assert torch.equal(left.logprobs, right.logprobs)
            assert torch.equal(left.entropies, right.entropies)
    others = [drawer.sample(prompts, Draw(seed, step, 4, 1.0)) for seed, step in ((4, 1), (3, 2))]
    assert all([texts(group) for group in other] != [texts(group) for group in first] for other in others)


def test_a_prompt_that_comes_twice_is_drawn_anew() -> None:
    (prompt,) = make_prompts(6)
    first, second = sampler(make_model("qwen3")).sample([prompt, prompt], Draw(0, 0, 4, 1.0))
    assert not set(texts(first)) & set(texts(second))


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.5])
def test_first_and_second_tokens_are_distributed_as_the_model_says(temperature: float) -> None:
    """Chi-squared on pairs of tokens, with the temperature that the model's own log-probs are taken at."""
    model, num_samples = make_model("qwen3"), 8000
    (group,) = sampler(model, max_response_tokens=2, max_batch_tokens=10**6).sample(
        make_prompts(5), Draw(11, 0, num_samples, temperature)
    )
    prompt = list(group.prompt.token_ids)
    with torch.no_grad():
        first = torch.softmax(model(input_ids=torch.tensor([prompt])).logits[0, -1].double() / temperature, -1)
        follow = model(input_ids=torch.tensor([[*prompt, token] for token in range(END)])).logits[:, -1].double()
    second = first[:END] @ torch.softmax(follow / temperature, -1)
    for expected, place in ((first, 0), (second / second.sum(), 1)):
        drawn = [int(response.token_ids[place]) for response in group.responses if len(response.token_ids) > place]
        assert chi_squared(drawn, expected) < 90.0  # the 0.02 % point at 49 degrees of freedom
        wrong = expected ** (1.25) / (expected ** (1.25)).sum()
        assert chi_squared(drawn, wrong) > 90.0  # a temperature off by a quarter would be noticed


@pytest.mark.parametrize("limits", [Limits(top_k=1), Limits(top_p=1e-6), Limits(min_p=1.0)])
def test_with_one_token_left_responses_are_the_greedy_ones(limits: Limits) -> None:
    model, (prompt,) = make_model("qwen3"), make_prompts(6)
    (group,) = sampler(model, max_response_tokens=12).sample([prompt], Draw(5, 0, 2, 1.3, limits))
    with torch.no_grad():
        greedy = model.generate(torch.tensor([prompt.token_ids]), do_sample=False, max_new_tokens=12)[0, 6:]
    for response in group.responses:
        assert response.token_ids.tolist() == greedy.tolist()
        assert response.logprobs.abs().max() < 1e-6


def test_a_stop_string_ends_a_response_and_is_cut_from_its_text() -> None:
    drawer, prompts = sampler(make_model("qwen3")), make_prompts(5, 8)
    free = drawer.sample(prompts, Draw(3, 0, 16, 1.0))
    stopped = drawer.sample(prompts, Draw(3, 0, 16, 1.0, stop=("t7 t", "t3")))
    num_stopped = 0
    for was, now in zip(free, stopped, strict=True):
        for long, short in zip(was.responses, now.responses, strict=True):
            num_tokens = len(short.token_ids)
            assert short.token_ids.tolist() == long.token_ids.tolist()[:num_tokens]
            places = [place for stop in ("t7 t", "t3") if (place := long.text.find(stop)) >= 0]
            assert short.text == long.text[: min(places, default=None)]
            if places:
                num_stopped += 1
                assert short.finish == "stop"
                words = [f"t{token}" for token in short.token_ids.tolist() if token < END]
                assert " ".join(words)[: min(places)] == short.text
                assert "t7 t" not in " ".join(words[:-1])
                assert "t3" not in " ".join(words[:-1])
            else:
                assert (short.finish, num_tokens) == (long.finish, len(long.token_ids))
    assert num_stopped > 4


def test_each_response_that_ends_is_told_at_once_as_it_will_be_given_back() -> None:
    told: list[tuple[int, str]] = []
    drawer = TransformersSampler(
        make_model("qwen3"),
        make_tokenizer(),
        max_response_tokens=24,
        on_response=lambda prompt, text: told.append((prompt.index, text)),
    )
    groups = drawer.sample(make_prompts(5, 8), Draw(3, 0, 32, 1.0, stop=("t7 t",)))
    drawn = [(group.prompt.index, response) for group in groups for response in group.responses]
    ended = [(index, response.text) for index, response in drawn if response.finish == "stop"]
    assert 10 < len(ended) < len(drawn)
    assert Counter(told) == Counter(ended)
    first_of = {text: place for place, (_, text) in reversed(list(enumerate(told)))}
    tokens = [len(response.token_ids) for index, response in drawn if response.finish == "stop"]
    by_length = sorted(zip(tokens, (text for _, text in ended), strict=True))
    assert first_of[by_length[0][1]] < first_of[by_length[-1][1]]  # the short ones were not held back


def test_should_stop_is_heard_between_two_tokens() -> None:
    asked = count()
    drawer = TransformersSampler(
        make_model("qwen3"), make_tokenizer(), max_response_tokens=100, should_stop=lambda: next(asked) == 5
    )
    with pytest.raises(Stopped):
        drawer.sample(make_prompts(4, 4), Draw(0, 0, 64, 1.0))
    assert next(asked) == 6


def test_a_module_in_training_mode_is_given_back_as_it_was() -> None:
    model = make_model("gpt2").train()  # GPT-2 has dropout: drawn in training mode, log-probs would differ
    drawer = sampler(model)
    first, again = (drawer.sample(make_prompts(5), Draw(0, 0, 2, 1.0)) for _ in range(2))
    assert model.training
    assert torch.equal(first[0].responses[0].logprobs, again[0].responses[0].logprobs)
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert not first[0].responses[0].logprobs.is_inference()


@pytest.mark.parametrize("name", ["qwen3", "qwen3_tied"])
def test_loaded_weights_are_the_ones_drawn_from(name: str) -> None:
    learner, own = make_model(name, seed=1), make_model(name, seed=2)
    drawer, prompts, draw = sampler(own), make_prompts(5, 8), Draw(0, 0, 4, 1.0)
    before = drawer.sample(prompts, draw)
    drawer.load(learner.state_dict(), version=1)
    after, expected = drawer.sample(prompts, draw), sampler(learner).sample(prompts, draw)
    assert [texts(group) for group in after] == [texts(group) for group in expected]
    assert [texts(group) for group in after] != [texts(group) for group in before]


def test_a_shared_module_shows_every_update_at_once() -> None:
    model = make_model("qwen3")
    drawer, prompts, draw = sampler(model), make_prompts(5), Draw(0, 0, 4, 1.0)
    before = drawer.sample(prompts, draw)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.3)
    drawer.load(model.state_dict(), version=1)
    (group,) = drawer.sample(prompts, draw)
    chosen = full_forward(model, group, 0, 1.0).gather(-1, group.responses[0].token_ids[:, None])[:, 0]
    assert (chosen - group.responses[0].logprobs).abs().max() < 1e-5
    assert texts(group) != texts(before[0])


def test_weights_of_another_shape_are_refused() -> None:
    with pytest.raises(RuntimeError, match="embed_tokens"):
        sampler(make_model("qwen3")).load(make_model("gpt2").state_dict(), version=1)


def test_no_prompts_give_no_groups() -> None:
    assert sampler(make_model("qwen3")).sample([], Draw(0, 0, 2, 1.0)) == []


def test_a_model_without_an_end_token_is_refused() -> None:
    model, tokenizer = make_model("qwen3"), make_tokenizer()
    model.generation_config.eos_token_id = None
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="end-of-sequence"):
        TransformersSampler(model, tokenizer, max_response_tokens=4)


def texts(group: Group) -> list[str]:
    return [response.text for response in group.responses]


def chi_squared(drawn: list[int], expected: Tensor) -> float:
    counts = torch.bincount(torch.tensor(drawn), minlength=len(expected)).double()
    return float(((counts - len(drawn) * expected) ** 2 / (len(drawn) * expected)).sum())
