"""From data files to prompts: read, checked against grader and model, split into training and held-out problems.

Knows files, rows and a tokenizer; it knows no model's weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stapo_core.batch import Prompt
from stapo_core.config import RunConfig
from stapo_core.data import DataError, DataErrors, Origin, check_rows, hold_out, iter_rows, share_to_hold_out
from stapo_core.evaluation import HeldOut
from stapo_core.graders import item_fields
from stapo_core.policy import ModelError, check_folder, load_tokenizer
from stapo_core.rollout.prompts import encode_prompts


class BadInput(Exception):
    """The user's config, data or model cannot be used; `param` is the config field at fault."""

    def __init__(self, message: str, *, code: str, param: str) -> None:
        super().__init__(message)
        self.code = code
        self.param = param


@dataclass(frozen=True, slots=True)
class Problems:
    """What is trained on, and what is scored; the file without a name stands first."""

    train: list[Prompt]
    held_out: list[HeldOut]


def load_problems(config: RunConfig) -> Problems:
    """All problems of a run, checked against the grader, the model's context and the batch. Raises BadInput."""
    try:
        model = check_folder(config.model)
        tokenizer = load_tokenizer(config.model)
    except ModelError as error:
        raise BadInput(str(error), code="invalid_model", param="model") from error
    _check_context(config, model.get("max_position_embeddings", 2**62))
    problems = _split(config, _read(config.training_file, "training_file", config, tokenizer), tokenizer)
    num_rows = len(problems.train)
    if num_rows < config.train.batch.num_prompts:
        held_out = " (after those held out)" if config.validation_file is None and problems.held_out else ""
        raise BadInput(
            f"a step takes {config.train.batch.num_prompts} prompts and the training file has {num_rows}{held_out}; "
            f"set num_prompts to at most {num_rows} or add rows",
            code="too_few_rows",
            param="train.batch.num_prompts",
        )
    return problems


def _split(config: RunConfig, prompts: list[Prompt], tokenizer: Any) -> Problems:
    """Training prompts beside the validation files, or beside the part that is held out where there are none."""
    usual = config.train.evaluation
    files = _validation_files(config, tokenizer)
    share = share_to_hold_out(usual.held_out_share, len(prompts), has_validation_file=bool(files))
    if share == 0.0:
        return Problems(prompts, files)
    sides = hold_out([prompt.item for prompt in prompts], share, config.seed)
    held_out = [prompts[number] for number in sides.held_out][: usual.max_problems]
    train = [prompts[number] for number in sides.train]
    return Problems(train, [HeldOut(None, held_out, usual.num_samples, usual.temperature)] if held_out else [])


def _validation_files(config: RunConfig, tokenizer: Any) -> list[HeldOut]:
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


def _read(origin: Origin, param: str, config: RunConfig, tokenizer: Any) -> list[Prompt]:
    name = origin.name if isinstance(origin, Path) else f"{origin.source} {origin.task}"
    try:
        check_rows(origin, item_fields(config.grader))
        lines, rows = zip(*iter_rows(origin), strict=True)
        return encode_prompts(rows, tokenizer, config.train.sampling.max_prompt_tokens, lines)
    except (DataError, DataErrors) as error:
        raise BadInput(f"{name}: {error}", code="invalid_data", param=param) from error


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
