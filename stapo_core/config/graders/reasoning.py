"""The grader that asks a reasoning-gym task for its own verdict."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from stapo_core.config.strict import Strict


class ReasoningGymGrader(Strict):
    """What the task's own scorer gives to the response, from 0 to 1; the rows must come from the source reasoning_gym.

    The answer is what stands between the last <answer> and </answer> or, where there are none, the whole text.
    """

    type: Literal["reasoning_gym"]
    name: str = "reasoning_gym"
    """A label for this grader in events and metrics."""
    input: str = "{{sample.output_text}}"
    """The text that holds the answer."""
    reference: str = "{{item.reasoning_gym}}"
    """Which problem of which task it answers, as the source wrote it into the row."""
    timeout_s: Annotated[float, Field(gt=0.0, le=60.0)] = 5.0
    """Seconds after which one verdict is given up and counted as an error."""
