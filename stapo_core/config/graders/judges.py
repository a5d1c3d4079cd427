"""The grader that asks a language model for a score. Which models there are is the operator's to say, by name."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stapo_core.config.strict import Strict


class JudgeText(Strict):
    """A piece of a message, in the dialect's longer form."""

    type: Literal["input_text", "output_text"] = "input_text"
    """Both kinds are text; images and sounds are not read here."""
    text: str
    """The text; the same variables are filled in."""


class JudgeMessage(Strict):
    """One message of the conversation that the judge answers."""

    role: Literal["system", "developer", "user", "assistant"]
    """Whose message it is."""
    content: str | JudgeText | Annotated[list[JudgeText], Field(min_length=1, max_length=16)]
    """The text, in which `{{sample.output_text}}` and `{{item.<field>}}` are filled in; pieces become lines."""
    type: Literal["message"] = "message"

    @property
    def template(self) -> str:
        """The text with its variables, in one piece."""
        pieces = self.content if isinstance(self.content, list) else [self.content]
        return "\n".join(piece if isinstance(piece, str) else piece.text for piece in pieces)


class JudgeSampling(Strict):
    """How the judge draws its answer; what is left out is the endpoint's to choose."""

    max_completions_tokens: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Most tokens of an answer."""
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    """How much a reasoning model may think."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    """For endpoints that draw repeatably."""
    temperature: Annotated[float, Field(ge=0.0, le=2.0)] | None = None
    """Softmax temperature."""
    top_p: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Draws from the fewest tokens that hold this much probability."""


class ScoreModelGrader(Strict):
    """The score that a language model gives the response, of the models that the operator lets be asked."""

    type: Literal["score_model"]
    name: str = "score_model"
    """A label for this grader in events and metrics."""
    model: Annotated[str, Field(min_length=1, max_length=200)]
    """The judge, by a name of the operator's list; where it is and what opens it stands in that list alone."""
    input: Annotated[list[JudgeMessage], Field(min_length=1, max_length=32)]
    """What the judge is asked; one of the messages must hold `{{sample.output_text}}`."""
    range: Annotated[list[float], Field(default_factory=lambda: [0.0, 1.0], min_length=2, max_length=2)]
    """The lowest and the highest score; one outside is an error, and the reward is the score as it is."""
    sampling_params: JudgeSampling = JudgeSampling()
    """How the judge draws its answer."""
    timeout_s: Annotated[float, Field(gt=0.0, le=600.0)] = 60.0
    """Seconds for one score, all tries included; then it is given up and counted as an error."""

    @model_validator(mode="after")
    def _can_work(self) -> ScoreModelGrader:
        low, high = self.range
        if not low < high:
            raise ValueError(f"range [{low:g}, {high:g}] is empty; the first number must be below the second")
        if not any("sample.output_text" in message.template for message in self.input):
            raise ValueError("no message of input holds {{sample.output_text}}: the judge would not see the response")
        return self
