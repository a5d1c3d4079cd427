"""Makes the demo's base model and data: `python -m stapo_core.warmup OUT_FOLDER`.

A small Qwen3 with a tokenizer of its own learns three-digit addition from worked examples, a part of them wrong on
purpose, until it solves a third of some probe problems; reinforcement takes it from there. Everything follows from
the seed. The folder appears whole, by a rename.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Int64
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import logging as transformers_logging

from stapo_core.arithmetic import ALPHABET, Problem, draw_problems, spoil
from stapo_core.graders.numeric import last_number
from stapo_core.rollout import Draw
from stapo_core.rollout.prompts import encode_prompts
from stapo_core.rollout.transformers_sampler import TransformersSampler

NUM_TRAIN, NUM_VALIDATION, NUM_PROBE = 2000, 200, 128
BATCH_SIZE = 48
PEAK_RATE = 4e-3
SPOILT_SHARE = 0.25
MAX_TOKENS = 64
TARGET_ACCURACY = 0.34
"""Enough for most groups to hold right and wrong responses, and room to rise."""
PROBE_EVERY, PROBE_BELOW_LOSS = 10, 0.24

OnStep = Callable[[int, float], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was made, as `warmup.json` says it; accuracy is the share of held-out problems solved at temperature 1."""

    seed: int
    steps: int
    num_parameters: int
    loss: float
    held_out_accuracy: float
    seconds: float


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Exit status 2 when the folder cannot be made."""
    parser = argparse.ArgumentParser(prog="python -m stapo_core.warmup", description="Makes the demo's base model.")
    parser.add_argument("out_folder", type=Path, help="the folder to make; it must not exist")
    parser.add_argument("--seed", type=int, default=0, help="all randomness follows from it")
    parser.add_argument("--steps", type=int, default=400, help="most supervised steps")
    asked = parser.parse_args(arguments)
    if asked.out_folder.exists():
        print(f"{asked.out_folder} exists; remove it or name another folder", file=sys.stderr)  # noqa: T201
        return 2
    transformers_logging.disable_progress_bar()
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[loss]}"), TimeRemainingColumn(),
        console=console,
    ) as progress:  # fmt: skip
        task = progress.add_task("Base model", total=asked.steps, loss="")
        outcome = make_base(
            asked.out_folder,
            seed=asked.seed,
            steps=asked.steps,
            on_step=lambda step, loss: progress.update(task, completed=step, loss=f"loss {loss:.3f}"),
        )
    size, solved = outcome.num_parameters / 1e6, outcome.held_out_accuracy
    console.print(f"{size:.1f} M parameters, {solved:.0%} of held-out problems solved, {outcome.seconds:.0f} s")
    return 0


def make_base(out_folder: Path, *, seed: int, steps: int, on_step: OnStep = lambda step, loss: None) -> Outcome:
    """Writes `model/`, `train.jsonl`, `validation.jsonl` and `warmup.json`; raises OSError if `out_folder` exists."""
    start = time.monotonic()
    rng = random.Random(seed)  # noqa: S311  # problems, not secrets
    problems = draw_problems(rng, NUM_VALIDATION + NUM_PROBE + NUM_TRAIN)
    held_out, probe = problems[:NUM_VALIDATION], problems[NUM_VALIDATION : NUM_VALIDATION + NUM_PROBE]
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer)
    examples = Examples(rng, frozenset([*held_out, *probe]))
    lessons = Lessons(examples.draw, lambda step: accuracy(model, tokenizer, probe, seed=step), steps)
    losses = teach(model, tokenizer, lessons, on_step)
    outcome = Outcome(
        seed=seed,
        steps=len(losses),
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        loss=_recent(losses),
        held_out_accuracy=accuracy(model, tokenizer, held_out, seed=seed),
        seconds=round(time.monotonic() - start, 1),
    )
    out_folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out_folder.parent, prefix=".tmp-") as scratch:
        whole = Path(scratch) / "whole"
        model.save_pretrained(whole / "model")
        tokenizer.save_pretrained(whole / "model")
        _write_rows(whole / "train.jsonl", problems[NUM_VALIDATION + NUM_PROBE :])
        _write_rows(whole / "validation.jsonl", held_out)
        (whole / "warmup.json").write_text(json.dumps(asdict(outcome), indent=2) + "\n")
        whole.rename(out_folder)
    return outcome


def build_tokenizer(words: Sequence[str] = ALPHABET, pattern: str = ".") -> PreTrainedTokenizerFast:
    """One token per word, as the pattern cuts a text into words; by default the characters of the arithmetic."""
    pad, end, unknown = "<pad>", "<eos>", "<unk>"
    vocabulary = {token: place for place, token in enumerate([pad, end, unknown, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=pad, eos_token=end, unk_token=unknown, model_max_length=128
    )


def build_model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    """A Qwen3 of 0.8 M parameters, from torch's random state."""
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            max_position_embeddings=128,
            rope_theta=10_000.0,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            dtype="float32",
        )
    )


class Examples:
    """An endless stream of worked examples that never touches the held-out problems."""

    def __init__(self, rng: random.Random, held_out: frozenset[Problem]) -> None:
        self._rng = rng
        self._held_out = held_out

    def draw(self, num_examples: int) -> list[tuple[str, str]]:
        """(prompt, worked solution); a share of the solutions has one wrong character."""
        problems = draw_problems(self._rng, num_examples, avoid=self._held_out)
        return [(problem.prompt, self._maybe_spoil(problem.solution)) for problem in problems]

    def _maybe_spoil(self, solution: str) -> str:
        return spoil(self._rng, solution) if self._rng.random() < SPOILT_SHARE else solution


def accuracy(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, problems: Sequence[Problem], *, seed: int
) -> float:
    """The share of problems whose response, drawn once at temperature 1, ends in the right number."""
    answers = answer(model, tokenizer, [problem.prompt for problem in problems], seed=seed)
    solved = [
        last_number(text) == problem.left + problem.right for text, problem in zip(answers, problems, strict=True)
    ]
    return sum(solved) / len(solved)


def answer(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str], *, seed: int
) -> list[str]:
    """One response to each prompt, drawn at temperature 1."""
    encoded = encode_prompts([{"prompt": prompt} for prompt in prompts], tokenizer, MAX_TOKENS)
    sampler = TransformersSampler(model, tokenizer, max_response_tokens=MAX_TOKENS)
    groups = sampler.sample(encoded, Draw(seed=seed, step=0, num_samples=1, temperature=1.0))
    return [group.responses[0].text for group in groups]


@dataclass(frozen=True, slots=True)
class Lessons:
    """So many pairs of prompt and solution at a time; the share of a probe that is solved after a step; when to end."""

    draw: Callable[[int], list[tuple[str, str]]]
    solve_probe: Callable[[int], float]
    max_steps: int
    enough: float = TARGET_ACCURACY


def teach(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, lessons: Lessons, on_step: OnStep
) -> list[float]:
    """AdamW under a half cosine until the probe is solved well enough; gives the losses (nats per response token).

    The skill comes suddenly, and at another step for every seed: a fixed number of steps would end anywhere between
    nothing and everything.
    """
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE, weight_decay=0.01, betas=(0.9, 0.98))
    losses: list[float] = []
    for step in range(lessons.max_steps):
        for group in optimizer.param_groups:
            group["lr"] = PEAK_RATE * min(1.0, (step + 1) / 20) * (1 + math.cos(math.pi * step / lessons.max_steps)) / 2
        token_ids, labels = _encode(tokenizer, lessons.draw(BATCH_SIZE))
        loss = model(input_ids=token_ids, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        on_step(step + 1, losses[-1])
        is_due = (step + 1) % PROBE_EVERY == 0 and _recent(losses) < PROBE_BELOW_LOSS
        if is_due and lessons.solve_probe(step) >= lessons.enough:
            break
    return losses


def _recent(losses: Sequence[float]) -> float:
    last = losses[-10:]
    return sum(last) / len(last)


def _encode(
    tokenizer: PreTrainedTokenizerFast, examples: Sequence[tuple[str, str]]
) -> tuple[Int64[Tensor, "B L"], Int64[Tensor, "B L"]]:
    """Token ids padded on the right, and labels on the response alone (-100 elsewhere)."""
    rows = [(tokenizer(prompt)["input_ids"], tokenizer(solution)["input_ids"]) for prompt, solution in examples]
    shape = (len(rows), max(len(prompt) + len(solution) for prompt, solution in rows) + 1)
    token_ids = torch.full(shape, tokenizer.pad_token_id)
    labels = torch.full(shape, -100)
    for row, (prompt, solution) in enumerate(rows):
        whole = torch.tensor([*prompt, *solution, tokenizer.eos_token_id])
        token_ids[row, : len(whole)] = whole
        labels[row, len(prompt) : len(whole)] = whole[len(prompt) :]
    return token_ids, labels


def _write_rows(path: Path, problems: Sequence[Problem]) -> None:
    path.write_text("".join(json.dumps({"prompt": p.prompt, "answer": p.answer}) + "\n" for p in problems))


if __name__ == "__main__":
    sys.exit(main())
