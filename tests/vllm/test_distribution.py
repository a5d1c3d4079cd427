"""Both engines draw from one distribution: next tokens are counted, and a wrong setting would be noticed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest

from stapo_core.batch import Prompt
from stapo_core.rollout import Draw, Limits, Sampler
from stapo_core.rollout.transformers_sampler import TransformersSampler
from tests.vllm.conftest import open_engine
from tests.vllm.models import make_folder

NUM_SAMPLES = 2000
PROMPTS = [Prompt(index, "", (5 + 7 * index, 9, 30), {}) for index in (0, 2)]
ALL_WORDS = Limits()
Counts = list[Counter[int]]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Sampler, Sampler]]:
    """vLLM and transformers with the same weights."""
    folder = make_folder(tmp_path_factory.mktemp("model"), tied=False, spread=7.0)
    with open_engine(folder) as (sampler, policy):
        yield sampler, TransformersSampler(policy.model, policy.tokenizer, max_response_tokens=2)


def count(sampler: Sampler, temperature: float, limits: Limits = ALL_WORDS) -> Counts:
    """First and second tokens of many responses to each prompt: what a prefill draws, and what a decode step draws."""
    groups = sampler.sample(PROMPTS, Draw(11, 0, NUM_SAMPLES, temperature, limits, max_tokens=2))
    return [
        Counter(int(response.token_ids[place]) for response in group.responses if len(response.token_ids) > place)
        for group in groups
        for place in (0, 1)
    ]


def differ(one: Counts, other: Counts) -> bool:
    """Chi-squared test of homogeneity over all tables at once, at the one-in-ten-thousand point.

    Words that are expected less than five times in either sample are counted together.
    """
    statistic, freedom = 0.0, 0
    for left, right in zip(one, other, strict=True):
        share = left.total() / (left.total() + right.total())
        smaller = min(share, 1 - share)
        common = [word for word in left | right if (left[word] + right[word]) * smaller >= 5]
        cells = [(left[word], right[word]) for word in common]
        rest = (left.total() - sum(a for a, _ in cells), right.total() - sum(b for _, b in cells))
        cells += [rest] if sum(rest) * smaller >= 5 else []
        for a, b in cells:
            expected = (a + b) * share, (a + b) * (1 - share)
            statistic += (a - expected[0]) ** 2 / expected[0] + (b - expected[1]) ** 2 / expected[1]
        freedom += len(cells) - 1
    spread = 2 / (9 * freedom)  # Wilson and Hilferty: the cube root of chi-squared over its freedom is near normal
    critical: float = freedom * (1 - spread + 3.719 * spread**0.5) ** 3
    return statistic > critical


@pytest.mark.parametrize("temperature", [0.7, 1.0])
def test_next_tokens_are_as_frequent_and_a_temperature_off_by_a_fifth_is_noticed(
    engines: tuple[Sampler, Sampler], temperature: float
) -> None:
    vllm, transformers = engines
    expected = count(transformers, temperature)
    assert not differ(count(vllm, temperature), expected)
    assert differ(count(vllm, 1.2 * temperature), expected)
    assert differ(count(vllm, temperature / 1.2), expected)


@pytest.mark.parametrize(
    ("limits", "wrong"),
    [
        (Limits(top_p=0.8), Limits(top_p=0.9)),
        (Limits(top_k=5), Limits(top_k=6)),
        (Limits(min_p=0.1), Limits(min_p=0.05)),
    ],
)
def test_limits_leave_the_same_words_as_frequent_and_a_wrong_one_is_noticed(
    engines: tuple[Sampler, Sampler], limits: Limits, wrong: Limits
) -> None:
    vllm, transformers = engines
    expected, found = count(transformers, 1.0, limits), count(vllm, 1.0, limits)
    assert not differ(found, expected)
    assert differ(count(vllm, 1.0, wrong), expected)
    assert differ(count(vllm, 1.0), expected)
