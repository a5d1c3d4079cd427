"""The simulated mask of a recorded step, against learners that really learned at those thresholds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from api.simulation import COLUMNS, ROUNDING, Scope, Thresholds, quantile, simulate, sketched_quantile
from api.store.recordings import read_columns, read_compact, read_sketch, read_slice, spans
from stapo_core.algorithms import compose
from stapo_core.batch import TokenRecord
from stapo_core.diagnostics import join
from stapo_core.learner import Learner
from stapo_core.recording import NUM_BINS, Recorder, sketch
from tests.stapo_core.tiny import make_groups, make_policy, make_tokenizer, run_config

GROUPS = make_groups(num_prompts=6, group_size=6, longest=30)
OTHERS: list[tuple[float, float, Scope]] = [
    (0.002, 0.5, "candidates"),
    (0.01, 0.8, "candidates"),
    (0.05, 0.25, "candidates"),
    (0.01, 0.3, "all_tokens"),
    (0.05, 0.8, "all_tokens"),
]


def learn(tau_p: float, entropy_quantile: float, scope: Scope) -> TokenRecord:
    """What one update at these thresholds knows of its tokens; every learner begins with the same weights."""
    algorithm = {"kind": "stapo", "tau_p": tau_p, "entropy_quantile": entropy_quantile, "entropy_scope": scope}
    config = run_config(algorithm=algorithm, batch={"num_prompts": 6, "group_size": 6, "num_minibatches": 1})
    learner = Learner(make_policy(), compose(config), config=config.train, num_steps=3)
    return join(learner.update(GROUPS).records)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A step that was learned at thresholds of its own, with every group scored."""
    recorder = Recorder(tmp_path_factory.mktemp("run"), make_tokenizer(), every=1)
    return recorder.record(1, GROUPS, [learn(0.005, 0.6, "all_tokens")])


@pytest.fixture(scope="module")
def compact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same step between two full records."""
    recorder = Recorder(tmp_path_factory.mktemp("run"), make_tokenizer(), every=2)
    return recorder.record(1, GROUPS, [learn(0.005, 0.6, "all_tokens")])


@pytest.mark.parametrize(("tau_p", "entropy_quantile", "scope"), OTHERS)
def test_it_is_token_for_token_the_mask_of_a_run_at_those_thresholds(
    recorded: Path, tau_p: float, entropy_quantile: float, scope: Scope
) -> None:
    columns = read_columns(recorded, COLUMNS)
    simulated = simulate(
        columns, Thresholds(tau_p, entropy_quantile, scope), num_minibatches=1, group_size=len(GROUPS[0].responses)
    )
    real = learn(tau_p, entropy_quantile, scope)
    really_masked = (real.weights == 0).numpy()
    assert simulated.is_masked.tolist() == really_masked.tolist()
    assert really_masked.any()
    assert not np.array_equal(really_masked, columns["masked"])  # the thresholds make a difference
    (minibatch,) = simulated.minibatches
    assert minibatch.tau_h == real.tau_h[0].item()


@pytest.mark.parametrize(("tau_p", "entropy_quantile", "scope"), OTHERS)
def test_a_compact_step_knows_the_mask_of_a_run_at_those_thresholds_but_for_the_tokens_it_counts(
    compact: Path, tau_p: float, entropy_quantile: float, scope: Scope
) -> None:
    simulated = simulate(
        read_columns(compact, COLUMNS),
        Thresholds(tau_p, entropy_quantile, scope),
        num_minibatches=1,
        group_size=len(GROUPS[0].responses),
        compact=read_compact(compact),
    )
    real = learn(tau_p, entropy_quantile, scope)
    really_masked = (real.weights == 0).numpy()
    (minibatch,) = simulated.minibatches
    assert really_masked.any()
    assert minibatch.tau_h is not None
    assert abs(minibatch.tau_h - real.tau_h[0].item()) <= minibatch.error
    assert (simulated.is_masked != really_masked).sum() <= minibatch.undecided
    if scope == "candidates":
        assert (minibatch.error, minibatch.undecided) == (0.0, 0)
        assert minibatch.tau_h == real.tau_h[0].item()
    else:
        assert minibatch.num_population == len(really_masked)
        assert minibatch.error <= real.stats.entropies.max().item() / (2 * NUM_BINS) + ROUNDING


def test_a_compact_step_knows_the_runs_own_mask_exactly(compact: Path, recorded: Path) -> None:
    own = Thresholds(None, 0.6, "all_tokens")
    columns = read_columns(compact, COLUMNS)
    group_size = len(GROUPS[0].responses)
    simulated = simulate(columns, own, num_minibatches=1, group_size=group_size, compact=read_compact(compact), own=own)
    assert simulated.is_masked.tolist() == read_columns(recorded, COLUMNS)["masked"].tolist()
    assert (simulated.minibatches[0].error, simulated.minibatches[0].undecided) == (0.0, 0)


def test_a_compact_step_keeps_every_response_and_the_figures_of_what_a_mask_may_touch(
    compact: Path, recorded: Path
) -> None:
    kept, whole = (read_slice(path, 0, 10**6).to_pydict() for path in (compact, recorded))
    always = ("prompt", "response", "token", "token_id", "reward", "advantage", "finish", "masked", "min_p")
    assert {name: kept[name] for name in always} == {name: whole[name] for name in always}
    starts, stops = spans(np.array(whole["position"]))
    num_left_out = 0
    for start, stop in zip(starts, stops, strict=True):
        is_touched = any(whole["masked"][start:stop])
        for place in range(start, stop):
            is_rare = whole["advantage"][place] > 0 and whole["p"][place] < 0.05
            for name in ("p", "entropy", "logprob", "sampler_logprob", "grad_norm", "ratio"):
                assert kept[name][place] == (whole[name][place] if is_touched or is_rare else None)
            num_left_out += not (is_touched or is_rare)
    assert 0 < num_left_out < len(whole["p"])
    found = read_compact(compact)
    assert found is not None
    assert found.grad_squares == pytest.approx(sum(norm**2 for norm in whole["grad_norm"]), rel=1e-6)
    assert read_compact(recorded) is None


@given(
    values=st.lists(st.floats(0.0, 12.0, width=32), min_size=1, max_size=60),
    share=st.floats(0.0, 1.0, exclude_min=True, exclude_max=True),
)
def test_the_quantile_of_a_sketch_lies_within_its_stated_error(values: list[float], share: float) -> None:
    entropies = torch.tensor([*values, torch.nan])  # a sampler that told no entropy is not counted
    counted = read_sketch(sketch(entropies))
    assert counted.counts.sum() == len(values)
    found, error = sketched_quantile(counted, share)
    exact = quantile(np.array(values, dtype=np.float32), share)
    assert found is not None
    assert exact is not None
    assert abs(float(found) - float(exact)) <= error <= max(values) / (2 * NUM_BINS) + 2 * ROUNDING


def test_the_sketch_of_no_entropy_has_no_quantile() -> None:
    assert sketched_quantile(read_sketch(sketch(torch.tensor([torch.nan]))), 0.5) == (None, 0.0)
