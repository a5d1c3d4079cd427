"""A recorded step written by hand: few tokens whose mask can be worked out on paper, and hostile text."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from stapo_core.recording import FIGURES, KEPT_BELOW, sketch

TAU_P = 0.002
TAU_H = 1.0
HOSTILE = [
    "<script>window.pwned = 1</script>",
    '<img src=x onerror="window.pwned=1">',
    "\u202edrow\u200b",
    "x" * 10_000,
]


@dataclass(frozen=True)
class Answer:
    """A response: its tokens as (text, p, H), what it earned, and the prompt it answers."""

    tokens: list[tuple[str, float, float]]
    advantage: float
    prompt_index: int = 0
    prompt: str = "1+1="


# Candidates (A > 0, p < 0.002) have H 0.1, 0.2, 0.3, 1, 2. The 75 % quantile of five values is the fourth: tau_h = 1.
# So three tokens are silenced. With tau_p = 0.01 the token "seven" joins: H 0.1 0.2 0.3 0.5 1 2, tau_h = 0.875, and
# four are silenced.
ANSWERS = [
    Answer([("one", 0.001, 0.1), (" two", 0.5, 0.9), ("three", 0.001, 0.2), ("four", 0.001, 1.0)], 0.7),
    Answer([("one", 0.001, 0.05), ("\n", 0.9, 0.4)], -0.7),
    Answer([("five", 0.0015, 0.3), ("six", 0.0015, 2.0), ("seven", 0.006, 0.5)], 0.7, 1, "2+2="),
    Answer([(text, 0.3, 1.5) for text in HOSTILE], -0.7, 1, "2+2="),
]


def write_step(path: Path, answers: list[Answer]) -> None:
    """Writes a step's file as the trainer does; the conditions of the mask are applied token by token."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(_table(answers), path)


def write_compact_step(path: Path, answers: list[Answer]) -> None:
    """Writes a step's file as the trainer does between full records: most tokens lack their figures."""
    table = _table(answers)
    touched = {row["response"] for row in table.to_pylist() if row["masked"]}
    keeps = [row["response"] in touched or _is_rare(row) for row in table.to_pylist()]
    for name in FIGURES:
        values = [value if keep else None for value, keep in zip(table[name].to_pylist(), keeps, strict=True)]
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(values, pa.float32()))
    entropies = torch.tensor([entropy for answer in answers for _, _, entropy in answer.tokens])
    compact = {"kept_below": KEPT_BELOW, "grad_squares": 1.0, "entropies": [sketch(entropies)]}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"compact": json.dumps(compact)}), path)


def _is_rare(row: dict[str, Any]) -> bool:
    return bool(row["advantage"] > 0 and row["p"] < KEPT_BELOW)


def _table(answers: list[Answer]) -> pa.Table:
    rows = [
        _row(answer, place, position) for place, answer in enumerate(answers) for position in range(len(answer.tokens))
    ]
    table = pa.Table.from_pylist(rows)
    for name in (
        "p",
        "logprob",
        "old_logprob",
        "sampler_logprob",
        "entropy",
        "advantage",
        "reward",
        "ratio",
        "grad_norm",
        "weight",
        "tau_p",
        "tau_h",
    ):
        table = table.set_column(table.schema.get_field_index(name), name, table[name].cast(pa.float32()))
    return table


def _row(answer: Answer, place: int, position: int) -> dict[str, Any]:
    text, p, entropy = answer.tokens[position]
    positive, low_p, low_h = answer.advantage > 0, p < TAU_P, entropy < TAU_H
    masked = positive and low_p and low_h
    return {
        "step": 0,
        "prompt_index": answer.prompt_index,
        "sample_index": place % 2,
        "position": position,
        "token_id": 100 + position,
        "token": text,
        "p": p,
        "logprob": math.log(p),
        "old_logprob": math.log(p),
        "sampler_logprob": math.log(p),
        "entropy": entropy,
        "advantage": answer.advantage,
        "reward": 1.0 if positive else 0.0,
        "ratio": 1.0,
        "grad_norm": abs(answer.advantage) * (1 - p),
        "weight": 0.0 if masked else 1.0,
        "clipped": False,
        "masked": masked,
        "positive_advantage": positive,
        "low_p": low_p,
        "low_h": low_h,
        "tau_p": TAU_P,
        "tau_h": TAU_H,
        "scored": True,
        "prompt": answer.prompt,
        "response": "".join(token for token, _, _ in answer.tokens),
        "finish": "stop",
    }
