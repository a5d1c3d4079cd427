"""What a response is rewarded for: one class per grader, kept by kind, joined here in two literal unions."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from stapo_core.config.formula import FUNCTIONS, Formula
from stapo_core.config.graders.judges import ScoreModelGrader
from stapo_core.config.graders.programs import CodeGrader, PythonGrader
from stapo_core.config.graders.reasoning import ReasoningGymGrader
from stapo_core.config.graders.text import (
    FormatGrader,
    JsonSchemaGrader,
    LengthGrader,
    MathGrader,
    NumericGrader,
    RegexGrader,
    StringCheckGrader,
    TextSimilarityGrader,
)
from stapo_core.config.strict import Strict

SingleGrader = Annotated[
    StringCheckGrader
    | NumericGrader
    | MathGrader
    | RegexGrader
    | JsonSchemaGrader
    | LengthGrader
    | FormatGrader
    | TextSimilarityGrader
    | ScoreModelGrader
    | ReasoningGymGrader
    | CodeGrader
    | PythonGrader,
    Field(discriminator="type"),
]


class MultiGrader(Strict):
    """A formula over the rewards of several graders; where one of them cannot judge, the response gets 0."""

    type: Literal["multi"]
    name: str = "multi"
    """A label for this grader in events and metrics."""
    graders: Annotated[
        dict[Annotated[str, Field(pattern=r"^[A-Za-z_]\w{0,63}$")], SingleGrader],
        Field(min_length=1, max_length=16, json_schema_extra={"additionalProperties": False}),
    ]
    """The graders by the names that the formula uses."""
    calculate_output: str
    """Such as `0.8 * right + 0.2 * short`: names, numbers, + - * / ^ and min, max, abs, floor, ceil, exp, sqrt, log."""

    @model_validator(mode="after")
    def _formula_over_graders(self) -> MultiGrader:
        names = Formula(self.calculate_output).names
        if taken := set(self.graders) & set(FUNCTIONS):
            raise ValueError(f"'{min(taken)}' is a function of formulas; give the grader another name")
        if unknown := names - set(self.graders):
            raise ValueError(f"the formula names '{min(unknown)}', which is not among the graders")
        if unused := set(self.graders) - names:
            raise ValueError(f"the formula never uses '{min(unused)}'; use it or leave the grader out")
        return self


Grader = Annotated[SingleGrader | MultiGrader, Field(discriminator="type")]
