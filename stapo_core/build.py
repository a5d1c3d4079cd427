"""From a config to the parts of a run. What cannot work is refused here, cheap checks first, before a model loads.

The only place that chooses classes; nothing of the method is decided here.
"""

from __future__ import annotations

import copy
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers

from stapo_core.algorithms import compose
from stapo_core.batch import Prompt
from stapo_core.checkpoint import Checkpoints, Onlooker, Saved, find_newest, restore_rng
from stapo_core.config import RunConfig, TrainConfig
from stapo_core.data import DataError, DataErrors, check_rows, read_rows
from stapo_core.distributed import Alone, Ranks
from stapo_core.evaluation import Evaluator, HeldOut
from stapo_core.events import Started
from stapo_core.graders import GraderPool, build_grader, item_fields
from stapo_core.graders.templates import TemplateError
from stapo_core.grading import FirstScores, Grading, Overlong, TrainingGrading
from stapo_core.learner import Learner
from stapo_core.policy import ModelError, Policy, check_folder, load_tokenizer
from stapo_core.recording import Recorder
from stapo_core.refill import Refill, ReplaceIdle, keep_all
from stapo_core.report import Report
from stapo_core.rollout import Sampler
from stapo_core.rollout.prompts import encode_prompts
from stapo_core.rollout.ranked_sampler import RankedSampler
from stapo_core.rollout.transformers_sampler import TransformersSampler
from stapo_core.spool import Spool
from stapo_core.train import Run


class BadInput(Exception):
    """The user's config, data or model cannot be used; `param` is the config field at fault."""

    def __init__(self, message: str, *, code: str, param: str) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


def build(
    config: RunConfig, run_dir: Path, *, spool: Spool, should_stop: Callable[[], bool], ranks: Ranks | None = None
) -> Run:
    """Builds a run, resumed from the newest checkpoint that verifies. Raises BadInput."""
    ranks = ranks or Alone()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.use_deterministic_algorithms(device.type == "cpu")
    # Filling what is not yet written would look for a mistake of ours, at a twentieth of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.manual_seed(config.seed)
    transformers.utils.logging.disable_progress_bar()  # bars would fill the trainer's log

    pool = _graders(config)
    prompts, held_out = _prompts(config)
    num_steps = config.train.num_steps or max(1, config.num_epochs * len(prompts) // config.train.batch.num_prompts)
    holder = Checkpoints if ranks.rank == 0 else Onlooker
    checkpoints = holder(run_dir, config.train.checkpoint, spool=spool)
    saved = find_newest(checkpoints, ranks)
    learner = _learner(config, device, saved, num_steps=num_steps, should_stop=should_stop, ranks=ranks)
    record_every = config.train.record_rollouts_every if ranks.rank == 0 else 0
    recorder = Recorder(run_dir, learner.policy.tokenizer, every=record_every)
    report = Report(spool, recorder)
    sampler = RankedSampler(_sampler(learner.policy, config, should_stop), ranks)
    grading = _training_grading(config.train, pool, report, ranks, is_fresh=saved is None)
    evaluator = Evaluator(
        held_out,
        sampler=sampler,
        grading=Grading(pool, report, config.train.grading, ranks=ranks),
        report=report,
        every_steps=config.train.evaluation.every_steps,
        seed=config.seed,
        num_steps=num_steps,
    )
    run = Run(
        prompts=prompts,
        sampler=sampler,
        grading=grading,
        refill=_refill(config, prompts, sampler, grading, report),
        learner=learner,
        evaluator=evaluator,
        checkpoints=checkpoints,
        report=report,
        seed=config.seed,
        start=saved.step if saved else 0,
        num_steps=num_steps,
    )
    if saved:
        evaluator.load_state(saved.state.values)
        restore_rng(saved.state)
    _announce(run, spool)
    if saved:
        checkpoints.announce(saved.manifest, final=saved.step == num_steps)
    return run


def _graders(config: RunConfig) -> GraderPool:
    try:
        return build_grader(config.grader)
    except TemplateError as error:
        raise BadInput(str(error), code="invalid_grader", param="grader") from error


def _prompts(config: RunConfig) -> tuple[list[Prompt], list[HeldOut]]:
    """Training prompts and validation files, checked against the grader, the model's context and the batch."""
    try:
        model = check_folder(config.model)
        tokenizer = load_tokenizer(config.model)
    except ModelError as error:
        raise BadInput(str(error), code="invalid_model", param="model") from error
    _check_context(config, model.get("max_position_embeddings", 2**62))
    prompts = _read(config.training_file, "training_file", config, tokenizer)
    if len(prompts) < config.train.batch.num_prompts:
        raise BadInput(
            f"a step takes {config.train.batch.num_prompts} prompts and the training file has {len(prompts)}; "
            f"set num_prompts to at most {len(prompts)} or add rows",
            code="too_few_rows",
            param="train.batch.num_prompts",
        )
    return prompts, _held_out(config, tokenizer)


def _check_context(config: RunConfig, context: int) -> None:
    sampling = config.train.sampling
    if sampling.max_prompt_tokens >= context:
        raise BadInput(
            f"max_prompt_tokens {sampling.max_prompt_tokens} leaves no room for a response in the model's context of "
            f"{context}; set max_prompt_tokens to at most {context - 1} and max_response_tokens to what is then left",
            code="context_too_long",
            param="train.sampling.max_prompt_tokens",
        )
    if sampling.max_prompt_tokens + sampling.max_response_tokens > context:
        raise BadInput(
            f"max_prompt_tokens {sampling.max_prompt_tokens} + max_response_tokens {sampling.max_response_tokens} "
            f"exceed the model's context of {context}; set max_response_tokens to at most "
            f"{context - sampling.max_prompt_tokens}",
            code="context_too_long",
            param="train.sampling.max_response_tokens",
        )


def _held_out(config: RunConfig, tokenizer: Any) -> list[HeldOut]:
    """The validation files, the unnamed one first."""
    usual = config.train.evaluation
    found = []
    if config.validation_file is not None:
        problems = _read(config.validation_file, "validation_file", config, tokenizer)[: usual.max_problems]
        found.append(HeldOut(None, problems, usual.num_samples, usual.temperature))
    for place, each in enumerate(config.validation_files):
        problems = _read(each.file, f"validation_files.{place}.file", config, tokenizer)
        limit = each.max_problems or usual.max_problems
        num_samples, temperature = each.num_samples or usual.num_samples, each.temperature or usual.temperature
        found.append(HeldOut(each.name, problems[:limit], num_samples, temperature, each.top_p))
    return found


def _read(path: Path, param: str, config: RunConfig, tokenizer: Any) -> list[Prompt]:
    try:
        check_rows(path, item_fields(config.grader))
        return encode_prompts(read_rows(path), tokenizer, config.train.sampling.max_prompt_tokens)
    except (DataError, DataErrors) as error:
        raise BadInput(f"{path.name}: {error}", code="invalid_data", param=param) from error


def _training_grading(
    config: TrainConfig, pool: GraderPool, report: Report, ranks: Ranks, *, is_fresh: bool
) -> TrainingGrading:
    """A run that goes on may have learned to give one score, so only a fresh one is refused for it."""
    rules = config.grading
    return TrainingGrading(
        pool,
        report,
        rules,
        overlong=Overlong(config.sampling.max_response_tokens, config.algorithm.overlong_share),
        first=FirstScores(rules.refuse_one_score_after if is_fresh else 0),
        ranks=ranks,
    )


def _learner(
    config: RunConfig,
    device: torch.device,
    saved: Saved | None,
    *,
    num_steps: int,
    should_stop: Callable[[], bool],
    ranks: Ranks,
) -> Learner:
    """The learner, with the weights and the state of the checkpoint where there is one."""
    algorithm = compose(config)
    try:
        lora = config.train.lora
        folder = saved.folder if saved and lora is None else config.model  # adapters come back onto the base model
        policy = Policy.load(folder, device=device, precision=config.train.dtype)
        if lora is not None:
            policy.add_adapters(lora)
        if config.train.gradient_checkpointing:
            policy.checkpoint_gradients()
        reference = None
        if algorithm.needs_reference:
            reference = Policy.load(config.model, device=device, precision=config.train.dtype).freeze()
    except ModelError as error:
        raise BadInput(str(error), code="invalid_model", param="model") from error
    learner = Learner(
        policy,
        algorithm,
        config=config.train,
        num_steps=num_steps,
        reference=reference,
        should_stop=should_stop,
        ranks=ranks,
    )
    if saved:
        learner.load_state(saved.state)
    return learner


def _sampler(policy: Policy, config: RunConfig, should_stop: Callable[[], bool]) -> TransformersSampler:
    """In float32 the sampler reads the policy's own module; in bfloat16 it holds a copy in that precision."""
    model = policy.model
    if policy.dtype != torch.float32:
        model = copy.deepcopy(model).to(policy.dtype)
    sampler = TransformersSampler(
        model,
        policy.tokenizer,
        max_response_tokens=config.train.sampling.max_response_tokens,
        should_stop=should_stop,
    )
    sampler.load(policy.weights(), version=0)
    return sampler


def _refill(config: RunConfig, prompts: list[Prompt], sampler: Sampler, grading: Grading, report: Report) -> Refill:
    rounds = config.train.algorithm.dynamic_sampling_rounds
    if rounds == 0:
        return keep_all
    return ReplaceIdle(prompts, sampler=sampler, grading=grading, report=report, max_rounds=rounds)


def _announce(run: Run, spool: Spool) -> None:
    spool.emit(
        Started,
        resume_step=run.start,
        num_steps=run.num_steps,
        num_train_rows=len(run.prompts),
        num_parameters=run.learner.policy.num_parameters,
        device=_device_name(run.learner.policy.device),
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    )


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
