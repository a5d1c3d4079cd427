"""Asks a model: `python -m stapo_core.answer MODEL_FOLDER --input FILE.jsonl` prints one JSON line per response."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from stapo_core.data import DataError, iter_rows
from stapo_core.rollout import Draw
from stapo_core.rollout.prompts import encode_prompts
from stapo_core.rollout.transformers_sampler import TransformersSampler

_ROWS_AT_A_TIME = 64
_MAX_PROMPT_TOKENS = 32_768


class UnusableModelError(Exception):
    """The folder holds no model that can be asked; the text says why."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Exit status 2, after one sentence on stderr, for a folder or file that cannot be used."""
    asked = _parser().parse_args(arguments)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        answer(asked)
    except (UnusableModelError, DataError) as error:
        print(error, file=sys.stderr)  # noqa: T201  # the command's own words
        return 2
    except BrokenPipeError:  # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def answer(asked: argparse.Namespace) -> None:
    """Prints the responses to the rows of `asked.input`, batch by batch. Raises UnusableModelError and DataError."""
    sampler, tokenizer = _load(asked.model_folder, asked.max_tokens)
    rows = islice(iter_rows(asked.input), asked.limit)
    step = 0
    while batch := list(islice(rows, _ROWS_AT_A_TIME)):
        lines = [line for line, _ in batch]
        prompts = encode_prompts((row for _, row in batch), tokenizer, _MAX_PROMPT_TOKENS, lines)
        draw = Draw(seed=asked.seed, step=step, num_samples=asked.num_samples, temperature=asked.temperature)
        for group in sampler.sample(prompts, draw):
            for response in group.responses:
                line = {"prompt": group.prompt.text, "response": response.text, "finish": response.finish}
                print(json.dumps(line, ensure_ascii=False), flush=True)  # noqa: T201
        step += 1


def _load(folder: Path, max_tokens: int) -> tuple[TransformersSampler, Any]:
    if not (folder / "config.json").is_file():
        raise UnusableModelError(f"{folder} is no model folder: it holds no config.json")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        model = AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, dtype="auto", trust_remote_code=False, use_safetensors=True
        )
        return TransformersSampler(model, tokenizer, max_response_tokens=max_tokens), tokenizer
    except Exception as error:  # whatever a broken folder makes the loaders raise, the user sees one sentence
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise UnusableModelError(f"the model in {folder} cannot be loaded: {reason}") from error


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m stapo_core.answer", description="Asks a model.")
    parser.add_argument("model_folder", type=Path, help="a model in Hugging Face layout, such as a checkpoint")
    parser.add_argument("--input", type=Path, required=True, help="JSONL with a prompt in every row")
    parser.add_argument("--num-samples", type=_positive_int, default=1, help="responses per prompt")
    parser.add_argument("--temperature", type=_positive, default=1.0, help="softmax temperature")
    parser.add_argument("--max-tokens", type=_positive_int, default=64, help="responses are cut at this many tokens")
    parser.add_argument("--limit", type=_positive_int, default=None, help="ask the first so many rows alone")
    parser.add_argument("--seed", type=int, default=0, help="all randomness follows from it")
    return parser


def _positive_int(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _positive(text: str) -> float:
    number = float(text)
    if not 0.0 < number < float("inf"):
        raise argparse.ArgumentTypeError("must be above 0")
    return number


if __name__ == "__main__":
    sys.exit(main())
