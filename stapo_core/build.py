"""From a config to the parts of a run. What cannot work is refused here, cheap checks first, before a model loads.

The only place that chooses classes; nothing of the method is decided here.
"""

from __future__ import annotations

import platform
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import transformers

from stapo_core.algorithms import compose
from stapo_core.batch import Prompt
from stapo_core.checkpoint import Checkpoints, Onlooker, Saved, find_newest, restore_rng
from stapo_core.config import RunConfig, TrainConfig
from stapo_core.distributed import Alone, Ranks
from stapo_core.engine import Callbacks, Choice, choose_engine, open_sampler
from stapo_core.evaluation import Evaluator
from stapo_core.events import Started
from stapo_core.graders import GraderPool, UserCodeRefused, build_grader
from stapo_core.graders.judges import JudgesError
from stapo_core.graders.templates import TemplateError
from stapo_core.grading import FirstScores, Grading, Overlong, TrainingGrading
from stapo_core.learner import Learner
from stapo_core.policy import ModelError, Policy
from stapo_core.problems import BadInput as BadInput
from stapo_core.problems import load_problems
from stapo_core.recording import Recorder
from stapo_core.refill import Refill, ReplaceIdle, keep_all
from stapo_core.report import Report
from stapo_core.rollout import Sampler
from stapo_core.spool import Spool
from stapo_core.train import Run


def build(
    config: RunConfig,
    run_dir: Path,
    *,
    spool: Spool,
    should_stop: Callable[[], bool],
    ranks: Ranks | None = None,
    allows_user_code: bool = False,
) -> Run:
    """A run, resumed from the newest checkpoint that verifies. No config can allow user code. Raises BadInput."""
    ranks = ranks or Alone()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    _make_repeatable(config.seed, device)
    transformers.utils.logging.disable_progress_bar()  # bars would fill the trainer's log

    engine = choose_engine(config.train.sampling, has_gpu=device.type == "cuda", num_ranks=ranks.size)
    pool = _graders(config, allows_user_code=allows_user_code)
    problems = load_problems(config)
    prompts = problems.train
    num_steps = config.train.num_steps or max(1, config.num_epochs * len(prompts) // config.train.batch.num_prompts)
    holder = Checkpoints if ranks.rank == 0 else Onlooker
    checkpoints = holder(run_dir, config.train.checkpoint, spool=spool)
    saved = find_newest(checkpoints, ranks)
    learner = _learner(config, device, saved, num_steps=num_steps, should_stop=should_stop, ranks=ranks)
    record_every = config.train.record_rollouts_every if ranks.rank == 0 else 0
    recorder = Recorder(run_dir, learner.policy.tokenizer, every=record_every)
    report = Report(spool, recorder)
    grading = _training_grading(config.train, pool, report, ranks, is_fresh=saved is None)
    callbacks = Callbacks(should_stop, grading.begin if ranks.rank == 0 else None)  # rank 0 judges for all
    sampler = open_sampler(engine, config, learner.policy, prompts=prompts, ranks=ranks, callbacks=callbacks)
    evaluator = Evaluator(
        problems.held_out,
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
    _announce(run, engine, spool)
    if saved:
        checkpoints.announce(saved.manifest, final=saved.step == num_steps)
    return run


def _make_repeatable(seed: int, device: torch.device) -> None:
    torch.use_deterministic_algorithms(device.type == "cpu")
    # Filling what is not yet written would look for a mistake of ours, at a twentieth of a step.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.manual_seed(seed)
    random.seed(seed)  # nothing of ours draws from these two; a library may
    np.random.seed(seed % 2**32)


def _graders(config: RunConfig, *, allows_user_code: bool) -> GraderPool:
    try:
        return build_grader(config.grader, allows_user_code=allows_user_code)
    except UserCodeRefused as error:
        param = f"grader.{error.param}" if error.param else "grader"
        raise BadInput(str(error), code="user_code_disabled", param=param) from error
    except (TemplateError, JudgesError) as error:
        raise BadInput(str(error), code="invalid_grader", param="grader") from error


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


def _refill(config: RunConfig, prompts: list[Prompt], sampler: Sampler, grading: Grading, report: Report) -> Refill:
    rounds = config.train.algorithm.dynamic_sampling_rounds
    if rounds == 0:
        return keep_all
    return ReplaceIdle(prompts, sampler=sampler, grading=grading, report=report, max_rounds=rounds)


def _announce(run: Run, engine: Choice, spool: Spool) -> None:
    spool.emit(
        Started,
        resume_step=run.start,
        num_steps=run.num_steps,
        num_train_rows=len(run.prompts),
        num_parameters=run.learner.policy.num_parameters,
        device=_device_name(run.learner.policy.device),
        engine=str(engine),
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    )


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"
