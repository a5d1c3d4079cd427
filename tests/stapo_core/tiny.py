"""A model small enough to check by hand: Qwen3 of width 64 with 64 words, one per character, and rollouts from it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from stapo_core.batch import Group, Prompt, Response
from stapo_core.config import RunConfig
from stapo_core.policy import Policy

VOCABULARY = 64
CHARACTERS = "0123456789+-=*/ ()abcdefghijklmnopqrstuvwxyz.,:?!\n"


def make_tokenizer() -> Any:
    words = ["<pad>", "<eos>", "<unk>", *CHARACTERS]
    words += [f"<{number}>" for number in range(len(words), VOCABULARY)]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )


def make_model(*, seed: int = 0, tied: bool = True, spread: float = 5.0) -> Any:
    """`spread` widens the embeddings, so that some tokens are rare and entropies differ."""
    torch.manual_seed(seed)
    config = transformers.Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=128,
        tie_word_embeddings=tied,
        eos_token_id=1,
        pad_token_id=0,
    )
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(spread)
    return model


def make_policy(**options: Any) -> Policy:
    return Policy(make_model(**options), make_tokenizer())


def make_groups(
    *, num_prompts: int = 4, group_size: int = 4, seed: int = 0, idle: tuple[int, ...] = (1,), longest: int = 9
) -> list[Group]:
    """Random token ids with random rewards; the groups named `idle` have equal rewards, so no advantage."""
    source = random.Random(seed)

    def ids(length: int) -> list[int]:
        return [source.randrange(VOCABULARY) for _ in range(length)]

    groups = []
    for index in range(num_prompts):
        responses = []
        for _ in range(group_size):
            token_ids = torch.tensor(ids(source.randint(1, longest)))
            unset = torch.zeros(len(token_ids))
            responses.append(Response(token_ids, unset, unset, text="", finish="stop"))
        rewards = [float(source.randint(0, 1)) for _ in range(group_size)]
        rewards[:2] = [1.0, 0.0]
        if index in idle:
            rewards = [1.0] * group_size
        prompt = Prompt(index=index, text="", token_ids=tuple(ids(source.randint(1, 6))), item={})
        groups.append(Group(prompt, tuple(responses), tuple(rewards)))
    return groups


def make_run_folder(folder: Path, **train: Any) -> Path:
    """A run directory with a model, sums as training rows, and a config; `train` overrides its training settings."""
    folder.mkdir(exist_ok=True)
    make_model(spread=1.0).save_pretrained(folder / "model")
    make_tokenizer().save_pretrained(folder / "model")
    source = random.Random(0)
    rows = [(source.randint(0, 9), source.randint(0, 9)) for _ in range(24)]
    lines = [json.dumps({"prompt": f"{a}+{b}=", "answer": str(a + b)[-1]}) for a, b in rows]
    (folder / "train.jsonl").write_text("\n".join(lines))
    (folder / "valid.jsonl").write_text("\n".join(lines[:4]))
    run_dir = folder / "run"
    run_dir.mkdir()
    settings: dict[str, Any] = {
        "algorithm": {"kind": "stapo", "tau_p": 0.02},
        "num_steps": 4,
        "batch": {"num_prompts": 4, "group_size": 4, "num_minibatches": 2, "max_tokens_per_microbatch": 64},
        "sampling": {"max_prompt_tokens": 8, "max_response_tokens": 12},
        "optimizer": {"learning_rate": 1e-3, "warmup_steps": 2},
        "evaluation": {"every_steps": 2},
        "checkpoint": {"every_steps": 2},
        "record_rollouts_every": 2,
    }
    config = {
        "model": str(folder / "model"),
        "training_file": str(folder / "train.jsonl"),
        "validation_file": str(folder / "valid.jsonl"),
        "grader": {"type": "string_check", "reference": "{{item.answer}}", "operation": "like"},
        "seed": 7,
        "train": settings | train,
    }
    (run_dir / "config.json").write_text(json.dumps(config))
    return run_dir


def read_config(run_dir: Path) -> RunConfig:
    return RunConfig.model_validate_json((run_dir / "config.json").read_bytes())


def read_events(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "events.jsonl").read_text().splitlines()]


def run_config(algorithm: dict[str, Any], **train: Any) -> RunConfig:
    """A config for tests that build the learner themselves; its paths are never opened."""
    return RunConfig.model_validate(
        {
            "model": "unused",
            "training_file": "unused",
            "grader": {"type": "string_check", "reference": "x", "operation": "eq"},
            "train": {"algorithm": algorithm, "sampling": {"max_prompt_tokens": 8, "max_response_tokens": 20}, **train},
        }
    )
