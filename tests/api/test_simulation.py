"""The simulated mask of a recorded step, against learners that really learned at those thresholds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from api.simulation import COLUMNS, Scope, Thresholds, simulate
from api.store.recordings import read_columns
from stapo_core.algorithms import compose
from stapo_core.batch import TokenRecord
from stapo_core.diagnostics import join
from stapo_core.learner import Learner
from stapo_core.recording import Recorder
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
    return recorder.record(1, GROUPS, learn(0.005, 0.6, "all_tokens"))


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
