from __future__ import annotations

from stapo_core.config import TrainConfig
from stapo_core.presets import DEMO_TRAIN


def test_the_demo_is_a_valid_config_whose_mask_is_alive_in_small_batches() -> None:
    config = TrainConfig.model_validate(DEMO_TRAIN)
    assert config.algorithm.kind == "stapo"
    assert config.algorithm.entropy_scope == "all_tokens"
    assert config.model_dump(mode="json", exclude_unset=True) == DEMO_TRAIN
