"""Draws responses with vLLM inside this process: on the learner's GPU, whose memory it lends out, or on a CPU.

The only file that imports vLLM. Weights are handed over by reference, in the form of the checkpoint; vLLM itself cuts
them up for the ranks that share an engine. It tells the log-probs of what it draws and no entropies: those are NaN.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from vllm import LLM, CompletionOutput, SamplingParams, TokensPrompt
from vllm.distributed import destroy_distributed_environment, destroy_model_parallel

from stapo_core.batch import Finish, Group, Prompt, Response
from stapo_core.config import SamplingConfig
from stapo_core.rollout import Draw, EngineUnusable, Stopped
from stapo_core.rollout.merging import merge_adapters
from stapo_core.rollout.stop_strings import StopStrings

_CPU_CACHE_BYTES = 2**30
"""Keys and values that are held at a time on a CPU; what does not fit waits its turn."""
_FINISHES: dict[str | None, Finish] = {"stop": "stop", "length": "length"}


@dataclass(frozen=True, slots=True)
class Engine:
    """What the engine is made for; `num_ranks` processes of the trainer share one engine, each with a part of it."""

    folder: Path
    """The base model; only its settings and its tokenizer are read, the weights are loaded later."""
    end_ids: Sequence[int]
    sampling: SamplingConfig
    dtype: torch.dtype
    device: torch.device
    num_ranks: int
    """Processes of the whole run."""
    seed: int
    """Of the run: the engine seeds the process's generators, as the run has done; draws have seeds of their own."""
    adapter_scale: float = 0.0
    """What low-rank adapters are scaled by, where there are any."""


class VllmSampler:
    """An engine that holds weights of its own, in the precision of the learner's forward passes."""

    def __init__(
        self,
        engine: Engine,
        tokenizer: PreTrainedTokenizerBase,
        *,
        should_stop: Callable[[], bool] = lambda: False,
        on_response: Callable[[Prompt, str], None] | None = None,
    ) -> None:
        """Raises EngineUnusable when vLLM cannot serve the model on this machine.

        `on_response` gets the prompt and the text of a response as soon as it ends, while others are still drawn;
        those that are cut at the limit are not told.
        """
        self._engine = engine
        self._tokenizer = tokenizer
        self._should_stop = should_stop
        self._on_response = on_response
        self._is_asleep = False
        try:
            self._llm = _start(engine)
            parameters = [SamplingParams(max_tokens=1, detokenize=False)]
            list(self._run([[0]], parameters, lambda: False))  # what kernels lack, they say now
        except Exception as error:  # whatever vLLM, its kernels and the driver raise
            reason = f"vLLM cannot serve this model on this {engine.device.type}: {type(error).__name__}: {error}"
            raise EngineUnusable(f"{reason}; set engine to transformers, or choose another model") from error

    def sample(self, prompts: Sequence[Prompt], draw: Draw) -> list[Group]:
        """Draws `draw.num_samples` responses to each prompt; groups come back in the order of the prompts.

        Raises Stopped, between two tokens, once `should_stop` says so, but for a draw that is a look at the engine.
        """
        stops = StopStrings(draw.stop, self._tokenizer)
        seeds = draw.response_seeds(prompts)
        asked = [(prompt, seed) for prompt, own in zip(prompts, seeds, strict=True) for seed in own]
        parameters = [self._parameters(draw, seed) for _, seed in asked]
        should_stop, on_response = (lambda: False, None) if draw.max_tokens else (self._should_stop, self._on_response)
        drawn: dict[int, Response] = {}
        for number, completion in self._run([list(prompt.token_ids) for prompt, _ in asked], parameters, should_stop):
            response = drawn[number] = self._response(completion, stops)
            if on_response is not None and response.finish == "stop":
                on_response(asked[number][0], response.text)
        responses = iter(drawn[number] for number in range(len(asked)))
        return [Group(prompt, tuple(next(responses) for _ in own)) for prompt, own in zip(prompts, seeds, strict=True)]

    def load(self, weights: Mapping[str, Tensor], *, version: int) -> None:
        """Replaces every weight, then takes memory for keys and values again and forgets those of the old weights."""
        named = merge_adapters(weights, scale=self._engine.adapter_scale)
        self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": named})
        if self._is_asleep:
            self._llm.wake_up(tags=["kv_cache"])
            self._is_asleep = False
        if not self._llm.reset_prefix_cache():
            raise RuntimeError(f"vLLM kept the keys and values of old weights at version {version}")

    def sleep(self) -> None:
        """Gives back the memory of weights, keys and values; on a CPU there is none to lend, and vLLM keeps it."""
        self._llm.sleep(level=2)
        self._is_asleep = True

    def wake(self) -> None:
        """Takes memory for the weights alone; that of keys and values follows when `load` has replaced them."""
        if self._is_asleep:
            torch.cuda.empty_cache()  # what the learner holds and does not use; nothing on a CPU
            self._llm.wake_up(tags=["weights"])

    def close(self) -> None:
        """Ends the engine; under several ranks it lives on their group, and ends with the process."""
        if self._engine.num_ranks == 1:
            self._llm.llm_engine.engine_core.shutdown()
            destroy_model_parallel()
            destroy_distributed_environment()

    def _parameters(self, draw: Draw, seed: int) -> SamplingParams:
        limits = draw.limits
        if limits.top_p < 1.0 and limits.min_p > 0.0:
            raise ValueError("vLLM applies min_p before top_p, which is another choice of tokens; set one of the two")
        longest = self._engine.sampling.max_response_tokens
        return SamplingParams(
            temperature=draw.temperature,
            top_k=limits.top_k or 0,
            top_p=limits.top_p,
            min_p=limits.min_p,
            seed=seed % 2**63,
            stop=list(draw.stop),
            stop_token_ids=list(self._engine.end_ids),
            max_tokens=min(longest, draw.max_tokens or longest),
            logprobs=0,  # of the token that was drawn, and of no other
            flat_logprobs=True,
            detokenize=bool(draw.stop),
        )

    def _run(
        self, prompts: Sequence[list[int]], parameters: Sequence[SamplingParams], should_stop: Callable[[], bool]
    ) -> Iterator[tuple[int, CompletionOutput]]:
        """Draws one response to each, and gives each with its number as it ends.

        Every call of the engine's step draws a token for all that are under way.
        """
        if not prompts:
            return
        ids = self._llm.enqueue([TokensPrompt(prompt_token_ids=ids) for ids in prompts], parameters, use_tqdm=False)
        engine, first = self._llm.llm_engine, int(ids[0].partition("-")[0])  # counted up from one call to the next
        try:
            while engine.has_unfinished_requests():
                if should_stop():
                    raise Stopped
                for each in engine.step():
                    if each.finished:
                        yield int(each.request_id) - first, each.outputs[0]
        finally:
            if engine.has_unfinished_requests():
                engine.abort_request(ids, internal=True)

    def _response(self, completion: CompletionOutput, stops: StopStrings) -> Response:
        token_ids = torch.tensor(completion.token_ids)
        logprobs = torch.tensor(completion.logprobs.logprobs, dtype=torch.float32)
        text = self._tokenizer.decode(token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Response(
            token_ids=token_ids,
            logprobs=logprobs,
            entropies=torch.full_like(logprobs, torch.nan),
            text=stops.cut(text),
            finish=_FINISHES[completion.finish_reason],
        )


def _start(engine: Engine) -> LLM:
    """Ranks that share an engine run it side by side, each from its own process, so no weight leaves its process."""
    sampling, is_on_gpu = engine.sampling, engine.device.type == "cuda"
    on_device: dict[str, Any] = {"enforce_eager": True, "kv_cache_memory_bytes": _CPU_CACHE_BYTES}
    if is_on_gpu:
        on_device = {"enable_sleep_mode": True, "gpu_memory_utilization": sampling.gpu_memory_share}
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    set_num_threads = torch.set_num_threads  # vLLM puts in its place one that does nothing
    try:
        return LLM(
            model=str(engine.folder),
            load_format="dummy",
            seed=engine.seed % 2**32,
            dtype=str(engine.dtype).removeprefix("torch."),
            max_model_len=sampling.max_prompt_tokens + sampling.max_response_tokens,
            logprobs_mode="processed_logprobs",  # at the temperature, as the learner's are
            tensor_parallel_size=sampling.tensor_parallel_size,
            distributed_executor_backend="external_launcher" if engine.num_ranks > 1 else "uni",
            generation_config="vllm",  # the model's own wishes for sampling are not ours
            **on_device,
        )
    finally:
        torch.set_num_threads = set_num_threads
