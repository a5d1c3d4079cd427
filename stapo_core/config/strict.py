"""What all config classes share. Knows pydantic alone."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(ge=1)]
Probability = Annotated[float, Field(gt=0.0, lt=1.0)]
ClipRange = Annotated[float, Field(gt=0.0, lt=1.0)]


class Strict(BaseModel):
    """Refuses unknown fields, NaN, infinity, and a value of another type (`"1"` or `true` for 1), each by name."""

    model_config = ConfigDict(
        strict=True, extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _read_numbers(cls, given: Any) -> Any:
        """JSON has one kind of number: 15.0 is the integer 15."""
        if not isinstance(given, dict):
            return given
        return {
            name: int(value) if isinstance(value, float) and value.is_integer() else value
            for name, value in given.items()
        }
