"""One mini-batch: its response tokens laid end to end, and how they are cut into micro-batches under a token budget.

Knows shapes alone. Rows are responses, counted group by group; a token's place never depends on the cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from stapo_core.batch import Group, Piece, Tokens, TokenStats
from stapo_core.distributed import Ranks

Microbatch = list[Piece]


@dataclass(slots=True)
class MiniBatch:
    """The groups of one optimizer update; `tokens` and `stats` fill up as the policy scores them."""

    groups: Sequence[Group]
    tokens: Tokens
    stats: TokenStats
    is_scored: Bool[Tensor, " N"]
    is_fresh: Bool[Tensor, " N"]
    """Scored by this rank since the last exchange."""
    offsets: list[int]
    row_advantages: list[float]
    fixed_old: Bool[Tensor, " N"] | None = None
    """Where the trainer had scored the policy that the step began with, once that is fixed."""

    @classmethod
    def lay_out(cls, groups: Sequence[Group], advantages: Float32[Tensor, "B G"], *, device: torch.device) -> MiniBatch:
        """Lays the responses end to end; log-probs and entropies are the sampler's until they are scored."""
        responses = [response for group in groups for response in group.responses]
        lengths = torch.tensor([len(response.token_ids) for response in responses])
        rows = torch.arange(len(responses)).repeat_interleave(lengths)
        drawn = torch.cat([response.logprobs for response in responses]).float().to(device)
        logprobs = drawn.nan_to_num(nan=0.0)  # an engine may fail to say; a token that is not scored is not pushed
        entropies = torch.cat([response.entropies for response in responses]).float().to(device)
        tokens = Tokens(
            advantages=advantages.flatten().float()[rows].to(device),
            logprobs=logprobs,
            old_logprobs=logprobs,
            sampler_logprobs=drawn,
            entropies=entropies,
            rows=rows.to(device),
            lengths=lengths.to(device),
        )
        unknown = torch.full_like(logprobs, torch.nan)
        return cls(
            groups=groups,
            tokens=tokens,
            stats=TokenStats(logprobs.clone(), entropies.clone(), unknown, unknown.clone()),
            is_scored=torch.zeros_like(logprobs, dtype=torch.bool),
            is_fresh=torch.zeros_like(logprobs, dtype=torch.bool),
            offsets=[0, *lengths.cumsum(0).tolist()],
            row_advantages=advantages.flatten().tolist(),
        )

    def rows_of_groups(self, *, with_advantage: bool) -> list[int]:
        """Rows of the groups that have an advantage, or of those that have none."""
        chosen: list[int] = []
        first = 0
        for group in self.groups:
            rows = range(first, first + len(group.responses))
            first = rows.stop
            if any(self.row_advantages[row] != 0 for row in rows) == with_advantage:
                chosen.extend(rows)
        return chosen

    def cut(self, rows: Iterable[int], max_tokens: int) -> list[Microbatch]:
        """Micro-batches of at most `max_tokens` padded tokens; a group's responses stay together where they fit."""
        wanted, pieces, first = set(rows), [], 0
        for group in self.groups:
            places = [row for row in range(first, first + len(group.responses)) if row in wanted]
            responses = {row: group.responses[row - first].token_ids for row in places}
            pieces.extend(_cut_group(group, responses, max_tokens))
            first += len(group.responses)
        return _pack(pieces, max_tokens)

    def places(self, microbatch: Microbatch) -> Int64[Tensor, " M"]:
        """Where the tokens of a micro-batch stand in the mini-batch, in the order in which they are scored."""
        rows = [row for piece in microbatch for row in piece.rows]
        spans = [torch.arange(self.offsets[row], self.offsets[row + 1]) for row in rows]
        return torch.cat(spans).to(self.tokens.rows.device)

    def part(self, places: Int64[Tensor, " M"]) -> Tokens:
        """The tokens at `places`, all of them whole rows; `rows` still point into the lengths of the mini-batch."""
        tokens = self.tokens
        reference = tokens.reference_logprobs
        return Tokens(
            advantages=tokens.advantages[places],
            logprobs=tokens.logprobs[places],
            old_logprobs=tokens.old_logprobs[places],
            sampler_logprobs=tokens.sampler_logprobs[places],
            entropies=tokens.entropies[places],
            rows=tokens.rows[places],
            lengths=tokens.lengths,
            reference_logprobs=None if reference is None else reference[places],
        )

    def write(self, places: Int64[Tensor, " M"], stats: TokenStats) -> None:
        """Takes down what the current policy says of some tokens."""
        self.stats.logprobs[places] = stats.logprobs.detach()
        self.stats.entropies[places] = stats.entropies
        self.stats.sum_squares[places] = stats.sum_squares
        self.stats.sum_squares_log[places] = stats.sum_squares_log
        self.is_scored[places] = True
        self.is_fresh[places] = True
        self._refresh()

    def exchange(self, ranks: Ranks) -> None:
        """Fills in what the other ranks have scored since the last exchange; every rank then holds the same table."""
        columns = [getattr(self.stats, each.name) for each in fields(TokenStats)]
        sent = torch.stack([self.is_fresh.float(), *(torch.where(self.is_fresh, column, 0.0) for column in columns)])
        ranks.sum_([sent])
        is_known = sent[0] > 0
        for column, received in zip(columns, sent[1:], strict=True):
            column[is_known] = received[is_known]
        self.is_scored |= is_known
        self.is_fresh.zero_()
        self._refresh()

    def _refresh(self) -> None:
        """The tokens' view of what is scored; while the policy has not moved, the current one is the old one too."""
        self.tokens = replace(
            self.tokens,
            logprobs=self.stats.logprobs,
            entropies=self.stats.entropies,
            old_logprobs=self.stats.logprobs if self.fixed_old is None else self.tokens.old_logprobs,
        )

    def set_old(self, logprobs: Float32[Tensor, " N"]) -> None:
        """Fixes the log-probs of the policy that the step began with."""
        self.tokens = replace(self.tokens, old_logprobs=logprobs)
        self.fixed_old = self.has_old.clone()

    @property
    def has_old(self) -> Bool[Tensor, " N"]:
        """Tokens whose old log-prob is the trainer's own and not the sampler's."""
        return self.is_scored if self.fixed_old is None else self.fixed_old

    def set_reference(self, logprobs: Float32[Tensor, " N"]) -> None:
        """Takes the log-probs of the base model."""
        self.tokens = replace(self.tokens, reference_logprobs=logprobs)


def _cut_group(group: Group, responses: dict[int, Int64[Tensor, " T"]], max_tokens: int) -> list[Piece]:
    """One piece, or several of responses of like length where the group is larger than the budget."""
    prompt_ids = torch.tensor(group.prompt.token_ids)
    whole = _piece(prompt_ids, responses, list(responses))
    if not responses:
        return []
    if whole.num_padded_tokens <= max_tokens:
        return [whole]
    pieces: list[Piece] = []
    for row in sorted(responses, key=lambda row: (len(responses[row]), row)):
        longer = _piece(prompt_ids, responses, [*(pieces[-1].rows if pieces else ()), row])
        if pieces and longer.num_padded_tokens <= max_tokens:
            pieces[-1] = longer
        else:
            pieces.append(_piece(prompt_ids, responses, [row]))
    return pieces


def _piece(prompt_ids: Int64[Tensor, " L"], responses: dict[int, Int64[Tensor, " T"]], rows: list[int]) -> Piece:
    return Piece(prompt_ids=prompt_ids, responses=tuple(responses[row] for row in rows), rows=tuple(rows))


def _pack(pieces: list[Piece], max_tokens: int) -> list[Microbatch]:
    """Fills micro-batches with pieces of like length, so that little is padded; the order is always the same."""
    pieces.sort(key=lambda piece: (max(map(len, piece.responses)), len(piece.prompt_ids), piece.rows))
    microbatches: list[Microbatch] = []
    for piece in pieces:
        if microbatches and _num_padded_tokens([*microbatches[-1], piece]) <= max_tokens:
            microbatches[-1].append(piece)
        else:
            microbatches.append([piece])
    return microbatches


def _num_padded_tokens(microbatch: Microbatch) -> int:
    num_responses = sum(len(piece.responses) for piece in microbatch)
    longest_prompt = max(len(piece.prompt_ids) for piece in microbatch)
    longest_response = max(len(ids) for piece in microbatch for ids in piece.responses)
    return len(microbatch) * longest_prompt + num_responses * longest_response
