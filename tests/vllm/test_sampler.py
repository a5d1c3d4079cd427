"""What is drawn: where responses end, which seeds they follow, and that the run can stop between two tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from vllm.usage.usage_lib import is_usage_stats_enabled

from stapo_core.batch import Group, Prompt
from stapo_core.rollout import Draw, Limits, Stopped
from stapo_core.rollout.vllm_sampler import VllmSampler
from tests.stapo_core.tiny import CHARACTERS, VOCABULARY
from tests.vllm.conftest import SAMPLING, open_engine
from tests.vllm.models import make_folder

END = 1


class Patience:
    """Says yes when it has been asked `last` times."""

    last: int | None = None
    asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.asked == self.last


PATIENCE = Patience()
TOLD: list[tuple[int, str]] = []


def listen(prompt: Prompt, text: str) -> None:
    TOLD.append((prompt.index, text))


@pytest.fixture(scope="module")
def sampler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmSampler]:
    folder = make_folder(tmp_path_factory.mktemp("model"), tied=True, spread=2.0)
    with open_engine(folder, should_stop=PATIENCE, on_response=listen) as (sampler, _):
        yield sampler


def prompts(number: int) -> list[Prompt]:
    return [Prompt(index, "", (5 + index, 9, 7), {}) for index in range(number)]


def tokens(group: Group) -> list[list[int]]:
    return [response.token_ids.tolist() for response in group.responses]


def test_a_response_ends_at_its_first_end_token_or_is_cut(sampler: VllmSampler) -> None:
    groups = sampler.sample(prompts(2), Draw(0, 0, num_samples=64, temperature=1.3))
    responses = [response for group in groups for response in group.responses]
    assert set(Counter(response.finish for response in responses)) == {"stop", "length"}
    for response in responses:
        ids = response.token_ids.tolist()
        assert END not in ids[:-1]
        assert (ids[-1] == END) == (response.finish == "stop")
        assert response.finish == "stop" or len(ids) == SAMPLING.max_response_tokens
        assert len(response.logprobs) == len(response.entropies) == len(ids)
        assert bool(response.entropies.isnan().all())
        words = [*CHARACTERS, *(f"<{token}>" for token in range(3 + len(CHARACTERS), VOCABULARY))]
        assert response.text == "".join(words[token - 3] for token in ids if token >= 3)


def test_a_seed_draws_the_same_tokens_and_another_seed_or_step_others(sampler: VllmSampler) -> None:
    first, again, other, later = (
        [tokens(group) for group in sampler.sample(prompts(3), Draw(seed, step, 4, 1.0))]
        for seed, step in ((3, 1), (3, 1), (4, 1), (3, 2))
    )
    assert first == again
    assert first not in (other, later)


def test_a_samples_seed_depends_on_no_neighbour(sampler: VllmSampler) -> None:
    few = sampler.sample(prompts(1), Draw(3, 1, 2, 1.0))
    many = sampler.sample(prompts(4), Draw(3, 1, 8, 1.0))
    assert tokens(few[0]) == tokens(many[0])[:2]


def test_a_prompt_that_comes_twice_is_drawn_anew(sampler: VllmSampler) -> None:
    (prompt,) = prompts(1)
    first, second = sampler.sample([prompt, prompt], Draw(0, 0, 4, 1.0))
    assert not any(ids in tokens(first) for ids in tokens(second))


def test_a_stop_string_ends_a_response_and_is_cut_from_its_text(sampler: VllmSampler) -> None:
    free = sampler.sample(prompts(2), Draw(3, 0, 32, 1.0))
    stopped = sampler.sample(prompts(2), Draw(3, 0, 32, 1.0, stop=("7", "ab")))
    num_stopped = 0
    for was, now in zip(free, stopped, strict=True):
        for long, short in zip(was.responses, now.responses, strict=True):
            places = [place for stop in ("7", "ab") if (place := long.text.find(stop)) >= 0]
            assert short.text == long.text[: min(places, default=None)]
            assert short.token_ids.tolist() == long.token_ids.tolist()[: len(short.token_ids)]
            if places:
                num_stopped += 1
                assert short.finish == "stop"
                assert len(short.token_ids) <= len(long.token_ids)
    assert num_stopped > 4


def test_a_draw_may_cut_responses_earlier(sampler: VllmSampler) -> None:
    (group,) = sampler.sample(prompts(1), Draw(3, 0, 16, 1.0, max_tokens=3))
    assert max(len(ids) for ids in tokens(group)) == 3


def test_a_response_is_told_once_when_it_ends_and_not_when_it_is_cut(sampler: VllmSampler) -> None:
    TOLD.clear()
    groups = sampler.sample(prompts(2), Draw(0, 0, num_samples=64, temperature=1.3))
    ended = [(group.prompt.index, each.text) for group in groups for each in group.responses if each.finish == "stop"]
    assert sorted(TOLD) == sorted(ended)
    assert ended != TOLD  # in the order in which they ended
    sampler.sample(prompts(2), Draw(0, 0, num_samples=64, temperature=1.3, max_tokens=20))
    assert len(TOLD) == len(ended)


def test_with_one_token_left_log_probs_are_zero(sampler: VllmSampler) -> None:
    for limits in (Limits(top_k=1), Limits(top_p=1e-6), Limits(min_p=1.0)):
        (group,) = sampler.sample(prompts(1), Draw(5, 0, 3, 1.3, limits))
        assert len({tuple(ids) for ids in tokens(group)}) == 1
        assert all(bool((response.logprobs == 0).all()) for response in group.responses)


def test_limits_that_vllm_would_apply_in_another_order_are_refused(sampler: VllmSampler) -> None:
    with pytest.raises(ValueError, match="min_p before top_p"):
        sampler.sample(prompts(1), Draw(5, 0, 3, 1.3, Limits(top_p=0.9, min_p=0.1)))


def test_no_prompts_give_no_groups(sampler: VllmSampler) -> None:
    assert sampler.sample([], Draw(0, 0, 2, 1.0)) == []


def test_a_stop_is_heard_between_two_tokens_and_leaves_nothing_behind(sampler: VllmSampler) -> None:
    draw = Draw(0, 0, 16, 1.0)
    expected = [tokens(group) for group in sampler.sample(prompts(2), draw)]
    PATIENCE.asked, PATIENCE.last = 0, 5
    with pytest.raises(Stopped):
        sampler.sample(prompts(2), draw)
    assert PATIENCE.asked == 5
    assert [tokens(group) for group in sampler.sample(prompts(2), draw)] == expected


def test_no_stop_breaks_off_a_look_at_the_engine(sampler: VllmSampler) -> None:
    """It follows an update; a run that stopped there would take the weights for those of the step before."""
    PATIENCE.asked, PATIENCE.last = 0, 1
    (group,) = sampler.sample(prompts(1), Draw(3, 0, 4, 1.0, max_tokens=5))
    assert len(group.responses) == 4
    assert PATIENCE.asked == 0


def test_threads_can_still_be_set_beside_the_engine(sampler: VllmSampler) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    assert torch.get_num_threads() == before + 1
    torch.set_num_threads(before)


def test_the_engine_reports_its_use_to_nobody() -> None:
    assert not is_usage_stats_enabled()
