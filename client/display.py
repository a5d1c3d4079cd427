"""A run as it happens, on a terminal: a bar, the newest numbers and two small curves; plain lines elsewhere.

Knows metric keys and rich; where the numbers come from is the caller's.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Mapping
from itertools import pairwise
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

Values = Mapping[str, float | None]

_BARS = "▁▂▃▄▅▆▇█"
_CURVE_WIDTH = 48
_SPEED_WINDOW = 10
_NUM_PLAIN_LINES = 20


class RunDisplay:
    """Draws one run; use it as a context manager. Steps that come twice are drawn once."""

    def __init__(self, console: Console, title: str) -> None:
        self._console = console
        self._title = title
        self._state = "waiting"
        self._step = 0  # how far the run is: its state may say so before the rows of its steps have come
        self._last_shown = 0
        self._num_steps = 0
        self._values: Values = {}
        self._evaluation: str | None = None
        self._rewards, self._entropies = Curve(), Curve()
        self._step_times: deque[float] = deque(maxlen=_SPEED_WINDOW)
        self._live = Live(get_renderable=self._draw, console=console, refresh_per_second=4)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live.is_started:
            self._live.stop()

    def show_state(self, state: str, *, step: int = 0, num_steps: int = 0) -> None:
        """The job's state or the trainer's stage, and how far it is."""
        changed = state != self._state
        self._state = state
        self._num_steps = num_steps or self._num_steps
        self._step = max(self._step, step)
        if changed:
            self._print(f"{self._title}: {state}")

    def show_stage(self, stage: str) -> None:
        """What the trainer is doing right now; drawn, never printed."""
        self._state = stage

    def show_step(self, step: int, values: Values) -> None:
        """The metrics of one step."""
        if step <= self._last_shown:
            return
        self._last_shown, self._step, self._values = step, max(self._step, step), values
        self._rewards.add(_number(values, "reward/mean"))
        self._entropies.add(_number(values, "policy/entropy"))
        self._step_times.append(_number(values, "speed/step_s"))
        every = max(1, self._num_steps // _NUM_PLAIN_LINES)
        is_shown = step == 1 or step % every == 0 or step == self._num_steps
        if is_shown:
            self._print(self._plain_line())

    def show_evaluation(self, step: int, values: Values) -> None:
        """The score on held-out problems after `step`."""
        score = _number(values, "eval/reward_mean")
        self._evaluation = f"{score:.1%} of held-out problems right after step {step}"
        self._print(self._evaluation)

    def show_note(self, text: str) -> None:
        """A line that stays above the drawing."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _print(self, plain: str) -> None:
        """Says it where nothing is drawn; a drawing is renewed by its own clock, however fast the news come."""
        if not self._live.is_started:
            self.show_note(plain)

    def _numbers(self) -> dict[str, str]:
        values = self._values
        return {
            "reward": _format(_number(values, "reward/mean"), ".3f"),
            "entropy": _format(_number(values, "policy/entropy"), ".3f"),
            "mask": f"{_format(_number(values, 'mask/ppm'), '.0f')} ppm",
            "tokens/s": _format(_number(values, "speed/tokens_per_s"), ",.0f"),
            "left": self._time_left(),
        }

    def _time_left(self) -> str:
        times = [seconds for seconds in tuple(self._step_times) if math.isfinite(seconds)]
        if not times or not self._num_steps:
            return "–"
        return format_seconds((self._num_steps - self._step) * sum(times) / len(times))

    def _plain_line(self) -> str:
        numbers = "  ".join(f"{name} {text}" for name, text in self._numbers().items())
        return f"step {self._last_shown:>4}/{self._num_steps or '?'}  {numbers}"

    def _draw(self) -> Group:
        head = Table.grid(padding=(0, 2))
        head.add_row(
            Text(self._title, style="bold"),
            Text(self._state, style="cyan"),
            ProgressBar(total=max(self._num_steps, 1), completed=self._step, width=28),
            Text(f"step {self._step}/{self._num_steps or '?'}"),
        )
        parts: list[Table | Text] = [head]
        if self._values:
            numbers = Table.grid(padding=(0, 3))
            numbers.add_row(*(Text.assemble((f"{name} ", "dim"), text) for name, text in self._numbers().items()))
            curves = Table.grid(padding=(0, 2))
            curves.add_row(Text("reward", style="dim"), Text(sparkline(self._rewards.means()), style="green"))
            curves.add_row(Text("entropy", style="dim"), Text(sparkline(self._entropies.means()), style="magenta"))
            parts += [numbers, curves]
        if self._evaluation:
            parts.append(Text(self._evaluation))
        return Group(*parts)


class Curve:
    """A curve of any length in bounded room: means over equally many values, over twice as many when it is full."""

    def __init__(self) -> None:
        self._means: list[float] = []
        self._span = 1
        self._sum, self._count = 0.0, 0

    def add(self, value: float) -> None:
        """Takes the next value; one that is not finite is left out."""
        if not math.isfinite(value):
            return
        self._sum, self._count = self._sum + value, self._count + 1
        if self._count == self._span:
            self._means.append(self._sum / self._span)
            self._sum, self._count = 0.0, 0
        if len(self._means) == 2 * _CURVE_WIDTH:
            self._means = [(a + b) / 2 for a, b in zip(self._means[::2], self._means[1::2], strict=True)]
            self._span *= 2

    def means(self) -> list[float]:
        """The curve so far, the last of its values with it."""
        return self._means + ([self._sum / self._count] if self._count else [])


def sparkline(values: list[float], *, width: int = _CURVE_WIDTH) -> str:
    """A curve of block characters, scaled from its own least to its own greatest value; long ones are averaged."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return ""
    num_bins = min(width, len(finite))
    edges = [round(index * len(finite) / num_bins) for index in range(num_bins + 1)]
    means = [sum(finite[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    if high == low:
        return _BARS[0] * num_bins
    return "".join(_BARS[round((mean - low) / (high - low) * (len(_BARS) - 1))] for mean in means)


def format_seconds(seconds: float) -> str:
    """A duration as people say it: 42 s, 3 min 05 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    def __str__(self) -> str:
        return format_seconds(time.monotonic() - self._began)


def _number(values: Values, key: str) -> float:
    value = values.get(key)
    return math.nan if value is None else float(value)


def _format(value: float, spec: str) -> str:
    return format(value, spec) if math.isfinite(value) else "–"
