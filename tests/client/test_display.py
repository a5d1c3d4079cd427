"""What a run looks like on a terminal and in a log."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from client.display import Curve, RunDisplay, format_seconds, sparkline


def log_of(num_steps: int, steps: list[int]) -> list[str]:
    """What a console that is no terminal shows of these steps."""
    console = Console(file=io.StringIO(), width=40)
    with RunDisplay(console, "run") as display:
        display.show_state("running", num_steps=num_steps)
        for step in steps:
            display.show_step(
                step, {"reward/mean": 0.5, "policy/entropy": None, "mask/ppm": 312.4, "speed/step_s": 2.0}
            )
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_curve_spans_the_blocks_from_its_least_to_its_greatest() -> None:
    assert sparkline([0.0, 1.0, 7.0]) == "▁▂█"


def test_a_long_curve_is_averaged_to_its_width() -> None:
    assert sparkline([0.0, 2.0, 8.0, 6.0], width=2) == "▁█"


def test_a_flat_an_empty_and_a_broken_curve_can_be_drawn() -> None:
    assert sparkline([3.0, 3.0]) == "▁▁"
    assert sparkline([]) == ""
    assert sparkline([math.nan, 0.0, 1.0]) == "▁█"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")]
)
def test_durations_read_as_people_say_them(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_a_log_gets_whole_lines_with_the_numbers_and_the_time_left() -> None:
    assert log_of(2, [1, 2])[1:] == [
        "step    1/2  reward 0.500  entropy –  mask 312 ppm  tokens/s –  left 2 s",
        "step    2/2  reward 0.500  entropy –  mask 312 ppm  tokens/s –  left 0 s",
    ]


def test_a_long_run_is_thinned_to_about_twenty_lines() -> None:
    steps = [line.split()[1] for line in log_of(100, list(range(1, 101))) if line.startswith("step")]
    assert steps == ["1/100", *(f"{step}/100" for step in range(5, 101, 5))]


def test_a_step_that_comes_again_is_shown_once() -> None:
    assert sum(line.startswith("step") for line in log_of(3, [1, 2, 1, 2, 3])) == 3


def test_steps_that_come_behind_the_jobs_own_count_are_shown_all_the_same() -> None:
    console = Console(file=io.StringIO(), width=40)
    with RunDisplay(console, "run") as display:
        for step in range(1, 11):
            display.show_step(step, {"reward/mean": step / 10, "speed/step_s": 1.0})
            if step == 5:
                display.show_state("running", step=9, num_steps=10)
    assert isinstance(console.file, io.StringIO)
    lines = [line for line in console.file.getvalue().splitlines() if line.startswith("step")]
    assert lines[5:] == [
        f"step {step:>4}/10  reward {step / 10:.3f}  entropy –  mask – ppm  tokens/s –  left {left} s"
        for step, left in ((6, 1), (7, 1), (8, 1), (9, 1), (10, 0))
    ]


def test_a_curve_of_any_length_keeps_its_shape_in_bounded_room() -> None:
    curve = Curve()
    for step in range(100_000):
        curve.add(float(step))
        curve.add(math.nan)
    means = curve.means()
    assert len(means) <= 96
    # 96 values make 48 bins of 2, and so on: bins of 2048 here, of which 48 are whole and one is not
    assert means[0] == 1023.5
    assert means[47] == 47 * 2048 + 1023.5
    assert means[48] == (48 * 2048 + 99_999) / 2


def test_a_terminal_is_drawn_by_the_clock_and_not_by_the_step(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def draw(values: list[float]) -> str:
        drawn.append(len(values))
        return sparkline(values)

    monkeypatch.setattr("client.display.sparkline", draw)
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    with RunDisplay(console, "ftjob-1") as display:
        for step in range(1, 2001):
            display.show_step(step, {"reward/mean": 0.5})
    assert isinstance(console.file, io.StringIO)
    assert "step 2000/?" in console.file.getvalue()
    assert len(drawn) < 500


def test_a_terminal_shows_bar_numbers_and_curves() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    with RunDisplay(console, "ftjob-1") as display:
        display.show_state("running", num_steps=4)
        display.show_step(1, {"reward/mean": 0.25, "policy/entropy": 1.5})
        display.show_step(2, {"reward/mean": 0.75, "policy/entropy": 1.0})
        display.show_evaluation(2, {"eval/reward_mean": 0.5})
    assert isinstance(console.file, io.StringIO)
    drawn = console.file.getvalue()
    assert all(text in drawn for text in ("ftjob-1", "step 2/4", "0.750", "▁█", "█▁", "50.0% of held-out problems"))
