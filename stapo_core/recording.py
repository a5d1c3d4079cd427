"""Writes every response of a step to `rollouts/step-*.parquet`, one row per token.

At a set cadence the figures of every token are written. A compact step has them (else null) for responses that hold
a masked token and for every token with A > 0 and p below a limit, and its file's metadata hold a histogram of H for
each mini-batch. Knows records and a tokenizer; it reads nothing back and decides nothing.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from stapo_core.batch import Group, TokenRecord
from stapo_core.diagnostics import conditions, gradient_norms, join

ROW_GROUP = 65_536  # so that one response is read without the rest of its step


KEPT_BELOW = 0.05  # every token with A > 0 and p below it is kept at every step
NUM_BINS = 4096
FIGURES = frozenset({"p", "logprob", "old_logprob", "sampler_logprob", "entropy", "ratio", "grad_norm"})


class Recorder:
    """Records every step, and every `every` steps the figures of all tokens; 0 records nothing."""

    def __init__(self, run_dir: Path, tokenizer: Any, *, every: int) -> None:
        self._folder = run_dir / "rollouts"
        self._tokenizer = tokenizer
        self._every = every

    @property
    def records(self) -> bool:
        """Whether anything is to be recorded."""
        return self._every > 0

    def record(self, step: int, groups: Sequence[Group], records: Sequence[TokenRecord]) -> Path:
        """Writes the step's file, of one record per mini-batch; it appears whole, by a rename."""
        self._folder.mkdir(exist_ok=True)
        path = self._folder / f"step-{step:06d}.parquet"
        draft = path.with_suffix(".tmp")
        whole = join(records)
        if step % self._every == 0:
            table = self._table(step, groups, whole, torch.ones_like(whole.is_scored))
        else:
            limit = max(KEPT_BELOW, float(whole.tau_p.max()))
            table = self._table(step, groups, whole, _kept(whole, limit))
            table = table.replace_schema_metadata({"compact": json.dumps(_compact(records, whole, limit))})
        pq.write_table(table, draft, compression="zstd", row_group_size=ROW_GROUP)
        draft.rename(path)
        return path

    def _table(self, step: int, groups: Sequence[Group], record: TokenRecord, kept: Bool[Tensor, " N"]) -> pa.Table:
        responses = [(group, place) for group in groups for place in range(len(group.responses))]
        token_ids = torch.cat([group.responses[place].token_ids for group, place in responses])
        rows = record.tokens.rows.cpu()
        lengths = record.tokens.lengths.tolist()
        prompts = torch.tensor([group.prompt.index for group, _ in responses])
        samples = torch.tensor([place for _, place in responses])
        rewards = torch.tensor([group.rewards[place] for group, place in responses])
        columns: dict[str, Any] = {
            "prompt_index": prompts[rows],
            "sample_index": samples[rows],
            "position": torch.cat([torch.arange(length) for length in lengths]),
            "token_id": token_ids,
            "reward": rewards[rows],
            **_columns(record),
        }
        left_out = (~kept).cpu().numpy()
        arrays = {
            name: pa.array(column.cpu().numpy(), mask=left_out if name in FIGURES else None)
            for name, column in columns.items()
        }
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


def _columns(record: TokenRecord) -> dict[str, Tensor]:
    held = conditions(record)
    stats, tokens = record.stats, record.tokens
    probabilities = stats.logprobs.exp()
    num_responses = len(tokens.lengths)
    sums = torch.zeros(num_responses, device=tokens.rows.device).index_add_(0, tokens.rows, stats.entropies)
    rarest = torch.ones(num_responses, device=tokens.rows.device)
    rarest = rarest.scatter_reduce(0, tokens.rows, probabilities, "amin")
    return {
        "p": probabilities,
        "logprob": stats.logprobs,
        "old_logprob": tokens.old_logprobs,
        "sampler_logprob": tokens.sampler_logprobs,
        "entropy": stats.entropies,
        "advantage": tokens.advantages,
        "ratio": (tokens.logprobs - tokens.old_logprobs).exp(),
        "grad_norm": gradient_norms(stats, record.slopes),
        "weight": record.weights,
        "clipped": record.clipped_low | record.clipped_high,
        "masked": record.weights == 0,
        "positive_advantage": held.is_positive,
        "low_p": held.is_rare,
        "low_h": held.is_certain,
        "tau_p": record.tau_p,
        "tau_h": record.tau_h,
        "scored": record.is_scored,
        "min_p": rarest[tokens.rows],
        "mean_entropy": (sums / tokens.lengths.to(sums.device))[tokens.rows],
    }


def _kept(record: TokenRecord, limit: float) -> Bool[Tensor, " N"]:
    """Tokens of responses that hold a masked one, and every token with A > 0 and p < limit."""
    touched = torch.zeros(len(record.tokens.lengths), dtype=torch.bool, device=record.tokens.rows.device)
    touched[record.tokens.rows[record.weights == 0]] = True
    is_rare = record.stats.logprobs.exp() < torch.tensor(limit, dtype=torch.float32)
    return touched[record.tokens.rows] | ((record.tokens.advantages > 0) & is_rare)


def _compact(records: Sequence[TokenRecord], whole: TokenRecord, limit: float) -> dict[str, Any]:
    """What a compact step says of the tokens whose figures it left out."""
    return {
        "kept_below": limit,
        "grad_squares": float(gradient_norms(whole.stats, whole.slopes).nan_to_num().double().square().sum()),
        "entropies": [sketch(record.stats.entropies) for record in records],
    }


def sketch(entropies: Float32[Tensor, " N"]) -> dict[str, Any]:
    """Counts the finite entropies of a mini-batch in equal bins from 0 to the greatest, which is at most ln V.

    `counts` is base64 of zlib of NUM_BINS little-endian uint32.
    """
    values = entropies[entropies.isfinite()].double().cpu()
    top = max(float(values.max()) if len(values) else 0.0, 1e-6)
    bins = (values * (NUM_BINS / top)).long().clamp(0, NUM_BINS - 1)
    counts = torch.bincount(bins, minlength=NUM_BINS).numpy().astype("<u4")
    return {"top": top, "counts": base64.b64encode(zlib.compress(counts.tobytes())).decode()}
