"""Writes what happened to every token of a step to `rollouts/step-*.parquet`, one row per token.

Knows records and a tokenizer; it reads nothing back and decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from stapo_core.batch import Group, TokenRecord
from stapo_core.diagnostics import conditions, gradient_norms

ROW_GROUP = 65_536  # so that one response is read without the rest of its step


class Recorder:
    """Records every `every` steps; 0 records none."""

    def __init__(self, run_dir: Path, tokenizer: Any, *, every: int) -> None:
        self._folder = run_dir / "rollouts"
        self._tokenizer = tokenizer
        self._every = every

    def is_due(self, step: int) -> bool:
        """Whether this step is to be recorded."""
        return self._every > 0 and step % self._every == 0

    def record(self, step: int, groups: Sequence[Group], record: TokenRecord) -> Path:
        """Writes the step's file; it appears whole, by a rename."""
        self._folder.mkdir(exist_ok=True)
        path = self._folder / f"step-{step:06d}.parquet"
        draft = path.with_suffix(".tmp")
        pq.write_table(self._table(step, groups, record), draft, compression="zstd", row_group_size=ROW_GROUP)
        draft.rename(path)
        return path

    def _table(self, step: int, groups: Sequence[Group], record: TokenRecord) -> pa.Table:
        responses = [(group, place) for group in groups for place in range(len(group.responses))]
        token_ids = torch.cat([group.responses[place].token_ids for group, place in responses])
        rows = record.tokens.rows.cpu()
        lengths = record.tokens.lengths.tolist()
        held = conditions(record)
        prompts = torch.tensor([group.prompt.index for group, _ in responses])
        samples = torch.tensor([place for _, place in responses])
        rewards = torch.tensor([group.rewards[place] for group, place in responses])
        columns: dict[str, Any] = {
            "prompt_index": prompts[rows],
            "sample_index": samples[rows],
            "position": torch.cat([torch.arange(length) for length in lengths]),
            "token_id": token_ids,
            "p": record.stats.logprobs.exp(),
            "logprob": record.stats.logprobs,
            "old_logprob": record.tokens.old_logprobs,
            "sampler_logprob": record.tokens.sampler_logprobs,
            "entropy": record.stats.entropies,
            "advantage": record.tokens.advantages,
            "reward": rewards[rows],
            "ratio": (record.tokens.logprobs - record.tokens.old_logprobs).exp(),
            "grad_norm": gradient_norms(record.stats, record.slopes),
            "weight": record.weights,
            "clipped": record.clipped_low | record.clipped_high,
            "masked": record.weights == 0,
            "positive_advantage": held.is_positive,
            "low_p": held.is_rare,
            "low_h": held.is_certain,
            "tau_p": record.tau_p,
            "tau_h": record.tau_h,
            "scored": record.is_scored,
        }
        arrays = {name: pa.array(column.cpu().numpy()) for name, column in columns.items()}
        arrays["token"] = self._texts(token_ids.tolist())
        texts: dict[str, list[str]] = {
            "prompt": [group.prompt.text for group, _ in responses],
            "response": [group.responses[place].text for group, place in responses],
            "finish": [str(group.responses[place].finish) for group, place in responses],
        }
        arrays |= {name: _spread(values, rows.tolist()) for name, values in texts.items()}
        arrays["step"] = pa.array([step] * len(token_ids), type=pa.int32())
        return pa.table(arrays)

    def _texts(self, token_ids: list[int]) -> pa.Array:
        """The text of each token, dictionary-encoded."""
        distinct = sorted(set(token_ids))
        texts = [self._tokenizer.decode([token_id], clean_up_tokenization_spaces=False) for token_id in distinct]
        place = {token_id: number for number, token_id in enumerate(distinct)}
        indices = pa.array([place[token_id] for token_id in token_ids], type=pa.int32())
        return pa.DictionaryArray.from_arrays(indices, pa.array(texts, type=pa.string()))


def _spread(values: list[str], rows: list[int]) -> pa.Array:
    """One value per response, given to each of its tokens and stored once."""
    return pa.array(values, type=pa.string()).dictionary_encode().take(pa.array(rows, type=pa.int32()))
