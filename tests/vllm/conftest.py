"""Real engines on a CPU, each beside the policy whose weights it is given. One is open at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

import stapo_core  # noqa: F401  # sets how OpenMP waits and what vLLM tells, which both read when they load
from stapo_core.batch import Prompt
from stapo_core.config import LoraConfig, SamplingConfig
from stapo_core.policy import Policy
from stapo_core.rollout.end_tokens import end_ids
from stapo_core.rollout.vllm_sampler import Engine, VllmSampler
from tests.vllm.models import make_folder

SAMPLING = SamplingConfig(max_prompt_tokens=300, max_response_tokens=24)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    torch.set_num_threads(1)


@contextmanager
def open_engine(
    folder: Path,
    *,
    precision: Any = "float32",
    lora: LoraConfig | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_response: Callable[[Prompt, str], None] | None = None,
) -> Iterator[tuple[VllmSampler, Policy]]:
    """An engine with the policy's weights in it."""
    policy = Policy.load(folder, device=CPU, precision=precision)
    if lora is not None:
        policy.add_adapters(lora)
    engine = Engine(
        folder=folder,
        end_ids=end_ids(policy.model, policy.tokenizer),
        sampling=SAMPLING,
        dtype=policy.dtype,
        device=CPU,
        num_ranks=1,
        seed=0,
        adapter_scale=lora.alpha / lora.rank if lora else 0.0,
    )
    sampler = VllmSampler(engine, policy.tokenizer, should_stop=should_stop, on_response=on_response)
    sampler.load(policy.weights(), version=0)
    try:
        yield sampler, policy
    finally:
        sampler.close()


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Engine and policy, with a tied head and with one of its own."""
    with open_engine(make_folder(tmp_path_factory.mktemp("model"), tied=request.param)) as pair:
        yield pair
