"""One update of the policy from graded groups: score, decide, push, move.

Knows the policy, an algorithm and the optimizer; it knows no sampler, grader, file or event. The algorithm sees each
mini-batch whole, so no cut into micro-batches changes what it decides or what the gradient is divided by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float32
from torch import Tensor

from stapo_core.algorithms import Algorithm, Decision, Memory, decide, push, thresholds
from stapo_core.batch import Group, TokenRecord
from stapo_core.checkpoint import TrainerState
from stapo_core.config import TrainConfig
from stapo_core.distributed import Ranks
from stapo_core.failpoints import failpoint
from stapo_core.minibatch import Microbatch, MiniBatch
from stapo_core.optimizer import Optimizer
from stapo_core.policy import Policy
from stapo_core.rollout import Stopped
from stapo_core.scoring import NotFinite, Scorer, name

MAX_SKIPPED_IN_A_ROW = 3
_LARGE_REWARD = 1024.0


class Diverged(Exception):
    """Several updates in a row had a loss or gradient that was not finite."""


@dataclass(slots=True)
class Learned:
    """What one call of `update` did; one entry per mini-batch."""

    records: list[TokenRecord] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)
    grad_norms: list[float] = field(default_factory=list)
    learning_rate: float = 0.0
    warnings: list[str] = field(default_factory=list)
    num_tokens_total: int = 0
    """Response tokens learned from since the run began."""
    is_whole: bool = True
    """No mini-batch was skipped for a loss or gradient that is not finite, in any pass."""


@dataclass(slots=True)
class Counters:
    """What the learner remembers beside weights and moments; part of a checkpoint."""

    memory: Memory = field(default_factory=Memory)
    num_skipped_in_a_row: int = 0
    num_tokens: int = 0
    """Response tokens learned from since the run began."""


class Learner:
    """Turns graded groups into better weights."""

    def __init__(
        self,
        policy: Policy,
        algorithm: Algorithm,
        *,
        config: TrainConfig,
        num_steps: int,
        reference: Policy | None = None,
        should_stop: Callable[[], bool] = lambda: False,
        ranks: Ranks | None = None,
    ) -> None:
        self.policy = policy
        self.algorithm = algorithm
        self.config = config
        self.reference = reference
        num_updates = num_steps * config.batch.num_minibatches * config.batch.num_passes
        self.optimizer = Optimizer(policy.trainable(), config.optimizer, num_updates_in_all=num_updates)
        self.counters = Counters()
        self.scorer = Scorer(
            policy,
            temperature=config.sampling.temperature,
            max_tokens=config.batch.max_tokens_per_microbatch,
            should_stop=should_stop,
            ranks=ranks,
        )

    def update(self, groups: Sequence[Group]) -> Learned:
        """Learns from graded groups, one optimizer update per mini-batch and pass; reports the last pass.

        Raises Stopped (nothing has changed then) when asked to stop before the first update, and Diverged.
        """
        self.scorer.may_stop = True
        batches = self._lay_out(groups)
        if self.reference is not None:
            for batch in batches:
                self.scorer.score_reference(batch, self._movable_rows(batch), self.reference)
        for batch in batches[1:]:  # the first meets the policy before it moves: its current log-probs are the old ones
            self._score_old(batch)
        passes = [self._pass(batches, is_first=number == 0) for number in range(self.config.batch.num_passes)]
        learned = passes[-1]
        learned.warnings = list(dict.fromkeys(warning for each in passes for warning in each.warnings))
        learned.is_whole = all(each.is_whole for each in passes)
        self.counters.num_tokens += sum(len(record.weights) for record in learned.records)
        learned.num_tokens_total = self.counters.num_tokens
        return learned

    def _pass(self, batches: Sequence[MiniBatch], *, is_first: bool) -> Learned:
        learned = Learned()
        for batch in batches:
            if is_first or batch.fixed_old is not None:
                self._learn(batch, learned)
            else:  # it was not finite before the policy moved: nothing is known to compare with
                self.optimizer.skip()
                learned.is_whole = False
        return learned

    def state(self) -> TrainerState:
        """All that an exact resume needs beside the model's folder; adapters are part of it."""
        memory = self.counters.memory
        entropies = {f"memory/{i}": past for i, past in enumerate(memory.entropies)}
        adapters = {} if self.policy.adapter is None else self.policy.trainable()
        weights = {f"weights/{name}": parameter.detach() for name, parameter in adapters.items()}
        return TrainerState(
            tensors={**self.optimizer.state(), **entropies, **weights},
            values={
                "num_updates": self.optimizer.num_updates,
                "num_skipped_in_a_row": self.counters.num_skipped_in_a_row,
                "num_tokens": self.counters.num_tokens,
                "memory": {"num": len(entropies), "tau_p": memory.tau_p, "num_minibatches": memory.num_minibatches},
            },
        )

    def load_state(self, state: TrainerState) -> None:
        """Takes over what `state` gave; the policy must hold the weights of the same moment."""
        values = state.values
        kept = values["memory"]
        entropies = tuple(state.tensors[f"memory/{i}"] for i in range(kept["num"]))
        memory = Memory(entropies, kept["tau_p"], kept["num_minibatches"])
        self.counters = Counters(memory, values["num_skipped_in_a_row"], values["num_tokens"])
        areas = ("memory/", "rng/", "weights/")
        moments = {name: tensor for name, tensor in state.tensors.items() if not name.startswith(areas)}
        self.optimizer.load_state(moments, num_updates=values["num_updates"])
        if self.policy.adapter is not None:
            with torch.no_grad():
                for name, parameter in self.policy.trainable().items():
                    parameter.copy_(state.tensors[f"weights/{name}"])

    def _lay_out(self, groups: Sequence[Group]) -> list[MiniBatch]:
        advantages = self.algorithm.advantage(_rewards(groups))
        size = len(groups) // self.config.batch.num_minibatches
        return [
            MiniBatch.lay_out(groups[i : i + size], advantages[i : i + size], device=self.policy.device)
            for i in range(0, len(groups), size)
        ]

    def _learn(self, batch: MiniBatch, learned: Learned) -> None:
        """One optimizer update, or none where there is nothing finite to learn."""
        learned.learning_rate = self.optimizer.learning_rate
        try:
            decision = self.accumulate(batch)
            norm = self._scaled_norm(batch, decision)
        except NotFinite as fault:
            self._skip_not_finite(fault, learned)
            return
        except Stopped:
            self.optimizer.zero_gradients()
            raise
        self.counters.num_skipped_in_a_row = 0
        self.counters.memory = decision.selected.memory
        self.scorer.may_stop = False
        if norm == 0.0:
            learned.warnings.append(_nothing_to_learn(batch, decision))
            self.optimizer.skip()
        else:
            failpoint("updating")
            self.optimizer.step(norm)
            failpoint("updated")
        batch.set_old(batch.tokens.old_logprobs.clone())  # what was current at the first pass stays the old policy
        learned.decisions.append(decision)
        learned.grad_norms.append(norm)
        learned.records.append(_record(batch, decision))

    def accumulate(self, batch: MiniBatch) -> Decision:
        """Adds up the gradient of denominator x loss.

        Each micro-batch is pushed as it is scored, but for the tokens whose weight hangs on the whole mini-batch.
        The last one waits for the decision with its graph in hand, and only the responses of the others in which
        such a token survived are forwarded again: usually none.
        """
        *earlier, last = self.scorer.cut(batch, self._movable_rows(batch)) or [[]]
        waiting = self.scorer.together(lambda: self._push_early(batch, earlier, last))
        batch.exchange(self.scorer.ranks)
        decision = decide(self.algorithm, batch.tokens, self.counters.memory)
        if not math.isfinite(decision.loss):
            raise NotFinite(f"the loss is {decision.loss}")
        if last:
            torch.autograd.backward(waiting, decision.push[batch.places(last)])
        self._push_late(batch, decision, earlier)
        self.optimizer.sum_gradients(self.scorer.ranks)
        return decision

    def _push_early(self, batch: MiniBatch, earlier: list[Microbatch], last: Microbatch) -> Float32[Tensor, " M"]:
        """Scores everything and pushes what is decided; the last micro-batch's log-probs keep their graph."""
        selection = self.algorithm.selection
        if selection.needs_all_entropies:
            self.scorer.score_all(batch, batch.rows_of_groups(with_advantage=False))
        number_in_all = len(earlier) + 1
        for number, microbatch in enumerate(earlier, start=1):
            with torch.set_grad_enabled(not selection.needs_whole_batch):
                logprobs = self.scorer.score(batch, microbatch, number=f"{number} of {number_in_all}")
            if logprobs.requires_grad:
                part = batch.part(batch.places(microbatch))
                torch.autograd.backward(logprobs, push(self.algorithm, part, self.counters.memory))
        return self.scorer.score(batch, last, number=f"{number_in_all} of {number_in_all}")

    def _push_late(self, batch: MiniBatch, decision: Decision, earlier: list[Microbatch]) -> None:
        """Pushes the tokens of earlier micro-batches that were undecided when theirs was in hand, and survived."""
        late = decision.push.masked_fill(~self.algorithm.selection.undecided(batch.tokens, self.counters.memory), 0.0)
        survivors = set(batch.tokens.rows[late != 0].tolist())
        rows = [row for microbatch in earlier for piece in microbatch for row in piece.rows if row in survivors]
        for microbatch in self.scorer.cut_own(batch, rows):
            torch.autograd.backward(self.scorer.forward(microbatch).logprobs, late[batch.places(microbatch)])

    def _scaled_norm(self, batch: MiniBatch, decision: Decision) -> float:
        """Divides the accumulated gradient by the denominator; its global norm. Raises NotFinite with the culprit."""
        norm = self.optimizer.scale_gradients(1.0 / decision.denominator if decision.denominator else 0.0)
        if not math.isfinite(norm):
            culprits = [name for name in self.scorer.ranks.gather(self._culprit(batch, decision)) if name]
            culprit = culprits[0] if culprits else "no micro-batch alone, but of their sum,"
            raise NotFinite(f"the gradient of {culprit} is not finite")
        return norm

    def _culprit(self, batch: MiniBatch, decision: Decision) -> str:
        """Repeats the micro-batches one by one to name the first whose gradient is not finite; empty for none."""
        microbatches = self.scorer.cut(batch, self._movable_rows(batch))
        for number, microbatch in enumerate(microbatches, start=1):
            self.optimizer.zero_gradients()
            torch.autograd.backward(self.scorer.forward(microbatch).logprobs, decision.push[batch.places(microbatch)])
            if not math.isfinite(self.optimizer.scale_gradients(1.0)):
                return name(batch, microbatch, f"{number} of {len(microbatches)}")
        return ""

    def _score_old(self, batch: MiniBatch) -> None:
        self.scorer.together(lambda: self.scorer.score_all(batch, self._movable_rows(batch)))
        batch.exchange(self.scorer.ranks)
        batch.set_old(batch.tokens.logprobs.clone())

    def _movable_rows(self, batch: MiniBatch) -> list[int]:
        """Rows of the groups that can move the policy; with a KL term every group can."""
        rows = batch.rows_of_groups(with_advantage=True)
        return rows + (batch.rows_of_groups(with_advantage=False) if self.algorithm.needs_reference else [])

    def _skip_not_finite(self, fault: NotFinite, learned: Learned) -> None:
        self.scorer.may_stop = False  # the counters have moved
        self.counters.num_skipped_in_a_row += 1
        self.optimizer.skip()
        learned.is_whole = False
        if self.counters.num_skipped_in_a_row >= MAX_SKIPPED_IN_A_ROW:
            raise Diverged(f"{MAX_SKIPPED_IN_A_ROW} updates in a row were not finite, the last because {fault}")
        learned.warnings.append(f"an update was skipped because {fault}")


def _rewards(groups: Sequence[Group]) -> Float32[Tensor, "B G"]:
    """The rewards; a group of large ones less its first, since only differences count and float32 would lose them."""
    exact = torch.tensor([group.rewards for group in groups], dtype=torch.float64)
    is_large = exact.abs().amax(dim=1, keepdim=True) > _LARGE_REWARD
    return (exact - torch.where(is_large, exact[:, :1], 0.0)).float()


def _nothing_to_learn(batch: MiniBatch, decision: Decision) -> str:
    if not bool((batch.tokens.advantages != 0).any()):
        return "an update was skipped: in every group all rewards are equal, so there is no advantage to learn from"
    if not bool((decision.selected.weights != 0).any()):
        return "an update was skipped: every token is silenced"
    return "an update was skipped: its gradient is zero"


def _record(batch: MiniBatch, decision: Decision) -> TokenRecord:
    tau_p, tau_h = thresholds(batch.tokens, decision.selected)
    return TokenRecord(
        tokens=batch.tokens,
        stats=batch.stats,
        weights=decision.selected.weights,
        slopes=decision.slopes,
        clipped_low=decision.objective.clipped_low,
        clipped_high=decision.objective.clipped_high,
        is_scored=batch.is_scored,
        has_old=batch.has_old,
        tau_p=torch.full_like(decision.slopes, tau_p),
        tau_h=torch.full_like(decision.slopes, torch.nan if tau_h is None else tau_h),
    )
