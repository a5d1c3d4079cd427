"""Our algorithms' losses, gradients, advantages and KL against verl's on the same random rollouts.

Knows what verl calls each of ours and where the two are defined differently; verl itself answers from an environment
of its own. Old log-probs lie so far away that ratios leave every clip on both sides.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks import verl_environment
from benchmarks.agreement import Agreement, relative, report
from stapo_core.algorithms import Decision, Memory, compose, decide
from stapo_core.algorithms.advantage import centred, normalized
from stapo_core.algorithms.aggregation import Aggregation, ConstantLength, SequenceMean, TokenMean
from stapo_core.algorithms.surrogate import k3
from stapo_core.batch import Tokens
from stapo_core.config import RunConfig

LONGEST = 48
K3_CEILING = 10.0
"""verl's."""
_NUM_GROUPS, _GROUP_SIZE = 8, 8
_OURS_ALONE = {"dynamic_sampling_rounds": 0, "overlong_share": 0.0}
_AGGREGATIONS: dict[str, Aggregation] = {
    "token-mean": TokenMean(),
    "seq-mean-token-mean": SequenceMean(),
    "seq-mean-token-sum-norm": ConstantLength(LONGEST),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One of our algorithms, and what verl calls the same thing."""

    name: str
    algorithm: dict[str, Any]
    loss: str
    mode: str
    clip_low: float = 0.2
    clip_high: float = 0.28
    ceiling: float = 1e9
    """verl always clips twice; this is never reached."""
    kl: float = 0.0
    left_out: str = ""

    @property
    def ours(self) -> dict[str, Any]:
        """The algorithm as a config has it, with the clips of this case."""
        high = {"clip_high": self.clip_high}
        clips = high if self.algorithm["kind"] == "cispo" else {"clip_low": self.clip_low, **high}
        return {**clips, "kl_coefficient": self.kl, **self.algorithm}


CASES = (
    Case("dapo", {"kind": "dapo", **_OURS_ALONE}, "vanilla", "token-mean"),
    Case("dapo with k3", {"kind": "dapo", **_OURS_ALONE}, "vanilla", "token-mean", kl=0.04),
    Case("grpo", {"kind": "grpo"}, "vanilla", "seq-mean-token-mean"),
    Case("dr_grpo", {"kind": "dr_grpo"}, "vanilla", "seq-mean-token-sum-norm"),
    Case("justrl", {"kind": "justrl", "dual_clip": 10.0}, "vanilla", "token-mean", ceiling=10.0),
    Case("stapo", {"kind": "stapo"}, "vanilla", "token-mean"),
    Case("gspo", {"kind": "gspo"}, "gspo", "seq-mean-token-mean", 3e-4, 4e-4),
    Case("cispo", {"kind": "cispo"}, "cispo", "token-mean", clip_low=1.0),
    Case(
        "cispo, lower clip on",
        {"kind": "cispo"},
        "cispo",
        "token-mean",
        left_out="verl also lifts weights below 1 - low (0.2 by default); ours are clipped from above alone.",
    ),
)


@dataclass(frozen=True, slots=True)
class Rollouts:
    """Random rollouts; `tokens` has everything but the advantages, which are the algorithm's."""

    rewards: Tensor
    equal_rewards: Tensor
    tokens: Tokens
    far_reference_logprobs: Tensor
    values: Tensor
    mask: Tensor
    decisions: dict[str, tuple[Tokens, Decision]] = field(default_factory=dict)


def main() -> int:
    """Prints every relative difference; 1 when one exceeds the tolerance."""
    verl_environment.make()
    rollouts = draw()
    with tempfile.TemporaryDirectory(prefix="stapo-bench-") as scratch:
        folder = Path(scratch)
        save_file(given(rollouts), folder / "given.safetensors")
        asked = {"longest": LONGEST, "cases": [asdict(case) for case in CASES]}
        (folder / "cases.json").write_text(json.dumps(asked))
        verl_environment.run(Path(__file__).with_name("verl_side.py"), str(folder))
        theirs = load_file(folder / "verl.safetensors")
    comparisons = (_losses, _aggregated, _advantages, _penalties)
    return report([agreement for compare in comparisons for agreement in compare(rollouts, theirs)])


def draw(seed: int = 0) -> Rollouts:
    """Half of the groups have rewards of 0 and 1, half any; one token in ten lies far from the old policy."""
    source = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, LONGEST + 1, (_NUM_GROUPS * _GROUP_SIZE,), generator=source)
    rows = torch.arange(len(lengths)).repeat_interleave(lengths)
    num_tokens = len(rows)

    def noise(scale: float | Tensor) -> Tensor:
        return scale * torch.randn(num_tokens, generator=source)

    logprobs = 2.0 * torch.rand(num_tokens, generator=source).log()
    gaps = noise(torch.where(torch.rand(num_tokens, generator=source) < 0.1, 1.5, 0.3))
    rewards = torch.rand(_NUM_GROUPS, _GROUP_SIZE, generator=source)
    rewards[::2] = (rewards[::2] > 0.5).float()
    tokens = Tokens(
        advantages=torch.zeros(num_tokens),
        logprobs=logprobs,
        old_logprobs=logprobs - gaps,
        sampler_logprobs=logprobs - gaps,
        entropies=-2.0 * torch.rand(num_tokens, generator=source).log(),
        rows=rows,
        lengths=lengths,
        reference_logprobs=logprobs + noise(0.3),
    )
    mask = (torch.arange(LONGEST) < lengths.unsqueeze(1)).long()
    equal = torch.full((1, _GROUP_SIZE), 0.3)
    rollouts = Rollouts(rewards, equal, tokens, logprobs + noise(2.0), noise(1.0), mask)
    for case in CASES:
        rollouts.decisions[case.name] = _decide(case, rollouts)
    return rollouts


def _decide(case: Case, rollouts: Rollouts) -> tuple[Tokens, Decision]:
    grader = {"type": "string_check", "operation": "like", "reference": "-"}
    train = {"algorithm": case.ours, "sampling": {"max_response_tokens": LONGEST}}
    run = {"model": Path("model"), "training_file": Path("train.jsonl"), "grader": grader, "train": train}
    algorithm = compose(RunConfig.model_validate(run))
    advantages = algorithm.advantage(rollouts.rewards).flatten()[rollouts.tokens.rows]
    tokens = replace(rollouts.tokens, advantages=advantages)
    return tokens, decide(algorithm, tokens, Memory())


def given(rollouts: Rollouts) -> dict[str, Tensor]:
    """What verl gets. It has no S2T: it is told the tokens that ours kept."""
    tokens = rollouts.tokens
    assert tokens.reference_logprobs is not None
    shared = {
        "mask": rollouts.mask,
        "logprobs": tokens.logprobs,
        "old_logprobs": tokens.old_logprobs,
        "reference_logprobs": tokens.reference_logprobs,
        "far_reference_logprobs": rollouts.far_reference_logprobs,
        "rewards": rollouts.rewards,
        "equal_rewards": rollouts.equal_rewards,
        "values": rollouts.values,
    }
    for name, (seen, decision) in rollouts.decisions.items():
        shared |= {f"{name}.advantages": seen.advantages, f"{name}.kept": decision.selected.weights}
    return shared


def _losses(rollouts: Rollouts, theirs: dict[str, Tensor]) -> list[Agreement]:
    found = []
    for case in CASES:
        _, decision = rollouts.decisions[case.name]
        loss, gradient = torch.tensor(decision.loss), decision.push / decision.denominator
        peer = f"verl's {case.loss}, {case.mode}"
        for what, ours in (("loss", loss), ("gradient", gradient)):
            difference = relative(ours, theirs[f"{case.name}.{what}"])
            found.append(Agreement(f"{what} of {case.name}", peer, difference, case.left_out))
    return found


def _aggregated(rollouts: Rollouts, theirs: dict[str, Tensor]) -> list[Agreement]:
    tokens, found = rollouts.tokens, []
    for mode, aggregation in _AGGREGATIONS.items():
        gradient = aggregation.scale(tokens) / aggregation.denominator(tokens, torch.ones_like(rollouts.values))
        for what, ours in (("loss", (gradient * rollouts.values).sum()), ("gradient", gradient)):
            name = f"{what} of {type(aggregation).__name__}"
            found.append(Agreement(name, f"verl's {mode}", relative(ours, theirs[f"{mode}.{what}"])))
    return found


def _advantages(rollouts: Rollouts, theirs: dict[str, Tensor]) -> list[Agreement]:
    found = []
    for kind in ("grpo", "grpo_vectorized"):
        for ours in (normalized, centred):
            difference = relative(ours(rollouts.rewards).flatten(), theirs[f"rewards.{kind}.{ours.__name__}"])
            found.append(Agreement(f"advantages, {ours.__name__}", f"verl's {kind}", difference))
    name = "equal_rewards.grpo.normalized"
    reason = f"ours are exactly 0; verl's {theirs[name][0]:.3f}, the rounding of the mean over std + 1e-6."
    difference = relative(normalized(rollouts.equal_rewards).flatten(), theirs[name])
    return [*found, Agreement("advantages of eight equal rewards of 0.3", "verl's grpo", difference, reason)]


def _penalties(rollouts: Rollouts, theirs: dict[str, Tensor]) -> list[Agreement]:
    found = []
    for name, where in (("reference_logprobs", "reference near"), ("far_reference_logprobs", "reference far")):
        logprobs = rollouts.tokens.logprobs.clone().requires_grad_()
        values = k3(logprobs, replace(rollouts.tokens, reference_logprobs=given(rollouts)[name]))
        (gradient,) = torch.autograd.grad(values.sum(), logprobs)
        is_cut = values > K3_CEILING
        for what, ours in (("k3", values), ("k3_gradient", gradient)):
            answer, said = theirs[f"{name}.{what}"], what.replace("_", " ")
            kept = relative(ours[~is_cut], answer[~is_cut])
            found.append(Agreement(f"{said}, {where}", "verl's k3", kept))
            if is_cut.any():
                reason = "verl cuts the k3 of a token at 10, with a gradient of 0 there; ours is k3 itself."
                rest = relative(ours[is_cut], answer[is_cut])
                found.append(Agreement(f"{said}, tokens above 10", "verl's k3", rest, reason))
    return found
