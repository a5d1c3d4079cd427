from __future__ import annotations

from typing import Any

from dashboard.charts import keys_of, run_rows, sparkline


def titles(algorithm: str) -> list[str]:
    return [panel.title for row in run_rows({"kind": algorithm}) for panel in row.panels]


def test_a_run_with_a_mask_has_four_learning_curves_with_the_mask_on_a_log_axis() -> None:
    learning = run_rows({"kind": "stapo"})[0]

    assert [panel.title for panel in learning.panels] == ["Reward", "Entropy", "Mask rate", "Response length"]
    mask = learning.panels[2]
    assert (mask.scale, mask.series[0].key) == ("log", "mask/ppm")


def test_a_run_without_a_mask_shows_no_panel_about_it() -> None:
    assert not [title for title in titles("grpo") if "ask" in title]


def test_a_kl_is_drawn_only_where_a_reference_model_is_kept() -> None:
    with_kl = [panel.title for row in run_rows({"kind": "grpo", "kl_coefficient": 0.01}) for panel in row.panels]

    assert "KL to the base model" in with_kl
    assert "KL to the base model" not in titles("grpo")


def test_validation_points_share_the_panel_of_the_training_reward() -> None:
    reward = run_rows({"kind": "grpo"})[0].panels[0]

    assert [(series.kind, series.key) for series in reward.series] == [
        ("train", "reward/mean"),
        ("evaluation", "eval/reward_mean"),
    ]


def test_the_keys_asked_for_are_those_drawn_and_the_token_axis_each_once() -> None:
    keys = keys_of(run_rows({"kind": "stapo"}))

    assert {"reward/mean", "eval/reward_mean", "mask/ppm", "tokens/total"} <= set(keys)
    assert len(keys) == len(set(keys))


def test_a_sparkline_leaves_gaps_out_and_ends_with_the_newest_value() -> None:
    rows: list[dict[str, Any]] = [{"values": {"a": float(n)}} for n in range(101)] + [
        {"values": {"a": None}},
        {"values": {}},
    ]

    line = sparkline(rows, "a", max_points=5)

    assert line == [0.0, 25.0, 50.0, 75.0, 100.0]
    assert sparkline(rows[:3], "a", max_points=5) == [0.0, 1.0, 2.0]
