"""The presets hold the constants that the papers print."""

from __future__ import annotations

from stapo_core.config import JustrlConfig, StapoConfig
from stapo_core.presets import DEMO_TRAIN, PRESETS


def test_the_papers_recipe_has_the_papers_constants() -> None:
    recipe = PRESETS["paper-8b"]
    algorithm = recipe.algorithm

    assert isinstance(algorithm, StapoConfig)
    assert (algorithm.tau_p, algorithm.quantile, algorithm.entropy_scope) == (0.002, 0.75, "candidates")
    assert (algorithm.clip_low, algorithm.clip_high, algorithm.kl_coefficient) == (0.2, 0.28, 0.0)
    assert recipe.batch.num_prompts * recipe.batch.group_size == 2048
    assert recipe.batch.num_prompts // recipe.batch.num_minibatches == 64
    assert (recipe.sampling.max_prompt_tokens, recipe.sampling.max_response_tokens) == (1024, 15_360)
    assert (recipe.optimizer.learning_rate, recipe.optimizer.warmup_steps) == (1e-6, 10)


def test_justrl_shares_the_recipe_and_brings_its_own_clip() -> None:
    algorithm = PRESETS["justrl-1.5b"].algorithm

    assert isinstance(algorithm, JustrlConfig)
    assert algorithm.dual_clip == 10.0
    assert PRESETS["justrl-1.5b"].batch == PRESETS["paper-1.7b"].batch


def test_the_demo_preset_is_what_the_demo_sends() -> None:
    sent = PRESETS["demo"].model_dump(exclude_unset=True)

    assert sent == DEMO_TRAIN
