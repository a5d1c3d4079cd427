from __future__ import annotations

from typing import Any

import pytest

from dashboard.comparison import FIGURES, Figure, RunCurves, differences, overlay, smoothed

REWARD, VALIDATION = FIGURES[0], FIGURES[1]
MASK = next(figure for figure in FIGURES if figure.is_log)


def row(step: int, kind: str = "train", **values: float | None) -> dict[str, Any]:
    named = {key.replace("__", "/"): value for key, value in values.items()}
    return {"kind": kind, "step": step, "created_at": 1000 + 60 * step, "values": named}


RUN = RunCurves(
    "a",
    [
        row(1, reward__mean=0.2, tokens__total=2e6, mask__ppm=0.0),
        row(2, reward__mean=None, tokens__total=4e6, mask__ppm=40.0),
        row(2, "evaluation", eval__reward_mean=0.5),
        row(3, reward__mean=0.6, tokens__total=6e6, mask__ppm=300.0),
    ],
)


def test_runs_are_aligned_by_step_by_minutes_or_by_millions_of_tokens() -> None:
    assert RUN.points(REWARD, "Step") == [(1.0, 0.2), (3.0, 0.6)]
    assert RUN.points(REWARD, "Time") == [(0.0, 0.2), (2.0, 0.6)]
    assert RUN.points(REWARD, "Tokens") == [(2.0, 0.2), (6.0, 0.6)]


def test_an_evaluation_lies_at_the_tokens_trained_before_it() -> None:
    assert RUN.points(VALIDATION, "Tokens") == [(4.0, 0.5)]


def test_a_long_run_is_aligned_by_tokens_in_one_pass() -> None:
    class Counted(dict[str, Any]):
        num_looks = 0

        def __getitem__(self, name: str) -> Any:
            Counted.num_looks += 1
            return super().__getitem__(name)

    rows = [Counted(row(step, reward__mean=0.5, tokens__total=1e6 * step)) for step in range(1, 1001)]

    assert RunCurves("long", rows).points(REWARD, "Tokens")[-1] == (1000.0, 0.5)
    assert Counted.num_looks < 20 * len(rows)


def test_smoothing_starts_at_the_first_value() -> None:
    assert smoothed([4.0, 4.0], 0.9) == pytest.approx([4.0, 4.0])
    assert smoothed([0.0, 1.0], 0.5) == pytest.approx([0.0, 2 / 3])
    assert smoothed([3.0, 5.0], 0.0) == [3.0, 5.0]


def test_zero_is_no_point_of_a_log_axis() -> None:
    option = overlay(MASK, [RUN], "Step", smoothing=0.0)

    assert option["yAxis"]["type"] == "log"
    assert option["yAxis"]["min"] == 1.0  # one decade below that of 40
    assert option["series"][0]["data"] == [[1.0, None], [2.0, 40.0], [3.0, 300.0]]
    assert option["series"][0]["showSymbol"]  # or a value between two gaps were nowhere


def test_a_run_of_zeros_alone_is_no_line_on_a_log_axis_and_its_name_says_so() -> None:
    grpo = RunCurves("grpo", [row(step, mask__ppm=0.0) for step in (1, 2)])

    drawn, left_out = overlay(MASK, [RUN, grpo], "Step", smoothing=0.7)["series"]

    assert (drawn["name"], left_out["name"]) == ("a", "grpo (0 throughout)")
    assert left_out["data"] == [[1.0, None], [2.0, None]]


def test_what_smoothing_leaves_of_a_value_long_past_does_not_stretch_a_log_axis() -> None:
    once = RunCurves("once", [row(step, mask__ppm=40.0 if step == 1 else 0.0) for step in range(1, 100)])

    option = overlay(MASK, [once], "Step", smoothing=0.7)

    shown = [value for _, value in option["series"][0]["data"] if value is not None]
    assert min(shown) >= option["yAxis"]["min"] == 1.0


def test_every_run_has_a_stroke_of_its_own_beside_its_colour() -> None:
    runs = [RunCurves(name, RUN.rows) for name in "abcdef"]

    option = overlay(Figure("reward/mean", "Reward"), runs, "Step", smoothing=0.0)

    strokes = [str(series["lineStyle"]["type"]) for series in option["series"]]
    assert len(set(strokes)) == 6


def test_only_settings_in_which_runs_differ_are_listed() -> None:
    def job(tau_p: float, seed: int) -> dict[str, Any]:
        config = {"algorithm": {"kind": "stapo", "tau_p": tau_p}, "num_steps": 10}
        return {"model": "m", "seed": seed, "method": {"reinforcement": {"config": config}}}

    assert differences([job(0.002, 1), job(0.01, 1)], ["a", "b"]) == {
        "Setting": ["config.algorithm.tau_p"],
        "a": ["0.002"],
        "b": ["0.01"],
    }
    assert differences([job(0.01, 1), job(0.01, 1)], ["a", "b"]) == {}
