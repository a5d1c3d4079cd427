"""Five steps of every algorithm on one tiny model and fixed rollouts: the curves that a refactor must not move.

`python -m tests.stapo_core.golden` writes `tests/golden/` anew: do it only when the mathematics was meant to change,
and say so. Weights come from Python's own generator and tokens from a file, so that no draw can differ between CPUs.
"""

from __future__ import annotations

import json
import random
import statistics
from pathlib import Path
from typing import Any

import torch

from stapo_core.algorithms import compose
from stapo_core.batch import Group, Prompt, Response
from stapo_core.learner import Learned, Learner
from stapo_core.policy import Policy
from tests.stapo_core import naive
from tests.stapo_core.tiny import make_groups, make_model, make_tokenizer, run_config

FOLDER = Path(__file__).parents[1] / "golden"
ROLLOUTS = FOLDER / "rollouts.json"
NUM_STEPS = 5
TOLERANCE = 1e-3
"""Relative; what CPUs and kernels differ by is far below it, and any other formula far above."""
NOISE = 1e-6
"""Absolute, for figures near 0."""
RARE = {"tau_p": 0.01}
ALGORITHMS: dict[str, dict[str, Any]] = {
    "stapo": {"kind": "stapo", **RARE},
    "stapo-all-tokens": {"kind": "stapo", **RARE, "entropy_scope": "all_tokens"},
    "stapo-window": {"kind": "stapo", **RARE, "entropy_window": 3},
    "stapo-steered": {"kind": "stapo", **RARE, "target_ppm": 20_000.0},
    "stapo-importance": {"kind": "stapo", **RARE, "importance_cap": 1.05},
    "grpo": {"kind": "grpo"},
    "grpo-kl": {"kind": "grpo", "kl_coefficient": 0.05},
    "justrl": {"kind": "justrl", "dual_clip": 1.05},
    "entropy20": {"kind": "entropy20"},
    "dapo": {"kind": "dapo"},
    "dr_grpo": {"kind": "dr_grpo"},
    "gspo": {"kind": "gspo"},
    "cispo": {"kind": "cispo", "clip_high": 0.05},
    "taco": {"kind": "taco"},
    "full_mask": {"kind": "full_mask", **RARE},
    "random": {"kind": "random", **RARE},
    "high_entropy": {"kind": "high_entropy", **RARE},
    "negative": {"kind": "negative", **RARE},
}
Curve = list[dict[str, float]]


def make_fixed_policy() -> Policy:
    """Qwen3 of width 64 whose weights follow from Python's random numbers alone."""
    model = make_model()
    source = random.Random(20)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            if parameter.ndim == 2:
                spread = 0.15 if "embed" in name else 0.05
                numbers = [source.gauss(0.0, spread) for _ in range(parameter.numel())]
                parameter.copy_(torch.tensor(numbers).view_as(parameter))
    return Policy(model, make_tokenizer())


def read_rollouts() -> list[list[Group]]:
    """The graded groups of each step."""
    return [[_group(group) for group in step] for step in json.loads(ROLLOUTS.read_text())]


def trace(algorithm: dict[str, Any], rollouts: list[list[Group]]) -> Curve:
    """What the learner says of each step: two mini-batches, two passes, so that ratios leave 1."""
    config = run_config(
        algorithm,
        batch={"num_prompts": 4, "group_size": 4, "num_minibatches": 2, "num_passes": 2},
        optimizer={"learning_rate": 1e-3, "warmup_steps": 2},
    )
    policy = make_fixed_policy()
    reference = make_fixed_policy().freeze()
    composed = compose(config)
    learner = Learner(
        policy,
        composed,
        config=config.train,
        num_steps=NUM_STEPS,
        reference=reference if composed.needs_reference else None,
    )
    return [_figures(learner.update(groups)) for groups in rollouts]


def read_curve(name: str) -> Curve:
    """The curve that was stored."""
    curve: Curve = json.loads((FOLDER / f"{name}.json").read_text())
    return curve


def departures(curve: Curve, golden: Curve) -> list[str]:
    """Where a curve leaves the golden one, in words."""
    return [
        f"step {step}: {key} is {found[key]:.6g} and was {wanted[key]:.6g}"
        for step, (found, wanted) in enumerate(zip(curve, golden, strict=True), start=1)
        for key in wanted
        if abs(found[key] - wanted[key]) > TOLERANCE * abs(wanted[key]) + NOISE
    ]


def write() -> None:
    """Writes rollouts and curves anew."""
    FOLDER.mkdir(exist_ok=True)
    policy = make_fixed_policy()
    steps = [make_groups(seed=seed, idle=(seed % 4,), longest=18) for seed in range(NUM_STEPS)]
    drawn = [[_entry(policy, group) for group in groups] for groups in steps]
    ROLLOUTS.write_text(json.dumps(drawn, separators=(",", ":")) + "\n")
    for name, algorithm in ALGORITHMS.items():
        curve = trace(algorithm, read_rollouts())
        rounded = [{key: float(f"{value:.7g}") for key, value in point.items()} for point in curve]
        (FOLDER / f"{name}.json").write_text("[\n" + ",\n".join(json.dumps(point) for point in rounded) + "\n]\n")
        print(f"{name}: {rounded[-1]}")  # noqa: T201  # a command


def _figures(learned: Learned) -> dict[str, float]:
    records = learned.records
    return {
        "loss": statistics.fmean(decision.loss for decision in learned.decisions),
        "grad_norm": statistics.fmean(learned.grad_norms),
        "entropy": torch.cat([record.tokens.entropies for record in records]).mean().item(),
        "weight": torch.cat([record.weights for record in records]).mean().item(),
    }


def _entry(policy: Policy, group: Group) -> dict[str, Any]:
    """A group as JSON, with the log-probs and entropies of the policy that the run begins with."""
    responses = []
    for number, response in enumerate(group.responses):
        with torch.no_grad():
            logprobs, entropies = naive.score(policy.model, group, number, 1.0)
        responses.append([response.token_ids.tolist(), _short(logprobs), _short(entropies)])
    return {"prompt": group.prompt.token_ids, "responses": responses, "rewards": group.rewards}


def _group(entry: dict[str, Any]) -> Group:
    responses = tuple(
        Response(torch.tensor(token_ids), torch.tensor(logprobs), torch.tensor(entropies), text="", finish="stop")
        for token_ids, logprobs, entropies in entry["responses"]
    )
    prompt = Prompt(index=0, text="", token_ids=tuple(entry["prompt"]), item={})
    return Group(prompt, responses, tuple(entry["rewards"]))


def _short(values: torch.Tensor) -> list[float]:
    return [round(value, 5) for value in values.tolist()]


if __name__ == "__main__":
    torch.set_num_threads(1)
    write()
